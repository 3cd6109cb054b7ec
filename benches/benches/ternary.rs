//! The matrix-vector products (ternary, binary, int8, int4, f16, f32) against a read sweep of as many bytes, and the ternary and int8 matrix
//! products against the peak of int8 dot products, and products by columns against those by rows, on one thread.
//!
//! `cargo bench -p onebit-benches --bench ternary`. Limit and kernel run in turn, so that both see the same state of the
//! machine; the table at the end divides the fastest of each. Every case is first checked: sampled rows of a GEMV against
//! the portable path, and all of a GEMM by its token sums, `Σ_r out[t,r] = Σ_k x[t,k] · Σ_r w[r,k]`. `ONEBIT_ISA` picks
//! the path.

use std::cell::Cell;
use std::fmt::Debug;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput};
use half::f16;
use onebit_benches::{race, values};
use onebit_kernels_cpu::dense_gemv::{gemv_f16, gemv_f32, gemv_i8};
use onebit_kernels_cpu::int8_gemv::int8_gemv;
use onebit_kernels_cpu::probe::{int8_dot_peak, read_sweep};
use onebit_kernels_cpu::quantize::{absmax_i8, ternary_i8};
use onebit_kernels_cpu::ternary::{Layout, padded_cols};
use onebit_kernels_cpu::ternary_columns::{Line, from_rows, is_fast, lines, ternary_columns};
use onebit_kernels_cpu::ternary_gemm::{scratch_len, ternary_gemm};
use onebit_kernels_cpu::ternary_gemv::ternary_gemv;
use onebit_kernels_cpu::{Isa, int4_gemv, int8_gemm};

/// Bytes of weights: a matrix that stays in the caches, and one far larger than they are.
const FOOTPRINTS: [usize; 2] = [1 << 20, 96 << 20];

/// Columns of the GEMVs: the linears of BitNet b1.58 2B-4T.
const WIDTHS: [usize; 2] = [2560, 6912];

/// `(tokens, rows, cols)`: linears in training (2,048 tokens), then prompts of that model.
const GEMM: [(usize, usize, usize); 10] = [
    (2048, 128, 128),
    (2048, 256, 256),
    (2048, 1408, 512),
    (2048, 512, 1408),
    (2048, 2048, 2048),
    (4, 2560, 2560),
    (16, 2560, 2560),
    (48, 2560, 2560),
    (240, 2560, 2560),
    (240, 2560, 6912),
];

/// Rows that are made; a larger matrix repeats them, since the values do not matter to the speed.
const MADE: usize = 64;

/// `n` bytes of −127..=127.
fn bytes(n: usize, seed: u32) -> Vec<i8> {
    let mut out = vec![0; n];
    absmax_i8(Isa::best(), &values(n, seed), n, &mut out, n, &mut [0.0]);
    out
}

/// `n` weights −1, 0 or 1.
fn trits(n: usize, seed: u32) -> Vec<i8> {
    let mut out = vec![0; n];
    ternary_i8(Isa::best(), &values(n, seed), 0.7, &mut out);
    out
}

/// As many that `layout` holds: where it has no 0, each is a 1.
fn weights(layout: Layout, n: usize, seed: u32) -> Vec<i8> {
    let mut out = trits(n, seed);
    if !layout.has_zero() {
        out.iter_mut().for_each(|w| *w |= 1);
    }
    out
}

struct Bench {
    criterion: Criterion,
    isa: Isa,
    table: Vec<String>,
}

impl Bench {
    /// A GEMV over `rows` rows of `row_bytes` each; `run(isa, first_row, out)` computes `out.len()` rows.
    fn gemv<T: Copy + PartialEq + Debug + Default>(
        &mut self,
        name: &str,
        rows: usize,
        row_bytes: usize,
        run: impl Fn(Isa, usize, &mut [T]),
    ) {
        let mut out = vec![T::default(); rows];
        run(self.isa, 0, &mut out);
        for first in (0..rows - 4).step_by(rows / 16 / 4 * 4) {
            let mut want = [T::default(); 4];
            run(Isa::SCALAR, first, &mut want);
            assert_eq!(out[first..first + 4], want, "{name}: rows from {first}");
        }
        let (isa, buffer) = (self.isa, vec![1u8; rows * row_bytes]);
        let sweep = || {
            black_box(read_sweep(isa, black_box(&buffer)));
        };
        let work = Throughput::Bytes(buffer.len() as u64);
        if let Some((limit, kernel)) = race(&mut self.criterion, "ternary", name, work, sweep, || {
            run(isa, 0, black_box(&mut out))
        }) {
            let gb = buffer.len() as f64 / 1e9;
            self.table.push(format!(
                "{name:>36}  {:>7.1} GB/s   sweep {:>6.1} GB/s   ratio {:.2}",
                gb / kernel,
                gb / limit,
                limit / kernel
            ));
        }
    }

    /// Every format at `cols` columns and about `footprint` bytes.
    fn gemvs(&mut self, cols: usize, footprint: usize) {
        let (xq, x) = (bytes(padded_cols(cols), 1), values(cols, 2));
        let place = if footprint == FOOTPRINTS[0] { "cached" } else { "memory" };
        let rows_of = |row_bytes: usize| (footprint / row_bytes).next_multiple_of(MADE);

        for layout in Layout::ALL {
            let mut made = vec![0; layout.bytes(MADE, cols)];
            layout.pack(&weights(layout, MADE * cols, 3), MADE, cols, &mut made);
            let (group, rows) = (layout.group_bytes(cols), rows_of(layout.group_bytes(cols) / 4));
            let w = made.repeat(rows / MADE);
            self.gemv(
                &format!("{} {place} {rows}x{cols}", layout.name()),
                rows,
                group / 4,
                |isa, first, out: &mut [i32]| {
                    let w = &w[first / 4 * group..][..out.len() / 4 * group];
                    ternary_gemv(isa, layout, w, cols, &xq, out);
                },
            );
        }

        let rows = rows_of(cols);
        let w = bytes(MADE * cols, 4).repeat(rows / MADE);
        self.gemv(
            &format!("int8 {place} {rows}x{cols}"),
            rows,
            cols,
            |isa, first, out: &mut [i32]| {
                int8_gemv(isa, &w[first * cols..][..out.len() * cols], cols, &xq[..cols], out);
            },
        );
        drop(w);

        // An int4 head, and below an int8 one, whose activations are f32.
        let (row_codes, row_steps) = (int4_gemv::row_bytes(cols), int4_gemv::row_steps(cols));
        let row_bytes = row_codes + 2 * row_steps;
        let rows = rows_of(row_bytes);
        let (mut codes, mut steps) = (vec![0; MADE * row_codes], vec![f16::ZERO; MADE * row_steps]);
        int4_gemv::quantize(Isa::best(), &values(MADE * cols, 5), cols, &mut codes, &mut steps);
        let (codes, steps) = (codes.repeat(rows / MADE), steps.repeat(rows / MADE));
        let mut blocks = vec![int4_gemv::InputBlock::ZERO; int4_gemv::blocks(cols)];
        int4_gemv::quantize_input(Isa::best(), &x, cols, &mut blocks);
        self.gemv(
            &format!("int4 {place} {rows}x{cols}"),
            rows,
            row_bytes,
            |isa, first, out: &mut [f32]| {
                let codes = &codes[first * row_codes..][..out.len() * row_codes];
                let steps = &steps[first * row_steps..][..out.len() * row_steps];
                int4_gemv::gemv(isa, codes, steps, &blocks, 1, out);
            },
        );
        drop((codes, steps));

        let rows = rows_of(cols);
        let (w, steps) = (bytes(MADE * cols, 4).repeat(rows / MADE), vec![0.01; rows]);
        self.gemv(
            &format!("int8, f32 input {place} {rows}x{cols}"),
            rows,
            cols + 4,
            |isa, first, out: &mut [f32]| {
                let (w, steps) = (&w[first * cols..][..out.len() * cols], &steps[first..][..out.len()]);
                gemv_i8(isa, w, steps, &x, 1, out);
            },
        );
        drop((w, steps));

        let rows = rows_of(2 * cols);
        let made: Vec<f16> = values(MADE * cols, 5).into_iter().map(f16::from_f32).collect();
        let w = made.repeat(rows / MADE);
        self.gemv(
            &format!("f16 {place} {rows}x{cols}"),
            rows,
            2 * cols,
            |isa, first, out: &mut [f32]| {
                gemv_f16(isa, &w[first * cols..][..out.len() * cols], &x, 1, out);
            },
        );
        drop(w);

        let rows = rows_of(4 * cols);
        let w = values(MADE * cols, 6).repeat(rows / MADE);
        self.gemv(
            &format!("f32 {place} {rows}x{cols}"),
            rows,
            4 * cols,
            |isa, first, out: &mut [f32]| {
                gemv_f32(isa, &w[first * cols..][..out.len() * cols], &x, 1, out);
            },
        );
    }

    /// `down_proj` of that model by columns, of whose activations 5 to 65 in a hundred are not 0, against `layout` by rows; as many matrices
    /// one after the other as make what is read far larger than the caches.
    fn columns(&mut self, layout: Layout) {
        let (isa, rows, cols, copies) = (self.isa, 2560, 6912, 100);
        let weights = trits(MADE * cols, 10).repeat(rows / MADE);
        let mut packed = vec![0; layout.bytes(rows, cols)];
        layout.pack(&weights, rows, cols, &mut packed);
        let mut made = vec![Line::ZERO; lines(rows, cols)];
        from_rows(layout, &packed, rows, cols, &mut made, &mut vec![0; 4 * cols]);
        let (len, matrices) = (packed.len(), packed.repeat(copies));
        let columns = made.repeat(copies);
        for percent in [5, 12, 20, 35, 50, 65] {
            // At random: in runs, the hardware's prefetchers would read beyond their ends.
            let mut xq = bytes(padded_cols(cols), 9);
            for (x, v) in xq.iter_mut().zip(values(cols, 11)) {
                if 50.0 * (v + 1.0) >= percent as f32 {
                    *x = 0;
                }
            }
            let (mut want, mut out) = (vec![0; rows], vec![0; rows]);
            ternary_gemv(isa, layout, &packed, cols, &xq, &mut want);
            let multiply = |w: &[Line], out: &mut [i32]| {
                out.fill(0);
                ternary_columns(isa, w, &xq[..cols], out);
            };
            multiply(&made, &mut out);
            assert_eq!(out, want, "columns, {percent} %");
            let by_rows = || {
                let mut out = vec![0; rows];
                for w in matrices.chunks_exact(len) {
                    ternary_gemv(isa, layout, w, cols, &xq, black_box(&mut out));
                }
            };
            let name = format!("columns {rows}x{cols}, {percent} % not 0");
            let work = Throughput::Elements((copies * rows * cols) as u64);
            let by_columns = || {
                for w in columns.chunks_exact(made.len()) {
                    multiply(w, black_box(&mut out));
                }
            };
            let id = format!("{name}, {}", layout.name());
            if let Some((limit, kernel)) = race(&mut self.criterion, "ternary", &id, work, by_rows, by_columns) {
                let micros = |seconds: f64| seconds / copies as f64 * 1e6;
                self.table.push(format!(
                    "{name:>36}  {:>7.0} us     {}    {:>6.0} us     ratio {:.2}",
                    micros(kernel),
                    layout.name(),
                    micros(limit),
                    limit / kernel
                ));
            }
        }
    }

    fn gemm(&mut self, layout: Layout, (tokens, rows, cols): (usize, usize, usize)) {
        let stride = layout.padded_cols(cols);
        let (w, xq) = (weights(layout, rows * cols, 7), bytes(tokens * stride, 8));
        let isa = self.isa;
        let mut packed = vec![0; layout.bytes(rows, cols)];
        layout.pack(&w, rows, cols, &mut packed);
        let mut scratch = vec![0; scratch_len(cols)];
        self.product(layout.name(), (tokens, rows, cols), &w, &xq, |out| {
            ternary_gemm(isa, layout, &packed, rows, cols, &xq, tokens, out, &mut scratch);
        });
    }

    fn gemm_int8(&mut self, (tokens, rows, cols): (usize, usize, usize)) {
        let (w, xq) = (bytes(rows * cols, 7), bytes(tokens * int8_gemm::padded_cols(cols), 8));
        let isa = self.isa;
        let mut scratch = vec![0; int8_gemm::scratch_len(cols)];
        self.product("int8", (tokens, rows, cols), &w, &xq, |out| {
            int8_gemm::int8_gemm(isa, &w, rows, cols, &xq, tokens, out, &mut scratch);
        });
    }

    /// A product of `w`, `[rows, cols]`, with `xq`, `[tokens, stride]`.
    fn product(
        &mut self,
        format: &str,
        (tokens, rows, cols): (usize, usize, usize),
        w: &[i8],
        xq: &[i8],
        mut multiply: impl FnMut(&mut [i32]),
    ) {
        let (isa, mut out) = (self.isa, vec![0; tokens * rows]);
        multiply(&mut out);
        let mut sums = vec![0i64; cols];
        for row in w.chunks_exact(cols) {
            sums.iter_mut().zip(row).for_each(|(s, w)| *s += i64::from(*w));
        }
        for (x, out) in xq.chunks_exact(xq.len() / tokens).zip(out.chunks_exact(rows)) {
            let want: i64 = x.iter().zip(&sums).map(|(x, s)| i64::from(*x) * s).sum();
            assert_eq!(out.iter().map(|v| i64::from(*v)).sum::<i64>(), want);
        }
        let name = format!("gemm {format} {tokens}x{rows}x{cols}");
        let (ops, steps) = (2.0 * (tokens * rows * cols) as f64, 100_000);
        let done = Cell::new(0.0);
        let limit = || done.set(int8_dot_peak(isa, black_box(steps)));
        let kernel = || multiply(black_box(&mut out));
        if let Some((limit, kernel)) = race(
            &mut self.criterion,
            "ternary",
            &name,
            Throughput::Elements(ops as u64),
            limit,
            kernel,
        ) {
            let (rate, peak) = (ops / kernel / 1e9, done.get() / limit / 1e9);
            self.table.push(format!(
                "{name:>36}  {rate:>7.1} Gop/s  peak  {peak:>6.1} Gop/s  ratio {:.2}",
                rate / peak
            ));
        }
    }
}

fn main() {
    let isa = Isa::from_env().expect("ONEBIT_ISA names a path of this CPU");
    let criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(900))
        .sample_size(10)
        .without_plots()
        .configure_from_args();
    let mut bench = Bench {
        criterion,
        isa,
        table: Vec::new(),
    };
    for footprint in FOOTPRINTS {
        for cols in WIDTHS {
            bench.gemvs(cols, footprint);
        }
    }
    if is_fast(isa) {
        // The runtime keeps a large model as `t5` where 64 bytes are looked up at once, as `t2` elsewhere.
        Layout::TERNARY.into_iter().for_each(|layout| bench.columns(layout));
    }
    for shape in GEMM {
        Layout::ALL.into_iter().for_each(|layout| bench.gemm(layout, shape));
        bench.gemm_int8(shape);
    }
    println!(
        "\nisa {}, one thread; fastest of each, limit and kernel in turn",
        isa.name()
    );
    for line in bench.table {
        println!("{line}");
    }
}
