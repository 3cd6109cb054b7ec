//! No path reads or writes past its slices: every slice ends where a page that may not be touched begins, or begins where one ends. An
//! access outside ends the process. Every public kernel is here; CI runs the products under Miri too, on the portable path.
#![cfg(target_os = "linux")]

mod fenced;

use fenced::{Fence, Fenced};
use half::{bf16, f16};
use onebit_kernels_cpu::attention::cached::{
    BLOCK, KvHead, KvRef, Queries, attend, attend_block, key_len, merge_blocks, scale_len, scratch_len, store,
    value_len,
};
use onebit_kernels_cpu::gemm::{self, gemm};
use onebit_kernels_cpu::gemm_bf16::{gemm_bf16, gemm_bf16_packed, pack_region, regions};
use onebit_kernels_cpu::int4_gemv::InputBlock;
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{
    Isa, activation, adamw, attention, cross_entropy, dense_gemv, dropout, elementwise, embedding, int4_gemv,
    int8_gemm, int8_gemv, probe, quantize, rms_norm, rng, rope, t2, ternary_columns, ternary_gemm, ternary_gemv,
};

/// Values in ±1.
fn floats(fence: Fence, n: usize) -> Fenced<f32> {
    Fenced::new(fence, (0..n).map(|i| ((i * 37 + 11) % 101) as f32 / 50.0 - 1.0))
}

/// Zeros: much, and only written before it is read.
fn scratch(fence: Fence, n: usize) -> Fenced<f32> {
    Fenced::new(fence, vec![0.0; n])
}

fn bytes(fence: Fence, n: usize) -> Fenced<i8> {
    Fenced::new(fence, (0..n).map(|i| (i * 91 + 5) as u8 as i8))
}

/// Calls `check` for every path, at either fence, and for lengths around those of vectors and blocks.
fn everywhere(lengths: &[usize], check: impl Fn(Isa, Fence, usize)) {
    for isa in Isa::available() {
        let fences: &[_] = if cfg!(miri) {
            &[Fence::After]
        } else {
            &[Fence::Before, Fence::After]
        };
        for &fence in fences {
            lengths.iter().for_each(|&n| check(isa, fence, n));
        }
        println!("path fenced: {}", isa.name());
    }
}

#[cfg(not(miri))]
const LENGTHS: [usize; 14] = [1, 3, 8, 15, 16, 17, 31, 33, 63, 64, 65, 255, 257, 641];
/// Miri is slow, and has one path and one kind of fence.
#[cfg(miri)]
const LENGTHS: [usize; 2] = [1, 17];

/// Groups of four rows that are full and not, and more than a tile.
const ROWS: &[usize] = if cfg!(miri) { &[5] } else { &[1, 4, 7, 65] };

#[test]
fn integer_products() {
    everywhere(&LENGTHS, |isa, fence, cols| {
        for layout in Layout::ALL {
            for &rows in ROWS {
                let weight = |i: usize| match (i * 7 % 3) as i8 - 1 {
                    0 if !layout.has_zero() => 1,
                    w => w,
                };
                let trits: Vec<i8> = (0..rows * cols).map(weight).collect();
                let mut packed = Fenced::new(fence, vec![0u8; layout.bytes(rows, cols)]);
                layout.pack(&trits, rows, cols, &mut packed);
                let x = bytes(fence, layout.padded_cols(cols));
                let mut out = Fenced::new(fence, vec![0i32; rows]);
                ternary_gemv::ternary_gemv(isa, layout, &packed, cols, &x, &mut out);
                let tokens = 15;
                let x = bytes(fence, tokens * layout.padded_cols(cols));
                let mut out = Fenced::new(fence, vec![0i32; tokens * rows]);
                let mut scratch = Fenced::new(fence, vec![0u8; ternary_gemm::scratch_len(cols)]);
                ternary_gemm::ternary_gemm(isa, layout, &packed, rows, cols, &x, tokens, &mut out, &mut scratch);
            }
        }
        for rows in [1, 255, 257] {
            let trits: Vec<i8> = (0..rows * cols).map(|i| (i * 7 % 3) as i8 - 1).collect();
            let mut packed = Fenced::new(fence, vec![0u8; Layout::T2.bytes(rows, cols)]);
            Layout::T2.pack(&trits, rows, cols, &mut packed);
            let mut w = Fenced::new(
                fence,
                vec![ternary_columns::Line::ZERO; ternary_columns::lines(rows, cols)],
            );
            let mut scratch = bytes(fence, t2::GROUP_ROWS * cols);
            ternary_columns::from_rows(Layout::T2, &packed, rows, cols, &mut w, &mut scratch);
            let (x, mut out) = (bytes(fence, cols), Fenced::new(fence, vec![0i32; rows]));
            ternary_columns::ternary_columns(isa, &w, &x, &mut out);
        }
        let (w, x) = (bytes(fence, 5 * cols), bytes(fence, cols));
        let mut out = Fenced::new(fence, [0i32; 5]);
        int8_gemv::int8_gemv(isa, &w, cols, &x, &mut out);
        let (stride, tokens) = (int8_gemm::padded_cols(cols), 7);
        for &rows in ROWS {
            let (w, x) = (bytes(fence, rows * cols), bytes(fence, tokens * stride));
            let mut out = Fenced::new(fence, vec![0i32; tokens * rows]);
            let mut scratch = Fenced::new(fence, vec![0u8; int8_gemm::scratch_len(cols)]);
            int8_gemm::int8_gemm(isa, &w, rows, cols, &x, tokens, &mut out, &mut scratch);
        }
        for rows in [1, 5] {
            let (w, x) = (floats(fence, rows * cols), floats(fence, 5 * cols));
            let mut codes = Fenced::new(fence, vec![0u8; rows * int4_gemv::row_bytes(cols)]);
            let mut steps = Fenced::new(fence, vec![f16::ZERO; rows * int4_gemv::row_steps(cols)]);
            int4_gemv::quantize(isa, &w, cols, &mut codes, &mut steps);
            let mut blocks = Fenced::new(fence, vec![InputBlock::ZERO; 5 * int4_gemv::blocks(cols)]);
            int4_gemv::quantize_input(isa, &x, cols, &mut blocks);
            let bytes = bytes(fence, 5 * cols);
            int4_gemv::input_of_bytes(&bytes, cols, cols, &floats(fence, 5), &mut blocks);
            let mut out = floats(fence, 5 * rows);
            int4_gemv::gemv(isa, &codes, &steps, &blocks, 5, &mut out);
            let (one, some) = (
                &blocks[..blocks.len() / 5],
                Fenced::new(fence, vec![rows as u32 - 1; 5]),
            );
            int4_gemv::gather(isa, &codes, &steps, one, &some, &mut out[..5]);
            int4_gemv::dequantize(&codes, &steps, cols, &mut floats(fence, rows * cols));
            int4_gemv::dequantize_input(&blocks, cols, &mut floats(fence, 5 * cols));
        }
    });
}

#[test]
fn float_products() {
    everywhere(&LENGTHS, |isa, fence, n| {
        let (w, x) = (floats(fence, 5 * n), floats(fence, 2 * n));
        let mut out = floats(fence, 10);
        dense_gemv::gemv_f32(isa, &w, &x, 2, &mut out);
        let halves = Fenced::new(fence, w.iter().map(|&v| f16::from_f32(v)));
        dense_gemv::gemv_f16(isa, &halves, &x, 2, &mut out);
        let halves = Fenced::new(fence, w.iter().map(|&v| bf16::from_f32(v)));
        dense_gemv::gemv_bf16(isa, &halves, &x, 2, &mut out);
        let (m, k) = (n.min(70), if cfg!(miri) { 3 } else { 33 });
        let mut scratch = scratch(fence, gemm::scratch_len());
        let mut pairs = Fenced::new(fence, vec![0u32; gemm::scratch_len()]);
        for layout in [gemm::Layout::NN, gemm::Layout::NT, gemm::Layout::TN] {
            let (a, b) = (floats(fence, m * k), floats(fence, k * n));
            let mut c = floats(fence, m * n);
            let lda = if layout == gemm::Layout::TN { m } else { k };
            let ldb = if layout == gemm::Layout::NT { k } else { n };
            gemm(isa, layout, m, n, k, &a, lda, &b, ldb, true, &mut c, n, &mut scratch);
            gemm_bf16(isa, layout, m, n, k, &a, lda, &b, ldb, true, &mut c, n, &mut pairs);
            let mut packed = Fenced::new(fence, vec![0u32; regions(n, k).map(|r| r.len).sum()]);
            let mut rest = &mut packed[..];
            for region in regions(n, k) {
                let (out, after) = rest.split_at_mut(region.len);
                pack_region(isa, layout, &region, &b, ldb, out);
                rest = after;
            }
            gemm_bf16_packed(isa, layout, m, n, k, &a, lda, &packed, true, &mut c, n, &mut pairs);
        }
    });
}

#[test]
fn attention_over_a_cache() {
    everywhere(&LENGTHS, |isa, fence, n| {
        let (tokens, group) = if cfg!(miri) { (2, 1) } else { (3, 3) };
        let queries = Queries {
            tokens,
            group,
            head_dim: n,
            stride: group * n,
            first: BLOCK - 1,
        };
        let positions = queries.first + queries.tokens;
        let (keys, values) = (floats(fence, positions * n), floats(fence, positions * n));
        let (k, v, s) = (key_len(positions, n), value_len(positions, n), scale_len(positions));
        let (q, mut out) = (floats(fence, tokens * group * n), floats(fence, tokens * group * n));
        let mut scratch = floats(fence, scratch_len(n));
        let mut parts = floats(fence, queries.blocks() * queries.part_len());
        let mut all = |kv: KvRef<'_>| {
            attend(isa, kv, queries, &q, &mut out, &mut scratch);
            for (block, part) in parts.chunks_exact_mut(queries.part_len()).enumerate() {
                attend_block(isa, kv, queries, &q, block, part);
            }
            merge_blocks(isa, queries, &mut parts, &mut out);
        };
        let (mut fk, mut fv) = (floats(fence, k), floats(fence, v));
        let to = KvHead::F32 {
            keys: &mut fk[..],
            values: &mut fv[..],
        };
        store(isa, to, n, 0, &keys, &values, n);
        all(KvHead::F32 { keys: &fk, values: &fv });
        let (mut hk, mut hv) = (
            Fenced::new(fence, vec![f16::ZERO; k]),
            Fenced::new(fence, vec![f16::ZERO; v]),
        );
        let to = KvHead::F16 {
            keys: &mut hk[..],
            values: &mut hv[..],
        };
        store(isa, to, n, 0, &keys, &values, n);
        all(KvHead::F16 { keys: &hk, values: &hv });
        let (mut bk, mut bv) = (bytes(fence, k), bytes(fence, v));
        let (mut key_scales, mut value_scales) = (floats(fence, s), floats(fence, s));
        let to = KvHead::Int8 {
            keys: &mut bk[..],
            values: &mut bv[..],
            key_scales: &mut key_scales[..],
            value_scales: &mut value_scales[..],
        };
        store(isa, to, n, 0, &keys, &values, n);
        all(KvHead::Int8 {
            keys: &bk,
            values: &bv,
            key_scales: &key_scales,
            value_scales: &value_scales,
        });
    });
}

#[test]
fn the_rest_of_a_block() {
    everywhere(&LENGTHS, |isa, fence, n| {
        let (x, w, mut out) = (floats(fence, 3 * n), floats(fence, n), floats(fence, 3 * n));
        rms_norm::rms_norm(isa, &x, &w, 1e-5, &mut out);
        let stride = n.next_multiple_of(8);
        let (mut xq, mut scales) = (bytes(fence, 3 * stride), floats(fence, 3));
        quantize::absmax_i8(isa, &x, n, &mut xq, stride, &mut scales);
        let mut trits = bytes(fence, 3 * n);
        quantize::ternary_i8(isa, &x, 0.5, &mut trits);
        let y = floats(fence, 3 * n);
        activation::relu2(isa, &x, &mut out);
        activation::relu2_gate(isa, &x, &y, &mut out);
        activation::swiglu(isa, &x, &y, &mut out);
        elementwise::add(isa, &x, &y, &mut out);
        elementwise::axpy(isa, 0.5, &x, &mut out);
        assert!(elementwise::sum(isa, &x).is_finite() && elementwise::dot(isa, &x, &y).is_finite());
        assert!(elementwise::all_finite(isa, &out));
        // Two heads of even size, at three positions.
        let dim = n.next_multiple_of(2);
        let (mut turned, cos, sin) = (
            floats(fence, 6 * dim),
            floats(fence, 3 * dim / 2),
            floats(fence, 3 * dim / 2),
        );
        rope::rope(isa, &mut turned, 2, dim, &cos, &sin, false);
        let targets = Fenced::new(fence, [0, n as u32 - 1, 0]);
        let (mut loss, mut smooth, mut lse) = (floats(fence, 3), floats(fence, 3), floats(fence, 3));
        cross_entropy::cross_entropy(isa, &x, n, &targets, &mut loss, &mut smooth, 0.1, &mut lse);
        cross_entropy::cross_entropy_backward(isa, &x, n, &targets, &lse, 0.1, 1.0, &mut out);
    });
}

#[test]
fn gradients() {
    everywhere(&LENGTHS, |isa, fence, n| {
        let rows = || floats(fence, 3 * n);
        let (x, y, w) = (rows(), rows(), floats(fence, n));
        let (mut dx, mut dy, mut dw) = (rows(), rows(), floats(fence, n));
        rms_norm::rms_norm_backward(isa, &x, &w, 1e-5, &y, &mut dx, &mut dw);
        activation::relu2_backward(isa, &x, &y, &mut dx);
        activation::relu2_gate_backward(isa, &x, &y, &y, &mut dx, &mut dy);
        activation::silu(isa, &x, &mut dx);
        activation::swiglu_backward(isa, &x, &y, &y, &mut dx, &mut dy);
        // As many positions as head elements are short enough for; two heads share one key head.
        let shape = attention::AttentionShape {
            seq: n.min(if cfg!(miri) { 3 } else { 70 }),
            heads: 2,
            kv_heads: 1,
            head_dim: n.min(40),
        };
        let (queries, keys) = (shape.seq * 2 * shape.head_dim, shape.seq * shape.head_dim);
        let (q, k, v) = (floats(fence, queries), floats(fence, keys), floats(fence, keys));
        let (mut out, mut lse) = (floats(fence, queries), floats(fence, 2 * shape.seq));
        let mut scratch = scratch(fence, attention::scratch_len(&shape));
        let dropout = attention::AttentionDropout {
            p: 0.3,
            key: rng::Key::new(1, 2, 3),
            sequence: 5,
        };
        let dropout = n.is_multiple_of(2).then_some(&dropout);
        attention::causal_attention(isa, &shape, dropout, &q, &k, &v, &mut out, &mut lse, &mut scratch);
        let (mut dq, mut dk, mut dv) = (floats(fence, queries), floats(fence, keys), floats(fence, keys));
        attention::causal_attention_backward(
            isa,
            &shape,
            dropout,
            &q,
            &k,
            &v,
            &out,
            &lse,
            &q,
            &mut dq,
            &mut dk,
            &mut dv,
            &mut scratch,
        );
        assert!(attention::softmax_weights(isa, &mut dw) >= 1.0);
    });
}

#[test]
fn one_pass_over_memory() {
    everywhere(&LENGTHS, |isa, fence, n| {
        let (x, y, mut out) = (floats(fence, n), floats(fence, n), floats(fence, n));
        elementwise::mul(isa, &x, &y, &mut out);
        elementwise::scale(isa, 0.5, &x, &mut out);
        assert!(elementwise::sum_squares(isa, &x).is_finite() && quantize::abs_sum(isa, &x).is_finite());
        let step = adamw::AdamWStep {
            lr: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            bias_correction1: 0.1,
            bias_correction2: 0.05,
            grad_scale: 1.0,
        };
        let mut square = Fenced::new(fence, x.iter().map(|v| v * v));
        adamw::adamw(isa, &step, &mut out, &x, &mut floats(fence, n), &mut square);
        let key = rng::Key::new(1, 2, 3);
        // A block of random words begins at each offset that is a multiple of four.
        for offset in 0..4 {
            dropout::dropout(isa, &x, 0.3, key, offset, &mut out);
            key.fill_normal(offset, &mut out);
        }
        let ids = Fenced::new(fence, [2u32, 0, 2, 1]);
        let (mut table, mut rows) = (floats(fence, 3 * n), floats(fence, 4 * n));
        embedding::gather(isa, &table, n, &ids, &mut rows);
        embedding::scatter_add(isa, &rows, n, &ids, &mut table);
        quantize::ternary_f32(isa, &x, 0.5, &mut out);
        for a in [0.0, 0.5, 1.0] {
            quantize::soft_ternary(isa, &x, 0.5, a, &mut out);
        }
        let (mut small, mut scale) = (bytes(fence, n), floats(fence, 1));
        quantize::binary_i8(isa, &x, &mut small);
        quantize::int8_rowwise(isa, &x, n, &mut small, &mut scale);
        quantize::dequantize_rows(isa, &small, n, n, &scale, &mut out);
        let read = Fenced::new(fence, (0..n).map(|i| i as u8));
        assert_eq!(
            probe::read_sweep(isa, &read),
            read.iter().map(|&b| u64::from(b)).sum::<u64>()
        );
    });
}
