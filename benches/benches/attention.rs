//! Attention of inference with the heads of BitNet b1.58 2B-4T (20 query heads, 5 key heads, `head_dim` 128) on one thread: decode against
//! a read sweep of as many bytes, prefill against the peak of fused multiply-adds.
//!
//! `cargo bench -p onebit-benches --bench attention`. Limit and kernel run in turn, so that both see the same state of the machine; the
//! table at the end divides the fastest of each. Every case is first checked: decode must give the same bits whole and by blocks, and prefill
//! for its last token those of decode; `sum` is the sum of the sizes of the results. `ONEBIT_ISA` picks the path.

use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use half::f16;
use onebit_benches::{race, values};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::attention::cached::{
    KvHead, KvType, Queries, attend, attend_block, key_len, merge_blocks, scale_len, scratch_len, store, value_len,
};
use onebit_kernels_cpu::probe::{fma_peak, read_sweep};

/// Key heads, and query heads of each.
const KV_HEADS: usize = 5;
const GROUP: usize = 4;
const HEAD_DIM: usize = 128;

/// Positions that a decoded token sees.
const CONTEXTS: [usize; 4] = [256, 1024, 4096, 16384];
/// Tokens of a prompt.
const PROMPT: usize = 512;

/// The cache of a head.
type Head = KvHead<Vec<f32>, Vec<f16>, Vec<i8>>;

fn empty(kv: KvType, positions: usize) -> Head {
    let (k, v, s) = (
        key_len(positions, HEAD_DIM),
        value_len(positions, HEAD_DIM),
        scale_len(positions),
    );
    match kv {
        KvType::F32 => KvHead::F32 {
            keys: vec![0.0; k],
            values: vec![0.0; v],
        },
        KvType::F16 => KvHead::F16 {
            keys: vec![f16::ZERO; k],
            values: vec![f16::ZERO; v],
        },
        KvType::Int8 => KvHead::Int8 {
            keys: vec![0; k],
            values: vec![0; v],
            key_scales: vec![0.0; s],
            value_scales: vec![0.0; s],
        },
    }
}

/// Bytes that a token reads of a head.
fn head_bytes(kv: KvType, positions: usize) -> usize {
    let values = 2 * positions * HEAD_DIM;
    match kv {
        KvType::F32 => 4 * values,
        KvType::F16 => 2 * values,
        KvType::Int8 => values + 8 * positions,
    }
}

/// Caches of every key head, of random keys and values.
fn heads(kv: KvType, positions: usize) -> Vec<Head> {
    (0..KV_HEADS as u32)
        .map(|seed| {
            let (k, v) = (
                values(positions * HEAD_DIM, 3 * seed),
                values(positions * HEAD_DIM, 3 * seed + 1),
            );
            let mut head = empty(kv, positions);
            store(Isa::best(), head.view_mut(), HEAD_DIM, 0, &k, &v, HEAD_DIM);
            head
        })
        .collect()
}

/// `tokens` tokens of all query heads, the last of them at `positions - 1`.
fn queries(tokens: usize, positions: usize) -> Queries {
    Queries {
        tokens,
        group: GROUP,
        head_dim: HEAD_DIM,
        stride: KV_HEADS * GROUP * HEAD_DIM,
        first: positions - tokens,
    }
}

fn all_heads(isa: Isa, heads: &[Head], queries: Queries, q: &[f32], out: &mut [f32], scratch: &mut [f32]) {
    for (i, head) in heads.iter().enumerate() {
        let at = i * GROUP * HEAD_DIM;
        attend(isa, head.view(), queries, &q[at..], &mut out[at..], scratch);
    }
}

struct Bench {
    criterion: Criterion,
    isa: Isa,
    table: Vec<String>,
}

impl Bench {
    fn decode(&mut self, kv: KvType, positions: usize) {
        let (isa, queries) = (self.isa, queries(1, positions));
        let (heads, q) = (heads(kv, positions), values(queries.stride, 99));
        let (mut out, mut scratch) = (vec![0.0; q.len()], vec![0.0; scratch_len(HEAD_DIM)]);
        let mut parts = vec![0.0; queries.blocks() * queries.part_len()];
        all_heads(isa, &heads, queries, &q, &mut out, &mut scratch);
        // By blocks, as threads share it.
        for (i, head) in heads.iter().enumerate() {
            let at = i * GROUP * HEAD_DIM..(i + 1) * GROUP * HEAD_DIM;
            for (block, part) in parts.chunks_exact_mut(queries.part_len()).enumerate() {
                attend_block(isa, head.view(), queries, &q[at.clone()], block, part);
            }
            let mut merged = vec![0.0; at.len()];
            merge_blocks(isa, queries, &mut parts, &mut merged);
            assert_eq!(merged, out[at], "by blocks");
        }
        let bytes = KV_HEADS * head_bytes(kv, positions);
        let buffer = vec![1u8; bytes];
        let sweep = || {
            black_box(read_sweep(isa, black_box(&buffer)));
        };
        let name = format!("decode {} {positions}", kv.name());
        let run = || all_heads(isa, &heads, queries, &q, black_box(&mut out), &mut scratch);
        if let Some((limit, kernel)) = race(
            &mut self.criterion,
            "attention",
            &name,
            Throughput::Bytes(bytes as u64),
            sweep,
            run,
        ) {
            self.table.push(format!(
                "{name:>20}  {:>8.1} us  {:>6.2} ns a position  {:>6.1} GB/s   sweep {:>6.1} GB/s   ratio {:.2}   sum {:.6e}",
                kernel * 1e6,
                kernel * 1e9 / positions as f64,
                bytes as f64 / kernel / 1e9,
                bytes as f64 / limit / 1e9,
                limit / kernel,
                out.iter().map(|x| f64::from(x.abs())).sum::<f64>()
            ));
        }
    }

    fn prefill(&mut self, kv: KvType) {
        let (isa, queries) = (self.isa, queries(PROMPT, PROMPT));
        let (heads, q) = (heads(kv, PROMPT), values(PROMPT * queries.stride, 98));
        let (mut out, mut scratch) = (vec![0.0; q.len()], vec![0.0; scratch_len(HEAD_DIM)]);
        // One key head at a time, so that what is timed is short enough to be left alone by the system.
        let heads = &heads[..1];
        all_heads(isa, heads, queries, &q, &mut out, &mut scratch);
        let last = Queries {
            tokens: 1,
            first: PROMPT - 1,
            ..queries
        };
        let at = (PROMPT - 1) * queries.stride;
        let mut alone = vec![0.0; queries.stride];
        all_heads(isa, heads, last, &q[at..], &mut alone, &mut scratch);
        assert_eq!(alone, out[at..], "the last token alone");
        // Two products of head_dim multiply-adds for each query and position that it sees.
        let seen = PROMPT * (PROMPT + 1) / 2;
        let work = (4 * HEAD_DIM * GROUP * seen) as f64;
        let iterations = (work / fma_peak(isa, 1)) as u64;
        let limit = || {
            black_box(fma_peak(isa, iterations));
        };
        let name = format!("prefill {} {PROMPT}", kv.name());
        let run = || all_heads(isa, heads, queries, &q, black_box(&mut out), &mut scratch);
        if let Some((limit, kernel)) = race(
            &mut self.criterion,
            "attention",
            &name,
            Throughput::Elements(work as u64),
            limit,
            run,
        ) {
            self.table.push(format!(
                "{name:>20}  {:>8.1} us  {:>6.1} GFLOP/s   peak {:>6.1} GFLOP/s   ratio {:.2}   sum {:.6e}",
                kernel * 1e6,
                work / kernel / 1e9,
                work / limit / 1e9,
                limit / kernel,
                out.iter().map(|x| f64::from(x.abs())).sum::<f64>()
            ));
        }
    }
}

fn main() {
    let isa = Isa::from_env().expect("ONEBIT_ISA names a path of this CPU");
    let criterion = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args();
    let mut bench = Bench {
        criterion,
        isa,
        table: Vec::new(),
    };
    for kv in KvType::ALL {
        for positions in CONTEXTS {
            bench.decode(kv, positions);
        }
    }
    for kv in KvType::ALL {
        bench.prefill(kv);
    }
    println!("\n{} on one thread, the fastest of each:", isa.name());
    for line in &bench.table {
        println!("{line}");
    }
    bench.criterion.final_summary();
}
