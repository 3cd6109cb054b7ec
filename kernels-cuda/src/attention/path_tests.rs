use half::bf16;

use super::tests::{distance, random, run, seed, shape_of};
use super::*;
use crate::device::Gpu;

#[test]
fn paths_agree_where_blocks_have_many_tiles() {
    let Some(gpu) = Gpu::for_test("attention's paths against each other") else {
        return;
    };
    let mut state = seed();
    // Orders of tiles: by sections, in pairs, over all heads.
    for (batch, seq, heads, kv_heads, head_dim) in [
        (40, 330, 8, 4, 64),
        (30, 1000, 6, 6, 64),
        (8, 1024, 20, 5, 128),
        (8, 1024, 32, 8, 128),
    ] {
        let shape = shape_of(batch, seq, heads, kv_heads, head_dim);
        if !has_hopper_kernel(&gpu, &shape) {
            continue;
        }
        let qkv = random(&mut state, shape.tokens() * shape.qkv_row(), 1.0);
        let d_o = random(&mut state, shape.tokens() * shape.o_row(), 1.0);
        let [first, second] = [false, true].map(|hopper| run(&gpu, shape, &qkv, &d_o, None, hopper));
        let again = run(&gpu, shape, &qkv, &d_o, None, true);
        assert!(
            second.0 == again.0 && second.2 == again.2,
            "{shape:?}: not the same twice"
        );
        let wide = |x: &[bf16]| -> Vec<f64> { x.iter().map(|x| x.to_f64()).collect() };
        let error = distance(&second.0, &wide(&first.0));
        assert!(error < 5e-3, "{shape:?}: o is {error} off");
        // Token by token and head by head, lest a tile that is missing or another's be lost among the others. Differences of near equals have an error of their own.
        for (token, (x, r)) in second
            .2
            .chunks(shape.qkv_row())
            .zip(first.2.chunks(shape.qkv_row()))
            .enumerate()
        {
            for (part, (x, r)) in x.chunks(head_dim).zip(r.chunks(head_dim)).enumerate() {
                let (x, r) = (wide(x), wide(r));
                let off = x.iter().zip(&r).map(|(x, r)| (x - r).powi(2)).sum::<f64>().sqrt();
                let norm = r.iter().map(|r| r * r).sum::<f64>().sqrt();
                assert!(
                    off <= 0.1 * norm + 5e-3,
                    "{shape:?}: token {token}, head {part} is {off} off, of {norm}"
                );
            }
        }
    }
}
