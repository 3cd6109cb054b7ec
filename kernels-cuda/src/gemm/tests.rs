//! One suite for every path that the GPU has: products against sums in f64 (bf16) or i64 (int8), over ragged sizes, strides with gaps, factors and pieces.

use half::bf16;

use super::dispatch::{self, Path};
use super::mma::{self, Plan};
use super::*;
use crate::device::Element;

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
    Mma(Plan),
}

fn ways(gpu: &Gpu) -> Vec<Way> {
    let plan = |tile, splits| Way::Mma(Plan { tile, splits });
    let mut ways: Vec<Way> = Path::all(gpu).into_iter().map(Way::Path).collect();
    ways.extend([plan(128, 1), plan(64, 1), plan(128, 3), plan(64, 2)]);
    println!("ways: {ways:?}");
    ways
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
        if matches!(way, Way::Mma(plan) if plan.splits > 1 && !case.workspace) {
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

fn check_bf16(gpu: &Gpu, ways: &[Way], random: &mut Random, case: Case) {
    let value = |r: &mut Random| bf16::from_f32(r.float());
    check(gpu, ways, random, case, value, value);
}

fn check_s8(gpu: &Gpu, ways: &[Way], random: &mut Random, case: Case) {
    let byte = |r: &mut Random| (r.below(256) as i32 - 128) as i8;
    let trit = |r: &mut Random| (r.below(3) as i32 - 1) as i8;
    // Below 2^24 every integer is an f32: 1,024 products of two bytes.
    if case.sizes.2 <= 1024 {
        check(gpu, ways, random, case, byte, byte);
    } else {
        check(gpu, ways, random, case, byte, trit);
    }
}

const EDGES: [usize; 14] = [1, 7, 8, 9, 16, 31, 63, 64, 65, 127, 128, 129, 200, 257];

/// Cases of all sizes along each direction, and all combinations of the rest somewhere.
fn cases(random: &mut Random, gpu: &Gpu, layouts: &[Layout]) -> Vec<Case> {
    let emulated = gpu.properties().name.contains("emulated");
    let mut cases = Vec::new();
    for &layout in layouts {
        for kind in [Kind::Bf16, Kind::F32, Kind::Accumulate] {
            for direction in 0..3 {
                for &edge in EDGES
                    .iter()
                    .filter(|_| !emulated || random.below(3) == 0)
                    .collect::<Vec<_>>()
                {
                    let mut sizes = [0; 3].map(|_| EDGES[random.below(EDGES.len())]);
                    sizes[direction] = edge;
                    cases.push(Case {
                        layout,
                        sizes: (sizes[0], sizes[1], sizes[2]),
                        kind,
                        rows: random.below(2) == 0,
                        cols: random.below(2) == 0,
                        alpha: [1.0, 1.0, -0.37][random.below(3)],
                        gap: random.below(3),
                        workspace: random.below(3) != 0,
                    });
                }
            }
        }
    }
    cases
}

#[test]
fn bf16_of_every_layout_and_size() {
    let Some(gpu) = Gpu::for_test("bf16_of_every_layout_and_size") else {
        return;
    };
    let (mut random, ways) = (Random::new("bf16"), ways(&gpu));
    for case in cases(&mut random, &gpu, &[Layout::NT, Layout::NN, Layout::TN]) {
        check_bf16(&gpu, &ways, &mut random, case);
    }
}

#[test]
fn int8_is_exact() {
    let Some(gpu) = Gpu::for_test("int8_is_exact") else {
        return;
    };
    let (mut random, ways) = (Random::new("int8"), ways(&gpu));
    for case in cases(&mut random, &gpu, &[Layout::NT]) {
        check_s8(&gpu, &ways, &mut random, case);
        let plain = Case {
            rows: false,
            cols: false,
            alpha: 1.0,
            ..case
        };
        check_s8(&gpu, &ways, &mut random, plain);
    }
}

/// Longer sums, and grids of more than a band of tiles.
#[test]
fn larger_products() {
    let Some(gpu) = Gpu::for_test("larger_products") else {
        return;
    };
    let (mut random, ways) = (Random::new("larger"), ways(&gpu));
    let plain = Case {
        layout: Layout::NT,
        sizes: (0, 0, 0),
        kind: Kind::F32,
        rows: false,
        cols: false,
        alpha: 1.0,
        gap: 0,
        workspace: true,
    };
    let all = if gpu.properties().name.contains("emulated") {
        vec![(2200, 70, 40), (70, 72, 1500)]
    } else {
        vec![
            (512, 1408, 8192),
            (2048, 5632, 1024),
            (4100, 520, 2056),
            (72, 200, 16384),
        ]
    };
    for sizes in all {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            check_bf16(&gpu, &ways, &mut random, Case { layout, sizes, ..plain });
            let case = Case {
                layout,
                sizes,
                kind: Kind::Bf16,
                rows: true,
                cols: true,
                ..plain
            };
            check_bf16(&gpu, &ways, &mut random, case);
        }
        check_s8(&gpu, &ways, &mut random, Case { sizes, ..plain });
        let case = Case {
            sizes,
            kind: Kind::Bf16,
            cols: true,
            rows: true,
            alpha: 0.01,
            ..plain
        };
        check_s8(&gpu, &ways, &mut random, case);
    }
}

/// All bytes at their extremes: the largest sums that there are.
#[test]
fn extreme_bytes() {
    let Some(gpu) = Gpu::for_test("extreme_bytes") else {
        return;
    };
    let (m, n, k) = (70, 66, 1000);
    for (x, y) in [(-128i8, -128i8), (-128, 127), (127, 127)] {
        let (a, b) = (
            gpu.upload(&vec![x; m * 1008]).unwrap(),
            gpu.upload(&vec![y; n * 1008]).unwrap(),
        );
        let out = gpu.poisoned::<f32>(m * 68).unwrap();
        let operand = |array| Matrix { array, stride: 1008 };
        let to = Output::F32 {
            matrix: Matrix {
                array: &out,
                stride: 68,
            },
            accumulate: false,
        };
        let workspace = gpu.poisoned(workspace_len(&gpu, Layout::NT, (m, n, k), true)).unwrap();
        gemm_s8(&gpu, (m, n, k), operand(&a), operand(&b), to, Scales::NONE, &workspace).unwrap();
        let sum = (i32::from(x) * i32::from(y) * k as i32) as f32;
        let out = gpu.download(&out).unwrap();
        assert!(out.chunks(68).all(|row| row[..n].iter().all(|&v| v == sum)));
    }
}

#[test]
fn empty_sums_are_zero_and_empty_outputs_nothing() {
    let Some(gpu) = Gpu::for_test("empty products") else {
        return;
    };
    let none = gpu.zeros::<bf16>(0).unwrap();
    let workspace = gpu.zeros::<f32>(0).unwrap();
    let empty = Matrix {
        array: &none,
        stride: 8,
    };
    let out = gpu.poisoned::<f32>(5 * 8).unwrap();
    for accumulate in [false, true] {
        let matrix = Matrix { array: &out, stride: 8 };
        let to = Output::F32 { matrix, accumulate };
        gemm_bf16(&gpu, Layout::NT, (5, 8, 0), empty, empty, to, Scales::NONE, &workspace).unwrap();
        assert_eq!(gpu.download(&out).unwrap(), [0.0; 40]);
    }
    let to = Output::Bf16(empty);
    gemm_bf16(&gpu, Layout::NT, (0, 8, 0), empty, empty, to, Scales::NONE, &workspace).unwrap();
    gemm_bf16(&gpu, Layout::NT, (5, 0, 0), empty, empty, to, Scales::NONE, &workspace).unwrap();
}

#[test]
fn what_does_not_fit_is_refused() {
    let Some(gpu) = Gpu::for_test("what_does_not_fit_is_refused") else {
        return;
    };
    let array = gpu.zeros::<bf16>(64 * 64).unwrap();
    let result = gpu.zeros::<f32>(64 * 64).unwrap();
    let scale = gpu.zeros::<f32>(63).unwrap();
    let workspace = gpu.zeros::<f32>(0).unwrap();
    let good = Matrix {
        array: &array,
        stride: 64,
    };
    let to = |stride| Output::F32 {
        matrix: Matrix { array: &result, stride },
        accumulate: false,
    };
    let sizes = (64, 64, 64);
    let refused = |sizes, a: Matrix<bf16>, b: Matrix<bf16>, out, scales| {
        for layout in [Layout::NT, Layout::NN, Layout::TN] {
            let answer = gemm_bf16(&gpu, layout, sizes, a, b, out, scales, &workspace);
            assert!(matches!(answer, Err(crate::CudaError::Shape { .. })), "{answer:?}");
        }
    };
    gemm_bf16(&gpu, Layout::NT, sizes, good, good, to(64), Scales::NONE, &workspace).unwrap();
    refused((65, 64, 64), good, good, to(64), Scales::NONE);
    refused((64, 65, 64), good, good, to(64), Scales::NONE);
    refused((64, 64, 65), good, good, to(64), Scales::NONE);
    refused(sizes, Matrix { stride: 60, ..good }, good, to(64), Scales::NONE);
    refused(sizes, good, Matrix { stride: 65, ..good }, to(64), Scales::NONE);
    refused(sizes, good, good, to(66), Scales::NONE);
    let short = array.slice(8..);
    refused(
        sizes,
        Matrix {
            array: &short,
            stride: 64,
        },
        good,
        to(64),
        Scales::NONE,
    );
    let odd = array.slice(1..);
    refused(
        (8, 8, 8),
        Matrix {
            array: &odd,
            stride: 64,
        },
        good,
        to(64),
        Scales::NONE,
    );
    for (rows, cols) in [(Some(&scale), None), (None, Some(&scale))] {
        refused(sizes, good, good, to(64), Scales { rows, cols, alpha: 1.0 });
    }
}

/// The comparison itself finds one element that is wrong by little.
#[test]
fn a_single_wrong_element_shows() {
    let mut random = Random::new("comparison");
    let expected: Vec<f64> = (0..10_000).map(|_| f64::from(random.float())).collect();
    let mut out: Vec<f64> = expected.iter().map(|&e| bf16::from_f64(e).to_f64()).collect();
    let (norm, near) = error(&out, &expected, 1.0 / 256.0);
    assert!(norm <= 1.0 / 256.0 && near);
    out[1234] += 0.02;
    assert!(!error(&out, &expected, 1.0 / 256.0).1);
}

#[test]
fn plans_fill_the_gpu_and_fit_the_workspace() {
    let gradient = (512, 1408, 8192);
    let plan = mma::plan(132, gradient, false, usize::MAX);
    assert!(plan.splits > 1, "{plan:?}");
    assert_eq!(mma::plan(132, gradient, false, 0).splits, 1);
    for workspace in [1 << 20, 3 << 20, 1 << 24] {
        let plan = mma::plan(132, gradient, false, workspace);
        assert!(mma::workspace_len(gradient, plan.splits) <= workspace, "{plan:?}");
    }
    let large = Plan { tile: 128, splits: 1 };
    assert_eq!(mma::plan(132, (16384, 2048, 2048), false, usize::MAX), large);
    assert_eq!(mma::plan(132, (0, 0, 0), true, usize::MAX).splits, 1);
}
