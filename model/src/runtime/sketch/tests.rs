//! The bound, and the answers: the same as the whole head's, over more than a hundred thousand tokens.

use alloc::vec;
use alloc::vec::Vec;

use half::f16;
use onebit_kernels_cpu::int4_gemv::{self, InputBlock};
use onebit_kernels_cpu::{Isa, dense_gemv, rng::Key, softcap};

use super::*;
use crate::runtime::floats::{FloatMatrix, FloatValues};
use crate::runtime::linear::{self, Input, Scratch};
use crate::runtime::{Executor, FloatStorage, Serial};

fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut out = vec![0.0; n];
    Key::new(seed, 9, 0).fill_normal(0, &mut out);
    out
}

fn head(rows: usize, cols: usize, seed: u64) -> FloatMatrix {
    let values = normal(rows * cols, seed).into_iter().map(|v| f16::from_f32(0.05 * v));
    FloatMatrix {
        rows,
        cols,
        values: FloatValues::F16(values.collect::<Vec<_>>().into()),
    }
}

/// A head with its sketch, and the memory to search it.
struct Subject {
    head: FloatMatrix,
    sketch: HeadSketch,
    buffers: SearchBuffers,
    scratch: Vec<Scratch>,
    /// The input as an int4 head takes it.
    blocks: Vec<InputBlock>,
    logits: Vec<f32>,
    all: Vec<f32>,
    cap: Option<f32>,
}

impl Subject {
    fn new(head: FloatMatrix) -> Self {
        let sketch = HeadSketch::build(&Serial, Isa::best(), &head).expect("a head that can be sketched");
        Self {
            buffers: SearchBuffers::new(&sketch).unwrap(),
            scratch: vec![Scratch {
                sums: vec![0; linear::sums_len(1)],
                ..Scratch::default()
            }],
            blocks: vec![InputBlock::ZERO; int4_gemv::blocks(head.cols)],
            logits: vec![0.0; head.rows],
            all: vec![0.0; head.rows],
            cap: None,
            head,
            sketch,
        }
    }

    /// Every logit.
    fn all(&mut self, x: &[f32]) -> &[f32] {
        match &self.head.values {
            FloatValues::F16(w) => dense_gemv::gemv_f16(Isa::best(), w, x, 1, &mut self.all),
            FloatValues::Int4 { codes, steps, cols } => {
                int4_gemv::quantize_input(Isa::best(), x, *cols, &mut self.blocks);
                int4_gemv::gemv(Isa::best(), codes, steps, &self.blocks, 1, &mut self.all);
            }
            _ => unreachable!(),
        }
        if let Some(cap) = self.cap {
            softcap::softcap(Isa::best(), cap, &mut self.all);
        }
        &self.all
    }

    fn search(&mut self, isa: Isa, x: &[f32], top: Top<'_>) -> Option<Found> {
        let (head, buffers, scratch) = (&self.head, &mut self.buffers, &mut self.scratch);
        let mut rounded = x.to_vec();
        if let FloatValues::Int4 { cols, .. } = head.values {
            int4_gemv::quantize_input(isa, x, cols, &mut self.blocks);
            int4_gemv::dequantize_input(&self.blocks, cols, &mut rounded);
        }
        let x = Input {
            blocks: &self.blocks,
            ..Input::of_floats(1, &rounded)
        };
        self.sketch.search(
            &Serial,
            isa,
            (head, self.cap),
            x,
            top,
            buffers,
            scratch,
            &mut self.logits,
        )
    }

    /// Searches, and compares with every logit: whatever is there is the same, and what is not is below the `count` largest that count.
    /// Returns the rows computed.
    fn check(&mut self, x: &[f32], top: Top<'_>) -> Option<Found> {
        let rows = self.search(Isa::best(), x, top)?;
        self.all(x);
        let mut counted: Vec<f32> = (0..self.head.rows as u32)
            .filter(|id| !top.except.contains(id))
            .map(|id| self.all[id as usize])
            .collect();
        let (_, least, _) = counted.select_nth_unstable_by(top.count - 1, |a, b| b.total_cmp(a));
        for (id, (got, want)) in self.logits.iter().zip(&self.all).enumerate() {
            let there = got.to_bits() == want.to_bits();
            assert!(
                there || (*got == f32::NEG_INFINITY && want < least),
                "row {id}: {got} for {want}"
            );
        }
        assert_eq!(self.logits.iter().filter(|v| v.is_finite()).count(), rows.rows);
        Some(rows)
    }
}

const GREEDY: Top<'static> = Top { count: 1, except: &[] };

#[test]
fn estimates_stay_far_inside_their_bounds() {
    // Spikes, a constant and noise: what a rotation must make alike. The bound is 7.5 deviations.
    let (rows, cols) = (2000, 640);
    let mut head = head(rows, cols, 1);
    let mut w = head.values.into_f32();
    w[..cols].fill(0.01);
    w[cols + 3..3 * cols].fill(0.0);
    head.values = FloatValues::F16(w.into_iter().map(f16::from_f32).collect::<Vec<_>>().into());
    let mut subject = Subject::new(head);
    let mut deviations: [Vec<f32>; 2] = [Vec::new(), Vec::new()];
    let every: Vec<u32> = (0..rows as u32).collect();
    for case in 0..60 {
        let mut x = normal(cols, 100 + case);
        match case % 4 {
            0 => x[case as usize] = 300.0,
            1 => x.fill(0.3),
            2 => x[..600].fill(0.0),
            _ => {}
        }
        let query = subject.sketch.query(Isa::best(), &x, &mut subject.buffers).unwrap();
        subject
            .sketch
            .estimate(&Serial, Isa::best(), &query, &mut subject.buffers, &mut subject.scratch);
        let mut by_both = vec![0.0; rows];
        let (bytes, most) = (&subject.buffers.bytes, &subject.buffers.most);
        let sums = &mut subject.scratch[0].sums;
        subject
            .sketch
            .second_most(Isa::best(), &query, bytes, most, &every, &mut by_both, sums);
        subject.all(&x);
        for r in 0..rows {
            let most = [subject.buffers.most[r], by_both[r]];
            for (p, most) in most.into_iter().enumerate() {
                let figures = &subject.sketch.planes[p].figures[r];
                let estimate = most - query.bound(figures);
                let error = (estimate - subject.all[r]).abs();
                if r == 2 {
                    assert_eq!(error, 0.0, "a row of zeros");
                } else {
                    deviations[p].push(DEVIATIONS * error / query.bound(figures));
                }
            }
        }
    }
    // 120,000 draws of a Gaussian of variance 1 reach 4.5 deviations; the two parts of the bound are added here and not squared.
    for (p, deviations) in deviations.iter().enumerate() {
        let worst = deviations.iter().fold(0.0f32, |a, b| a.max(*b));
        let square = deviations.iter().map(|d| f64::from(d * d)).sum::<f64>() / deviations.len() as f64;
        std::println!(
            "plane {p}, worst of {}: {worst} deviations, mean square {square}",
            deviations.len()
        );
        assert!(worst < 5.5 && square < 1.1 && square > 0.3);
    }
    let shorter =
        |r: usize| subject.sketch.planes[1].figures[r].radius < 0.5 * subject.sketch.planes[0].figures[r].radius;
    assert!((3..rows).all(shorter), "the second plane tells more");
}

#[test]
fn a_hundred_thousand_tokens_get_the_same_answers() {
    let (rows, cols, tokens) = (1024, 256, 110_000u64);
    let mut subject = Subject::new(head(rows, cols, 2));
    let mut x = vec![0.0; cols];
    let (mut exact, mut whole) = (0, 0);
    for token in 0..tokens {
        Key::new(token, 10, 0).fill_normal(0, &mut x);
        // Trained models point at their next token; chance vectors do not. Both occur here, and all between.
        let strength = (token % 8) as f32 * 2.0;
        let FloatValues::F16(w) = &subject.head.values else {
            unreachable!()
        };
        let row = (token as usize * 7919) % rows * cols;
        for (x, w) in x.iter_mut().zip(&w[row..row + cols]) {
            *x += strength * w.to_f32();
        }
        match subject.search(Isa::best(), &x, GREEDY) {
            None => whole += 1,
            Some(rows) => {
                exact += rows.rows;
                subject.all(&x);
                let most = |v: &[f32]| {
                    v.iter()
                        .copied()
                        .enumerate()
                        .fold((0, f32::NEG_INFINITY), |a, b| if b.1 > a.1 { b } else { a })
                };
                assert_eq!(most(&subject.logits), most(&subject.all), "token {token}");
            }
        }
    }
    std::println!(
        "{tokens} tokens: {} of {rows} rows a token exactly, {whole} whole heads",
        exact as f64 / tokens as f64
    );
    assert!(whole < tokens / 2, "the shortcut must be taken to be tested: {whole}");
}

#[test]
fn the_largest_that_count_are_there_on_every_path() {
    the_largest_that_count(Subject::new(head(3001, 384, 3)));
}

/// Its input is rounded, its rows are computed from bytes, and its sketch is one of the codes.
#[test]
fn the_largest_of_an_int4_head_are_there_on_every_path() {
    let mut head = head(3001, 384, 3);
    head.values = FloatStorage::Int4.apply(Isa::best(), "head", 384, head.values).unwrap();
    the_largest_that_count(Subject::new(head));
}

fn the_largest_that_count(mut subject: Subject) {
    for seed in 0..30 {
        let x = normal(384, 1000 + seed);
        subject.all(&x);
        let mut order: Vec<u32> = (0..3001).collect();
        order.sort_by(|a, b| subject.all[*b as usize].total_cmp(&subject.all[*a as usize]));
        let best = order[..9].to_vec();
        // Excepted ids may be the largest, come twice, and be any.
        for except in [&[][..], &best[..1], &best, &[best[3], 5, best[3], 0]] {
            for count in [1, 2, 5] {
                let top = Top { count, except };
                let rows = subject.check(&x, top).expect("few rows can win");
                let found = subject.logits.clone();
                for isa in Isa::available() {
                    assert_eq!(subject.search(isa, &x, top), Some(rows), "{}", isa.name());
                    assert!(
                        subject
                            .logits
                            .iter()
                            .zip(&found)
                            .all(|(a, b)| a.to_bits() == b.to_bits())
                    );
                }
            }
        }
    }
}

/// Behind a cap logits are equal that were not, and all of them that are among the largest must be there, for the lowest id counts.
#[test]
fn the_largest_of_capped_logits_are_there() {
    let mut subject = Subject::new(head(3001, 384, 3));
    // Some rows nearly alike, the larger ones behind.
    let FloatValues::F16(w) = &subject.head.values else {
        unreachable!()
    };
    let mut w = w.to_vec();
    for row in 0..100 {
        w.copy_within(70 * 384..71 * 384, (2800 + row) * 384);
        let changed = &mut w[(2800 + row) * 384 + row];
        *changed = f16::from_bits(changed.to_bits() + 1);
    }
    subject = Subject::new(FloatMatrix {
        values: FloatValues::F16(w.into()),
        ..subject.head
    });
    let (mut searched, mut more) = (0, 0);
    for (seed, cap) in (0..40).zip([0.05, 0.5, 1.0, 4.0, 30.0, 1e6].into_iter().cycle()) {
        let mut x = normal(384, 1000 + seed);
        if seed % 2 == 0 {
            let row = subject.head.values.clone().into_f32()[70 * 384..71 * 384].to_vec();
            x.iter_mut().zip(row).for_each(|(x, row)| *x += 5.0 * row);
        }
        for count in [1, 2, 5] {
            let top = Top { count, except: &[] };
            subject.cap = None;
            let before = subject.check(&x, top).expect("few rows can win");
            subject.cap = Some(cap);
            if let Some(found) = subject.check(&x, top) {
                searched += 1;
                more += usize::from(found.rows > before.rows);
            }
        }
    }
    // A cap far below all logits makes too many of them equal.
    assert!(
        (60..120).contains(&searched) && more > 0,
        "{searched} searched, {more} with more rows"
    );
}

#[test]
fn the_whole_head_is_asked_for_when_nothing_can_be_shown() {
    let mut subject = Subject::new(head(1000, 128, 4));
    let x = normal(128, 5);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = x.clone();
        x[7] = bad;
        assert_eq!(subject.search(Isa::best(), &x, GREEDY), None);
    }
    // Every row can win when all logits are equal.
    assert_eq!(
        subject.search(
            Isa::best(),
            &x,
            Top {
                count: 200,
                except: &[]
            }
        ),
        None
    );
    assert_eq!(subject.search(Isa::best(), &[0.0; 128], GREEDY), None);
    assert_eq!(
        subject.search(
            Isa::best(),
            &x,
            Top {
                count: 900,
                except: &[]
            }
        ),
        None
    );
    assert_eq!(subject.search(Isa::best(), &x, Top { count: 0, except: &[] }), None);
}

#[test]
fn heads_that_cannot_be_sketched() {
    let odd =
        |values: FloatValues, rows, cols| HeadSketch::build(&Serial, Isa::best(), &FloatMatrix { rows, cols, values });
    assert!(odd(FloatValues::F32(vec![1.0; 300].into()), 3, 100).is_none());
    assert!(odd(FloatValues::F32(Vec::new().into()), 0, 128).is_none());
    let mut values = vec![1.0; 384];
    values[200] = f32::NAN;
    assert!(odd(FloatValues::F32(values.into()), 3, 128).is_none());
}

/// Threads split the making and the searching; neither changes.
#[cfg(feature = "std")]
#[test]
fn threads_change_nothing() {
    let head = head(777, 256, 6);
    let pool = crate::runtime::Pool::new(3).unwrap();
    let serial = HeadSketch::build(&Serial, Isa::SCALAR, &head).unwrap();
    assert!(HeadSketch::build(&pool, Isa::best(), &head).unwrap() == serial);
    let x = normal(256, 8);
    let mut subject = Subject::new(head);
    let rows = subject.check(&x, GREEDY);
    let scratch = || Scratch {
        sums: vec![0; 256],
        ..Scratch::default()
    };
    let mut scratch: Vec<Scratch> = (0..pool.threads()).map(|_| scratch()).collect();
    let mut logits = vec![0.0; 777];
    let found = pool.enter(usize::MAX, || {
        let (head, buffers) = (&subject.head, &mut subject.buffers);
        let x = Input::of_floats(1, &x);
        subject.sketch.search(
            &pool,
            Isa::best(),
            (head, None),
            x,
            GREEDY,
            buffers,
            &mut scratch,
            &mut logits,
        )
    });
    assert_eq!(found, rows);
    assert_eq!(logits, subject.logits);
}
