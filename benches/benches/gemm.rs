//! The dense matrix product in f32 and in bf16, against the peak of fused multiply-adds and of bf16 dot products measured beside it.
//!
//! `cargo bench -p onebit-benches --bench gemm` runs, for each layout, squares and the shapes of training (2,048 tokens) on
//! one and on two threads, split by rows of C. Each case is first checked: 64 elements of C against a naive product in f64,
//! and the whole of C by its row sums, `C · 1 = A · (B · 1)`. The table at the end holds the fastest
//! run of each case: like the fastest round of the peak, the one that other load on the machine disturbed least.
//! `ONEBIT_ISA` picks the path.

use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use onebit_benches::{bf16_peak, fma_peak, values};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::gemm::{Layout, gemm, scratch_len};
use onebit_kernels_cpu::gemm_bf16::{gemm_bf16, is_fast};
use rayon::prelude::*;

/// `(m, n, k)`: squares, then a linear layer of a small model forwards, to its input, and to its weight.
const SHAPES: [(Layout, usize, usize, usize); 11] = [
    (Layout::NN, 512, 512, 512),
    (Layout::NT, 512, 512, 512),
    (Layout::TN, 512, 512, 512),
    (Layout::NN, 1024, 1024, 1024),
    (Layout::NT, 1024, 1024, 1024),
    (Layout::TN, 1024, 1024, 1024),
    (Layout::NT, 2048, 256, 256),
    (Layout::NT, 2048, 1408, 512),
    (Layout::NT, 2048, 512, 1408),
    (Layout::NN, 2048, 512, 1408),
    (Layout::TN, 1408, 512, 2048),
];

/// Packing space of a thread, for either precision.
struct Scratch {
    values: Vec<f32>,
    pairs: Vec<u32>,
}

struct Case {
    bf16: bool,
    layout: Layout,
    m: usize,
    n: usize,
    k: usize,
    a: Vec<f32>,
    b: Vec<f32>,
}

impl Case {
    fn new(bf16: bool, (layout, m, n, k): (Layout, usize, usize, usize)) -> Self {
        Self {
            bf16,
            layout,
            m,
            n,
            k,
            a: values(m * k, 1),
            b: values(k * n, 2),
        }
    }

    fn a(&self, i: usize, p: usize) -> f64 {
        f64::from(if self.layout == Layout::TN {
            self.a[p * self.m + i]
        } else {
            self.a[i * self.k + p]
        })
    }

    fn b(&self, p: usize, j: usize) -> f64 {
        f64::from(if self.layout == Layout::NT {
            self.b[j * self.k + p]
        } else {
            self.b[p * self.n + j]
        })
    }

    /// `c = A · B`, one part of the rows a thread.
    fn run(&self, isa: Isa, c: &mut [f32], scratch: &mut [Scratch]) {
        let &Self { layout, m, n, k, .. } = self;
        let (lda, ldb) = (
            if layout == Layout::TN { m } else { k },
            if layout == Layout::NT { k } else { n },
        );
        let rows = m.div_ceil(scratch.len());
        let part = |(part, (c, scratch)): (usize, (&mut [f32], &mut Scratch))| {
            let first = part * rows;
            let a = &self.a[if layout == Layout::TN { first } else { first * k }..];
            let (rows, b) = (c.len() / n, &self.b);
            if self.bf16 {
                let scratch = &mut scratch.pairs;
                gemm_bf16(isa, layout, rows, n, k, a, lda, b, ldb, false, c, n, scratch);
            } else {
                let scratch = &mut scratch.values;
                gemm(isa, layout, rows, n, k, a, lda, b, ldb, false, c, n, scratch);
            }
        };
        if scratch.len() == 1 {
            part((0, (c, &mut scratch[0])));
        } else {
            c.par_chunks_mut(rows * n).zip(scratch).enumerate().for_each(part);
        }
    }

    /// Asserts that `c` is the product; returns the sum of its elements.
    fn check(&self, c: &[f32]) -> f64 {
        let (m, n, k) = (self.m, self.n, self.k);
        // Values in −1..1: the sum of k products is off by at most about k · k · ε / 2; a tenth of that is never reached.
        let mut bound = (k * k) as f64 * f64::from(f32::EPSILON) / 20.0;
        if self.bf16 {
            // Both factors are rounded by up to 2⁻⁹; signs differ, so the errors add up like the root of their number. Six deviations.
            bound += 6.0 * (k as f64).sqrt() / 512.0;
        }
        for sample in 0..64 {
            let (i, j) = (sample * 7919 % m, sample * 104_729 % n);
            let exact: f64 = (0..k).map(|p| self.a(i, p) * self.b(p, j)).sum();
            assert!(
                (f64::from(c[i * n + j]) - exact).abs() <= bound,
                "({i}, {j}): {} for {exact}",
                c[i * n + j]
            );
        }
        let b_sums: Vec<f64> = (0..k).map(|p| (0..n).map(|j| self.b(p, j)).sum()).collect();
        let mut checksum = 0.0;
        for i in 0..m {
            let exact: f64 = (0..k).map(|p| self.a(i, p) * b_sums[p]).sum();
            let got: f64 = c[i * n..][..n].iter().map(|&x| f64::from(x)).sum();
            assert!(
                (got - exact).abs() <= bound * (n as f64).sqrt(),
                "row {i} sums to {got}, not {exact}"
            );
            checksum += got;
        }
        checksum
    }
}

fn main() {
    let isa = Isa::from_env().expect("ONEBIT_ISA names a path of this CPU");
    let mut criterion = Criterion::default()
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(900))
        .sample_size(15)
        .without_plots()
        .configure_from_args();
    let mut table = vec![format!(
        "{:>16}  {:4}  {:6}  {:>7}  {:>8}  {:>8}  {:>5}  {:>12}",
        "m x n x k", "in", "layout", "threads", "GFLOP/s", "peak", "ratio", "checksum"
    )];
    let both = [false, true].into_iter().filter(|&bf16| !bf16 || is_fast(isa));
    for (bf16, shape) in both.flat_map(|bf16| SHAPES.map(|shape| (bf16, shape))) {
        let case = Case::new(bf16, shape);
        let precision = if bf16 { "bf16" } else { "f32" };
        let flops = 2.0 * (case.m * case.n * case.k) as f64;
        let mut group = criterion.benchmark_group("gemm");
        group.throughput(Throughput::Elements(flops as u64));
        for threads in [1, 2] {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .expect("threads start");
            let mut c = vec![f32::NAN; case.m * case.n];
            let scratch = |_| Scratch {
                values: vec![0.0; scratch_len()],
                pairs: vec![0; scratch_len()],
            };
            let mut scratch: Vec<Scratch> = (0..threads).map(scratch).collect();
            pool.install(|| case.run(isa, &mut c, &mut scratch));
            let checksum = case.check(&c);

            let limit = || {
                if bf16 {
                    bf16_peak(isa, threads)
                } else {
                    fma_peak(isa, threads)
                }
            };
            let before = limit();
            let mut fastest = Duration::MAX;
            let name = format!(
                "{precision} {:?} {}x{}x{} threads={threads}",
                case.layout, case.m, case.n, case.k
            );
            group.bench_function(&name, |bencher| {
                bencher.iter_custom(|iterations| {
                    let mut total = Duration::ZERO;
                    pool.install(|| {
                        for _ in 0..iterations {
                            let start = Instant::now();
                            case.run(isa, &mut c, &mut scratch);
                            let elapsed = start.elapsed();
                            fastest = fastest.min(elapsed);
                            total += elapsed;
                        }
                    });
                    total
                });
            });
            let peak = before.max(limit());
            let rate = flops / fastest.as_secs_f64();
            // A case that a filter on the command line left out was not timed.
            if fastest < Duration::MAX {
                println!(
                    "    {:.1} GFLOP/s, {:.0} % of the peak {:.1}",
                    rate / 1e9,
                    100.0 * rate / peak,
                    peak / 1e9
                );
                table.push(format!(
                    "{:>16}  {precision:4}  {:6}  {threads:>7}  {:>8.1}  {:>8.1}  {:>5.2}  {checksum:>12.4}",
                    format!("{}x{}x{}", case.m, case.n, case.k),
                    format!("{:?}", case.layout),
                    rate / 1e9,
                    peak / 1e9,
                    rate / peak
                ));
            }
        }
        group.finish();
    }
    println!(
        "\nisa {}; peak: fused multiply-adds (f32) or pair dot products (bf16) in registers, same threads, same run",
        isa.name()
    );
    for line in table {
        println!("{line}");
    }
}
