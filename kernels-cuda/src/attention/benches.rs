use super::backward::attention_backward_by;
use super::backward_hopper::{self, Backward};
use super::forward::attention_by;
use super::tests::{median, random, shape_of};
use super::*;
use crate::rope::RopeTable;

#[test]
#[ignore = "a bench"]
fn bench_attention() {
    let Some(gpu) = Gpu::for_test("attention bench") else {
        return;
    };
    let mut state = 7;
    for (batch, seq, heads, kv_heads, head_dim) in [
        (256, 256, 8, 8, 64),
        (64, 1024, 12, 12, 64),
        (8, 2048, 32, 32, 64),
        (8, 2048, 20, 5, 128),
        (8, 2048, 32, 8, 128),
    ] {
        let shape = shape_of(batch, seq, heads, kv_heads, head_dim);
        // One sequence's worth of random numbers, repeated, since the host is slow to make them.
        let repeat = |state: &mut u64, row: usize| random(state, seq * row, 1.0).repeat(batch);
        let qkv = gpu.upload(&repeat(&mut state, shape.qkv_row())).unwrap();
        let d_o = gpu.upload(&repeat(&mut state, shape.o_row())).unwrap();
        let (o, dqkv) = (
            gpu.uninitialized(d_o.len()).unwrap(),
            gpu.uninitialized(qkv.len()).unwrap(),
        );
        let lse = gpu.uninitialized(shape.rows()).unwrap();
        let delta = gpu.uninitialized(shape.rows()).unwrap();
        let table = RopeTable::new(&gpu, 1e4, head_dim, seq).unwrap();
        let forward = |hopper| attention_by(&gpu, shape, None, &qkv, &o, &lse, hopper).unwrap();
        let backward = |table, hopper| {
            attention_backward_by(&gpu, shape, None, &qkv, &o, &lse, &d_o, table, &delta, &dqkv, hopper).unwrap()
        };
        let hopper = Backward {
            shape,
            qkv: &qkv,
            o: &o,
            lse: &lse,
            d_o: &d_o,
            rotation: Some(&table),
            delta: &delta,
            dqkv: &dqkv,
        };
        let operations = (2 * head_dim * seq * seq * heads * batch) as f64;
        let report = |name: &str, factor: f64, run: &dyn Fn()| {
            let seconds = median(&gpu, run);
            let rate = factor * operations / seconds / 1e12;
            println!(
                "{name} {batch}x{seq} heads {heads}/{kv_heads} of {head_dim}: {:.3} ms, {rate:.0} TFLOP/s",
                seconds * 1e3
            );
        };
        report("attention", 1.0, &|| forward(false));
        if has_hopper_kernel(&gpu, &shape) {
            report("attention, Hopper", 1.0, &|| forward(true));
        }
        report("attention backward", 2.5, &|| backward(None, false));
        if has_hopper_kernel(&gpu, &shape) {
            report("attention backward, Hopper", 2.5, &|| backward(None, true));
            report("attention backward, Hopper, rotated back", 2.5, &|| {
                backward(Some(&table), true)
            });
            let (queries, keys) = (backward_hopper::queries(head_dim), backward_hopper::keys(head_dim));
            report("  queries", 1.5, &|| hopper.queries(&gpu, queries).unwrap());
            report("  keys", 2.0, &|| hopper.keys(&gpu, keys).unwrap());
        }
    }
}
