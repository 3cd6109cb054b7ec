//! The largest logit by way of a sketch.

use super::head::{Floats, greedy};
use crate::decode::sketch::HeadSketch;
use crate::decode::*;
use crate::device::{DeviceArray, Gpu};
use crate::ternary_gemv::tests::{Random, small};

const KINDS: [FloatKind; 3] = [FloatKind::F32, FloatKind::F16, FloatKind::Bf16];
const EPS: f32 = 1e-5;

/// A head with its sketch, and a norm that leaves the input as it is but for its length.
struct Subject<'a> {
    gpu: &'a Gpu,
    head: VocabularyMatrix,
    sketch: HeadSketch,
    buffers: SketchBuffers,
    norm: DeviceArray<f32>,
    cap: Option<f32>,
}

impl<'a> Subject<'a> {
    fn new(gpu: &'a Gpu, floats: &Floats) -> Self {
        let head = floats.upload(gpu);
        let mut sketch = HeadSketch::new(gpu, &head).unwrap().expect("a head of floats");
        assert_eq!(sketch.bytes(), HeadSketch::bytes_needed([floats.rows, floats.cols]));
        sketch.read = Some(gpu.zeros(1).unwrap());
        Subject {
            gpu,
            buffers: SketchBuffers::new(gpu, [floats.rows, floats.cols]).unwrap(),
            norm: gpu.upload(&vec![1.0; floats.cols]).unwrap(),
            head,
            sketch,
            cap: None,
        }
    }

    /// The ids by sketch and by the whole head, its logits, and how many rows the sketch left.
    fn search(&self, x: &[f32]) -> (u32, u32, Vec<f32>, u32) {
        let (gpu, x) = (self.gpu, self.gpu.upload(x).unwrap());
        let read = self.sketch.read.as_ref().unwrap();
        gpu.write(read, &[0]).unwrap();
        let output = || {
            let output = HeadOutput::new(gpu, 1, 9).unwrap();
            gpu.write(&output.position, &[3]).unwrap();
            output
        };
        let (found, whole) = (output(), output());
        let pair = (&self.head, &self.sketch);
        let how = (EPS, self.cap);
        largest(gpu, pair, &x, &self.norm, how, &self.buffers, &found, 2).unwrap();
        let logits = gpu.poisoned::<f32>(self.head.rows()).unwrap();
        head(gpu, &self.head, &x, &self.norm, how, Some(&logits), &whole, 2).unwrap();
        let [found, whole] = [found, whole].map(|output| {
            let best = gpu.download(&output.best).unwrap()[0];
            assert_eq!(gpu.download(&output.position).unwrap(), [5]);
            assert_eq!(gpu.download(&output.ids).unwrap()[5], best);
            best
        });
        (
            found,
            whole,
            gpu.download(&logits).unwrap(),
            gpu.download(read).unwrap()[0],
        )
    }

    /// Compares both ways, and every logit with what the sketch says of it. Returns the rows that the sketch left.
    fn check(&self, x: &[f32], what: &str) -> u32 {
        let (found, whole, logits, read) = self.search(x);
        assert_eq!(found, whole, "{what}");
        let estimates = self.gpu.download(&self.buffers.estimates).unwrap();
        let radii = self.gpu.download(&self.sketch.radii).unwrap();
        let reach = *self.gpu.download(&self.buffers.normed).unwrap().last().unwrap();
        for (row, ((logit, estimate), radius)) in logits.iter().zip(&estimates).zip(&radii).enumerate() {
            let slack = radius.mul_add(reach, 2.0f32.powi(-120));
            let told = estimate.is_finite() && slack.is_finite();
            assert!(
                !told || (logit - estimate).abs() <= slack,
                "{what}, row {row}: {logit} is not {estimate} within {slack}"
            );
        }
        read
    }
}

#[test]
fn a_sketch_finds_what_the_whole_head_finds() {
    let Some(gpu) = Gpu::for_test("a sketch of the head") else {
        return;
    };
    let mut random = Random::seeded("a sketch of the head");
    for (rows, cols) in [(1, 1), (31, 16), (33, 17), (200, 80), (517, 100), (2300, 40)] {
        for kind in KINDS {
            let mut floats = Floats::new(&mut random, kind, rows, cols);
            if rows > 100 {
                // Equal rows, and rows that differ in one value by as little as the type can say.
                floats.values.copy_within(70 * cols..71 * cols, 99 * cols);
                floats.values.copy_within(70 * cols..71 * cols, 100 * cols);
                floats.values[100 * cols + 3] *= 1.0 + 2.0f32.powi(-7);
                // A row of nothing.
                floats.values[5 * cols..6 * cols].fill(0.0);
            }
            let subject = Subject::new(&gpu, &floats);
            let what = |x: &str| format!("{kind:?} {rows} x {cols}, {x}");
            for _ in 0..4 {
                subject.check(&random.floats(cols), &what("random"));
            }
            if rows > 100 {
                let x: Vec<f32> = floats.row(70).iter().map(|v| 3.0 * v).collect();
                subject.check(&x, &what("along equal rows"));
            }
            assert_eq!(subject.check(&vec![0.0; cols], &what("zeros")), rows as u32);
            let mut x = random.floats(cols);
            x[cols / 2] = f32::NAN;
            let (found, whole, _, read) = subject.search(&x);
            assert_eq!((found, whole, read), (0, 0, rows as u32), "{}", what("no number"));
        }
    }
}

/// The cap makes logits equal, of which the lowest counts, and its roundings turn some around.
#[test]
fn capped_logits_have_the_same_largest() {
    let Some(gpu) = Gpu::for_test("a sketch of a capped head") else {
        return;
    };
    let mut random = Random::seeded("a sketch of a capped head");
    let (rows, cols) = (2300, 40);
    for kind in KINDS {
        let mut floats = Floats::new(&mut random, kind, rows, cols);
        // Rows nearly alike, the larger ones behind.
        for row in 0..200 {
            floats.values.copy_within(70 * cols..71 * cols, (2000 + row) * cols);
            floats.values[(2000 + row) * cols + row % cols] *= 1.0 + 2.0f32.powi(-7);
        }
        let mut subject = Subject::new(&gpu, &floats);
        let (mut differ, mut least) = (0, u32::MAX);
        for cap in [0.02, 0.5, 3.0, 30.0, 1e4] {
            subject.cap = Some(cap);
            for i in 0..6 {
                let mut x = random.floats(cols);
                if i % 2 == 0 {
                    x.iter_mut()
                        .zip(floats.row(70))
                        .for_each(|(x, row)| *x = 0.1 * *x + 3.0 * row);
                }
                let (found, whole, logits, read) = subject.search(&x);
                assert_eq!((found, whole), (greedy(&logits), found), "{kind:?}, cap {cap}");
                assert!(logits.iter().all(|logit| logit.abs() <= cap));
                let uncapped = Subject {
                    cap: None,
                    ..Subject::new(&gpu, &floats)
                };
                differ += u32::from(uncapped.search(&x).1 != found);
                least = least.min(read);
            }
        }
        assert!(
            differ > 0 && (least as usize) < rows / 10,
            "{kind:?}: {differ} differ, {least} rows read"
        );
    }
}

#[test]
fn a_radius_holds_where_it_is_tight() {
    let Some(gpu) = Gpu::for_test("the radii of a sketch") else {
        return;
    };
    let mut random = Random::seeded("the radii of a sketch");
    let (rows, cols) = (64, 200);
    for kind in KINDS {
        let floats = Floats::new(&mut random, kind, rows, cols);
        let subject = Subject::new(&gpu, &floats);
        let steps = gpu.download(&subject.sketch.steps).unwrap();
        let radii = gpu.download(&subject.sketch.radii).unwrap();
        for row in [0, 31, 32, 63] {
            // What the sketch loses of the row: no input of its length is further from its estimate.
            let (values, step) = (floats.row(row), steps[row]);
            let most = values.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
            assert_eq!(step, most / 127.0);
            let lost: Vec<f32> = values.iter().map(|v| v - step * (v / step).round_ties_even()).collect();
            let length = lost.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            let radius = f64::from(radii[row]);
            assert!(radius >= length && radius <= 1.01 * length, "{radius} of {length}");
            subject.check(&lost, &format!("{kind:?}, what row {row} loses"));
        }
    }
}

#[test]
fn numbers_at_the_ends_of_the_range_are_left_to_the_head() {
    let Some(gpu) = Gpu::for_test("a sketch of extremes") else {
        return;
    };
    let mut random = Random::seeded("a sketch of extremes");
    let (rows, cols) = (150, 48);
    for (what, place) in [
        ("infinite", f32::INFINITY),
        ("infinite below", f32::NEG_INFINITY),
        ("no number", f32::NAN),
        ("large", 3e38),
        ("tiny", 1e-44),
    ] {
        let mut floats = Floats::new(&mut random, FloatKind::F32, rows, cols);
        floats.values[40 * cols + 7] = place;
        if place.abs() < 1.0 {
            floats.values[80 * cols..100 * cols]
                .iter_mut()
                .for_each(|v| *v *= 1e-42);
        } else if place.is_finite() {
            floats.values[80 * cols..100 * cols].fill(3e38);
        }
        let subject = Subject::new(&gpu, &floats);
        for _ in 0..4 {
            let (found, whole, ..) = subject.search(&random.floats(cols));
            assert_eq!(found, whole, "{what}");
        }
    }
    // All of it so small that products vanish.
    let mut floats = Floats::new(&mut random, FloatKind::F32, rows, cols);
    floats.values.iter_mut().for_each(|v| *v *= 1e-43);
    let subject = Subject::new(&gpu, &floats);
    let (found, whole, ..) = subject.search(&random.floats(cols));
    assert_eq!(found, whole, "tiny throughout");
}

#[test]
fn a_sketch_leaves_few_rows() {
    let Some(gpu) = Gpu::for_test("the rows that a sketch leaves") else {
        return;
    };
    let mut random = Random::seeded("the rows that a sketch leaves");
    let (rows, cols) = if small(&gpu) { (3000, 256) } else { (128_256, 2560) };
    let floats = Floats::new(&mut random, FloatKind::F16, rows, cols);
    let subject = Subject::new(&gpu, &floats);
    let mut all = 0;
    for _ in 0..4 {
        let x = random.floats(cols);
        let (found, whole, logits, read) = subject.search(&x);
        assert_eq!(found, whole);
        assert_eq!(found, greedy(&logits));
        all += read;
    }
    println!("of {rows} rows of {cols} values a sketch leaves {}", all / 4);
    assert!(all > 0 && all as usize <= 4 * rows / 50, "{all} of 4 x {rows} rows");
}

#[test]
fn what_has_no_sketch_and_what_does_not_fit() {
    let Some(gpu) = Gpu::for_test("refusals of a sketch") else {
        return;
    };
    let mut random = Random::seeded("refusals of a sketch");
    let bytes = Floats::new(&mut random, FloatKind::Int8, 40, 16).upload(&gpu);
    assert!(HeadSketch::new(&gpu, &bytes).unwrap().is_none());
    let floats = Floats::new(&mut random, FloatKind::F32, 40, 16);
    let subject = Subject::new(&gpu, &floats);
    let output = HeadOutput::new(&gpu, 1, 9).unwrap();
    let other = Floats::new(&mut random, FloatKind::F32, 40, 32).upload(&gpu);
    let x = gpu.zeros::<f32>(16).unwrap();
    let run = |matrix: &VocabularyMatrix, x: &DeviceArray<f32>, buffers: &SketchBuffers| {
        largest(
            &gpu,
            (matrix, &subject.sketch),
            x,
            &subject.norm,
            (EPS, None),
            buffers,
            &output,
            0,
        )
    };
    assert!(run(&subject.head, &x, &subject.buffers).is_ok());
    assert!(run(&other, &x, &subject.buffers).is_err());
    assert!(run(&bytes, &x, &subject.buffers).is_err());
    assert!(run(&subject.head, &x.slice(1..), &subject.buffers).is_err());
    let short = SketchBuffers::new(&gpu, [39, 16]).unwrap();
    assert!(run(&subject.head, &x, &short).is_err());
}
