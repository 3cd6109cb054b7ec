//! One suite for every path that the GPU has: products against sums in f64 (bf16) or i64 (int8), over ragged sizes, strides with gaps, factors and pieces.

mod batches;
mod products;

use half::bf16;

use super::dispatch::{self, Path};
use super::problem::{self, Layout, Operands, Problem};
use super::{mma, wgmma};
use crate::device::{DeviceArray, Element, Gpu};

/// Splitmix64.
pub(super) struct Random(pub u64);

impl Random {
    pub fn new(test: &str) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let seed = now.map_or(1, |d| d.as_nanos() as u64);
        println!("{test}: seed {seed}");
        Random(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }

    /// Uniform in (-1, 1).
    pub fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

/// What runs a product.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// A path, which decides by itself how to cut.
    Path(Path),
    /// `mma`, cut so.
    Mma(mma::Plan),
    /// `wgmma`, cut so.
    Wgmma(wgmma::Plan),
}

/// All that `gpu` has.
fn ways(gpu: &Gpu) -> Vec<Way> {
    let mma = |tile, splits| Way::Mma(mma::Plan { tile, splits });
    let mut ways = vec![Way::Path(Path::Mma), mma(128, 1), mma(64, 1), mma(128, 3), mma(64, 2)];
    if gpu.properties().is_hopper() {
        let wgmma = |schedule, splits| Way::Wgmma(wgmma::Plan { schedule, splits });
        ways.push(Way::Path(Path::Wgmma));
        for schedule in [wgmma::Schedule::Cooperative, wgmma::Schedule::PingPong] {
            ways.extend([wgmma(schedule, 1), wgmma(schedule, 2), wgmma(schedule, 3)]);
        }
    }
    println!("ways: {ways:?}");
    ways
}

impl Way {
    /// Pieces of sums, where they are not chosen.
    fn splits(self) -> usize {
        match self {
            Way::Path(_) => 1,
            Way::Mma(plan) => plan.splits,
            Way::Wgmma(plan) => plan.splits,
        }
    }

    /// Whether it takes `case`.
    fn takes(self, case: &Case, int8: bool) -> bool {
        let stages = case.sizes.2.div_ceil(if int8 { 128 } else { 64 });
        let whole_chunks = case.sizes.1.is_multiple_of(if case.kind == Kind::Bf16 { 8 } else { 4 });
        let takes = match self {
            Way::Wgmma(plan) => whole_chunks && plan.splits <= stages, // each of its pieces has something to sum up
            Way::Path(Path::Wgmma) => whole_chunks,
            _ => true,
        };
        takes && (case.workspace || self.splits() == 1)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Bf16,
    F32,
    Accumulate,
}

/// A product to test. `gap` is in units of 16 bytes.
#[derive(Clone, Copy, Debug)]
struct Case {
    layout: Layout,
    sizes: (usize, usize, usize),
    kind: Kind,
    rows: bool,
    cols: bool,
    alpha: f32,
    gap: usize,
    workspace: bool,
}

/// Elements of operands.
trait Value: Element {
    /// What lies between rows: a single one that is read shows.
    const GAP: Self;
    fn f64(self) -> f64;
    fn operands<'a>(a: &'a DeviceArray<Self>, b: &'a DeviceArray<Self>) -> Operands<'a>;
}

impl Value for bf16 {
    const GAP: Self = bf16::NAN;
    fn f64(self) -> f64 {
        self.to_f64()
    }
    fn operands<'a>(a: &'a DeviceArray<Self>, b: &'a DeviceArray<Self>) -> Operands<'a> {
        Operands::Bf16 { a, b }
    }
}

impl Value for i8 {
    const GAP: Self = 99;
    fn f64(self) -> f64 {
        f64::from(self)
    }
    fn operands<'a>(a: &'a DeviceArray<Self>, b: &'a DeviceArray<Self>) -> Operands<'a> {
        Operands::Int8 { a, b }
    }
}

/// A matrix on the host: `rows` × `cols` values, and their places in the array.
struct Host {
    rows: usize,
    cols: usize,
    stride: usize,
}

impl Host {
    fn new<T>(rows: usize, cols: usize, gap: usize) -> Self {
        let chunk = 16 / size_of::<T>();
        let stride = cols.next_multiple_of(chunk) + gap * chunk;
        Host { rows, cols, stride }
    }

    fn len(&self) -> usize {
        match self.rows {
            0 => 0,
            rows => (rows - 1) * self.stride + self.cols,
        }
    }

    /// An array of it: values where there are any, and `gap` between.
    fn fill<T: Element>(&self, gap: T, mut value: impl FnMut() -> T) -> Vec<T> {
        let mut array = vec![gap; self.len()];
        for row in 0..self.rows {
            for col in 0..self.cols {
                array[row * self.stride + col] = value();
            }
        }
        array
    }
}

/// Rows that are compared: all, or some of a large product.
fn compared(random: &mut Random, (m, n, k): (usize, usize, usize)) -> Vec<usize> {
    if m * n * k <= 1 << 26 {
        return (0..m).collect();
    }
    let mut rows = vec![0, m - 1];
    rows.extend((0..14).map(|_| random.below(m)));
    rows
}

/// Element (i, p) of A and (p, j) of B.
fn at(layout: Layout, a: &Host, b: &Host) -> (impl Fn(usize, usize) -> usize, impl Fn(usize, usize) -> usize) {
    let (lda, ldb) = (a.stride, b.stride);
    (
        move |i, p| if layout == Layout::TN { p * lda + i } else { i * lda + p },
        move |p, j| if layout == Layout::NT { j * ldb + p } else { p * ldb + j },
    )
}

/// Sums of row `i` in f64.
fn row_of<T: Value>(
    layout: Layout,
    (n, k): (usize, usize),
    (a, ha): (&[T], &Host),
    (b, hb): (&[T], &Host),
    i: usize,
) -> Vec<f64> {
    let (at_a, at_b) = at(layout, ha, hb);
    let mut sums = vec![0.0; n];
    if layout == Layout::NT {
        for (j, sum) in sums.iter_mut().enumerate() {
            *sum = (0..k).map(|p| a[at_a(i, p)].f64() * b[at_b(p, j)].f64()).sum();
        }
    } else {
        for p in 0..k {
            let x = a[at_a(i, p)].f64();
            for (j, sum) in sums.iter_mut().enumerate() {
                *sum += x * b[at_b(p, j)].f64();
            }
        }
    }
    sums
}

/// Runs `case` twice on `way`, and gives the output as f32 with its place; what lies in the gaps has been compared.
fn run<'a>(gpu: &Gpu, way: Way, case: Case, problem: &mut Problem<'a>, old: &[f32], host: &Host) -> Vec<f32> {
    let workspace = gpu
        .poisoned::<f32>(if case.workspace { problem.workspace_len(32) } else { 0 })
        .unwrap();
    let go = |problem: &Problem| match way {
        Way::Path(path) => dispatch::run_on(gpu, path, problem, &workspace),
        Way::Mma(plan) => mma::run(gpu, problem, plan, &workspace),
        Way::Wgmma(plan) => wgmma::run(gpu, problem, plan, &workspace),
    };
    let mut outputs = Vec::new();
    for _ in 0..2 {
        let bits: Vec<u32> = if case.kind == Kind::Bf16 {
            let array = gpu.poisoned::<bf16>(host.len()).unwrap();
            let problem = Problem {
                output: problem::Output::Bf16(&array),
                c_stride: host.stride,
                ..*problem
            };
            go(&problem).unwrap();
            let values = gpu.download(&array).unwrap();
            // A gap of ones stays one.
            let widened = |bits: u16| (u32::from(bits) << 16) | if bits == u16::MAX { 0xffff } else { 0 };
            values.iter().map(|v| widened(v.to_bits())).collect()
        } else {
            let array = gpu.poisoned::<f32>(host.len()).unwrap();
            if case.kind == Kind::Accumulate {
                gpu.write(&array, old).unwrap();
            }
            let output = match case.kind {
                Kind::Accumulate => problem::Output::Accumulate(&array),
                _ => problem::Output::F32(&array),
            };
            let problem = Problem {
                output,
                c_stride: host.stride,
                ..*problem
            };
            go(&problem).unwrap();
            gpu.download(&array).unwrap().iter().map(|v| v.to_bits()).collect()
        };
        for (i, &value) in bits.iter().enumerate() {
            let gap = i % host.stride >= host.cols;
            assert!(
                !gap || value == u32::MAX,
                "{way:?} {case:?}: the gap at {i} was written"
            );
        }
        outputs.push(bits);
    }
    assert!(outputs[0] == outputs[1], "{way:?} {case:?}: two runs differ");
    outputs[0].iter().map(|&bits| f32::from_bits(bits)).collect()
}

fn factors(random: &mut Random, len: usize) -> Vec<f32> {
    (0..len).map(|_| random.float() + 1.5).collect()
}

/// ‖out − expected‖ / ‖expected‖, and whether every element is near enough by itself: a single wrong one hardly moves the norm.
fn error(out: &[f64], expected: &[f64], unit: f64) -> (f64, bool) {
    let square: f64 = expected.iter().map(|x| x * x).sum();
    let rms = (square / expected.len() as f64).sqrt();
    let difference: f64 = out.iter().zip(expected).map(|(o, e)| (o - e) * (o - e)).sum();
    let near = out
        .iter()
        .zip(expected)
        .all(|(o, e)| (o - e).abs() <= unit * (e.abs() + 0.5 * rms));
    ((difference / square.max(1e-300)).sqrt(), near)
}

/// Runs `case` on all `ways`, and compares.
fn check<T: Value>(
    gpu: &Gpu,
    ways: &[Way],
    random: &mut Random,
    case: Case,
    value_a: impl Fn(&mut Random) -> T,
    value_b: impl Fn(&mut Random) -> T,
) {
    let (m, n, k) = case.sizes;
    let ha = match case.layout {
        Layout::TN => Host::new::<T>(k, m, case.gap),
        _ => Host::new::<T>(m, k, case.gap),
    };
    let hb = match case.layout {
        Layout::NT => Host::new::<T>(n, k, case.gap),
        _ => Host::new::<T>(k, n, case.gap),
    };
    let hc = match case.kind {
        Kind::Bf16 => Host::new::<bf16>(m, n, case.gap),
        _ => Host::new::<f32>(m, n, case.gap),
    };
    let a = ha.fill(T::GAP, || value_a(random));
    let b = hb.fill(T::GAP, || value_b(random));
    let old = hc.fill(f32::from_bits(u32::MAX), || random.float());
    let (rows, cols) = (factors(random, m), factors(random, n));
    let (da, db) = (gpu.upload(&a).unwrap(), gpu.upload(&b).unwrap());
    let (dr, dc) = (gpu.upload(&rows).unwrap(), gpu.upload(&cols).unwrap());
    let nothing = gpu.zeros::<f32>(0).unwrap();
    let mut problem = Problem {
        layout: case.layout,
        m,
        n,
        k,
        operands: T::operands(&da, &db),
        a_stride: ha.stride,
        b_stride: hb.stride,
        output: problem::Output::F32(&nothing),
        c_stride: 0,
        row_scale: case.rows.then_some(&dr),
        col_scale: case.cols.then_some(&dc),
        alpha: case.alpha,
        batch: problem::Batch::ONE,
    };
    let which = compared(random, case.sizes);
    let mut expected = Vec::new();
    for &i in &which {
        let sums = row_of(case.layout, (n, k), (&a, &ha), (&b, &hb), i);
        expected.extend(sums.iter().enumerate().map(|(j, sum)| {
            let factor = |use_it: bool, f: f32| if use_it { f64::from(f) } else { 1.0 };
            let scaled = sum * factor(case.rows, rows[i]) * factor(case.cols, cols[j]) * f64::from(case.alpha);
            let before = if case.kind == Kind::Accumulate {
                f64::from(old[i * hc.stride + j])
            } else {
                0.0
            };
            scaled + before
        }));
    }
    for &way in ways {
        if !way.takes(&case, size_of::<T>() == 1) {
            continue;
        }
        let out = run(gpu, way, case, &mut problem, &old, &hc);
        let out: Vec<f64> = which
            .iter()
            .flat_map(|&i| out[i * hc.stride..][..n].iter().map(|&v| f64::from(v)))
            .collect();
        let exact =
            size_of::<T>() == 1 && !case.rows && !case.cols && case.alpha == 1.0 && case.kind != Kind::Accumulate;
        if exact {
            let rounded = |e: f64| match case.kind {
                Kind::Bf16 => bf16::from_f32(e as f32).to_f64(),
                _ => e,
            };
            for (at, (&o, &e)) in out.iter().zip(&expected).enumerate() {
                let (row, col) = (which[at / n], at % n);
                assert!(o == rounded(e), "{way:?} {case:?}: ({row}, {col}) is {o}, not {e}");
            }
            continue;
        }
        // Tensor cores cut sums off rather than round them: the error grows with their length. Sums of int8 are exact up to the scales.
        let sums = if size_of::<T>() == 1 {
            1e-6
        } else {
            1e-5 * (k as f64 / 1024.0).max(1.0)
        };
        let bound = if case.kind == Kind::Bf16 { 1.0 / 256.0 } else { sums };
        let (norm, near) = error(
            &out,
            &expected,
            if case.kind == Kind::Bf16 { bound } else { 10.0 * bound },
        );
        assert!(
            norm <= bound && near,
            "{way:?} {case:?}: error {norm:.2e}, bound {bound:.2e}, each element near: {near}"
        );
    }
}
