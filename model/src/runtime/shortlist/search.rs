//! Finding the largest logits of many tokens.

use alloc::vec::Vec;

use onebit_kernels_cpu::math::sqrt_f64;
use onebit_kernels_cpu::prefetch::{LINE, prefetch_level2};
use onebit_kernels_cpu::ternary::padded_cols;
use onebit_kernels_cpu::{Isa, elementwise, estimate, int8_gemm, quantize, softcap};

use super::{LONGER, PANEL, Shortlist, by_token, lengths};
use crate::runtime::buffers::{product, zeros};
use crate::runtime::error::RuntimeError;
use crate::runtime::executor::Executor;
use crate::runtime::floats::FloatMatrix;
use crate::runtime::linear::{FEW_TOKENS, Input, Scratch};
use crate::runtime::sketch::Top;
use crate::runtime::winners::{self, MORE, some_rows};
use crate::sampling::filters::{Candidate, Largest};

/// What rounding in f32 adds to a logit, as a part of `‖w‖·‖x‖`: of the chain of `cols / 16` multiply-adds that computes it, its folds, and the estimate itself. Twice what each
/// can be.
fn rounding(cols: usize) -> f32 {
    (cols as f32 / 16.0 + 32.0) * f32::EPSILON
}

/// The memory of a search.
pub(in crate::runtime) struct ShortlistBuffers {
    /// The inputs as bytes, `[tokens, padded cols]`, and what is known of them, `[tokens]`.
    bytes: Vec<i8>,
    scales: Vec<f32>,
    inputs: Vec<estimate::Input>,
    /// The most that each logit can be, `[panels, tokens, PANEL]`, and the largest of each panel, `[panels, tokens]`.
    most: Vec<f32>,
    largest: Vec<f32>,
    /// How many rows of each token were computed, `[tokens]`; `None` if the whole head must be.
    pub found: Vec<Option<usize>>,
    /// One for each thread.
    finders: Vec<Finder>,
}

/// What one thread needs to search for a token.
struct Finder {
    /// A bit for each row that may not set the threshold, `[rows / 64]`; all 0 between searches.
    except: Vec<u64>,
    panels: Vec<f32>,
    candidates: Vec<Candidate>,
    chosen: Vec<u32>,
    exact: Vec<f32>,
}

impl ShortlistBuffers {
    /// For up to `tokens` tokens at a time.
    ///
    /// # Errors
    /// [`RuntimeError::OutOfMemory`].
    pub fn new(shortlist: &Shortlist, tokens: usize, threads: usize) -> Result<Self, RuntimeError> {
        const WHAT: &str = "the search of the head";
        let (rows, panels, few) = (shortlist.rows, shortlist.rows.div_ceil(PANEL), shortlist.few());
        let mut finders = Vec::with_capacity(threads);
        for _ in 0..threads {
            finders.push(Finder {
                except: zeros(WHAT, rows.div_ceil(64))?,
                panels: zeros(WHAT, panels)?,
                candidates: Vec::new(),
                chosen: zeros(WHAT, few)?,
                exact: zeros(WHAT, few)?,
            });
        }
        Ok(Self {
            bytes: zeros(WHAT, product(WHAT, tokens, padded_cols(shortlist.cols))?)?,
            scales: zeros(WHAT, tokens)?,
            inputs: zeros(WHAT, tokens)?,
            most: zeros(WHAT, product(WHAT, panels * PANEL, tokens)?)?,
            largest: zeros(WHAT, product(WHAT, panels, tokens)?)?,
            found: zeros(WHAT, tokens)?,
            finders,
        })
    }
}

/// The token of a search.
struct Token<'a> {
    number: usize,
    tokens: usize,
    top: Top<'a>,
    x: Input<'a>,
}

impl Shortlist {
    /// Writes for each token of `x` (the normed input of `head`; for an int4 head `x.float` is what `x.blocks` stand for) the logits, capped if there is a cap, that can be among its `top`, and −∞ for
    /// all others, into `logits`, `[tokens, rows]`. Of tokens whose whole head must be computed `buffers.found` is `None`, and their logits are unspecified.
    pub(in crate::runtime) fn search<E: Executor>(
        &self,
        exec: &E,
        isa: Isa,
        (head, cap): (&FloatMatrix, Option<f32>),
        x: Input<'_>,
        tops: &[Top<'_>],
        buffers: &mut ShortlistBuffers,
        scratch: &mut [Scratch],
        logits: &mut [f32],
    ) {
        self.estimate(exec, isa, head, x, buffers, scratch);
        let ShortlistBuffers {
            most,
            largest,
            found,
            inputs,
            finders,
            ..
        } = buffers;
        let (most, largest, inputs) = (&*most, &*largest, &*inputs);
        let shares = by_token(exec, x.tokens, 4 * self.rows);
        let found = (&mut found[..x.tokens], 1);
        exec.share_zipped(
            shares,
            (logits, self.rows),
            found,
            finders,
            |first, logits, found, finder| {
                let tokens = first / self.rows..;
                for ((number, logits), found) in tokens.zip(logits.chunks_exact_mut(self.rows)).zip(found) {
                    let token = Token {
                        number,
                        tokens: x.tokens,
                        top: tops[number],
                        x: x.part(number, 1),
                    };
                    *found = match inputs[number].length.is_finite() {
                        true => self.find(isa, (head, cap), token, most, largest, finder, logits),
                        false => None,
                    };
                }
            },
        );
    }

    /// The most that every logit of every token can be.
    fn estimate<E: Executor>(
        &self,
        exec: &E,
        isa: Isa,
        head: &FloatMatrix,
        x: Input<'_>,
        buffers: &mut ShortlistBuffers,
        scratch: &mut [Scratch],
    ) {
        let (cols, tokens, padded) = (self.cols, x.tokens, padded_cols(self.cols));
        let xq = &mut buffers.bytes[..tokens * padded];
        let scales = &mut buffers.scales[..tokens];
        quantize::absmax_i8(isa, x.float, cols, xq, padded, scales);
        let inputs = &mut buffers.inputs[..tokens];
        for (((x, xq), scale), input) in
            (x.float.chunks_exact(cols).zip(xq.chunks_exact(padded)).zip(&*scales)).zip(&mut *inputs)
        {
            let step = 1.0 / scale;
            let length = (sqrt_f64(elementwise::sum_squares(isa, x)) * LONGER) as f32;
            let off = lengths(x, xq, step).1 + rounding(cols) * length;
            *input = estimate::Input { step, length, off };
        }
        let (xq, inputs) = (&*xq, &*inputs);
        let w = self.bytes(head);
        let panels = self.rows.div_ceil(PANEL);
        let most = (&mut buffers.most[..panels * PANEL * tokens], PANEL * tokens);
        let largest = (&mut buffers.largest[..panels * tokens], tokens);
        let shares = exec.shares(w.len().saturating_mul(tokens));
        exec.share_zipped(shares, most, largest, scratch, |first, most, largest, scratch| {
            let panels = first / (PANEL * tokens)..;
            for ((panel, most), largest) in panels
                .zip(most.chunks_exact_mut(PANEL * tokens))
                .zip(largest.chunks_exact_mut(tokens))
            {
                let first = panel * PANEL;
                let rows = PANEL.min(self.rows - first);
                let sums = &mut scratch.sums[..rows * tokens];
                if tokens > FEW_TOKENS {
                    // The next panel comes from memory while this one meets the tokens; where there are few, the kernel asks for what it needs.
                    let after = w.get((first + rows) * cols..).unwrap_or_default();
                    prefetch_level2(after.as_ptr().cast(), after.len().min(PANEL * cols) / LINE);
                }
                let w = &w[first * cols..(first + rows) * cols];
                int8_gemm::int8_gemm(isa, w, rows, cols, xq, tokens, sums, &mut scratch.panel);
                let figures = self.figures(first, rows);
                let each = sums.chunks_exact(rows).zip(inputs).zip(most.chunks_exact_mut(PANEL));
                for (((sums, input), most), largest) in each.zip(largest) {
                    let (most, rest) = most.split_at_mut(rows);
                    *largest = estimate::most(isa, sums, figures, *input, most);
                    rest.fill(f32::NEG_INFINITY);
                }
            }
        });
    }

    /// The logits of a token that can be among its largest, and how many they are; `None` if the whole head must be computed.
    fn find(
        &self,
        isa: Isa,
        (head, cap): (&FloatMatrix, Option<f32>),
        token: Token<'_>,
        most: &[f32],
        largest: &[f32],
        finder: &mut Finder,
        logits: &mut [f32],
    ) -> Option<usize> {
        let Token { number, tokens, top, x } = token;
        if !self.takes(top) {
            return None;
        }
        let wanted = top.count + MORE;
        let panels = self.rows.div_ceil(PANEL);
        let in_panel = |panel: usize| {
            let at = (panel * tokens + number) * PANEL;
            let ids = (panel * PANEL) as u32..;
            ids.zip(&most[at..at + PANEL])
        };
        let largest = |panel: usize| largest[panel * tokens + number];

        // So many panels have a row that is not below the floor, and rows that may not set the threshold can be only as many of them as they are.
        let nth = wanted.saturating_add(top.except.len());
        let floor = match nth < panels {
            true => {
                for (panel, kept) in finder.panels.iter_mut().enumerate() {
                    *kept = largest(panel);
                }
                *finder.panels.select_nth_unstable_by(nth - 1, |a, b| b.total_cmp(a)).1
            }
            false => f32::NEG_INFINITY,
        };
        for id in top.except {
            finder.except[*id as usize / 64] |= 1 << (id % 64);
        }
        let is_except = |id: u32| finder.except[id as usize / 64] >> (id % 64) & 1 == 1;
        let mut best = Largest::new(wanted, self.rows, floor.next_down(), &mut finder.candidates);
        for panel in 0..panels {
            if largest(panel) > best.threshold {
                for (id, &most) in in_panel(panel) {
                    if most > best.threshold && !is_except(id) {
                        best.take(id, most);
                    }
                }
            }
        }
        best.finish();
        for id in top.except {
            finder.except[*id as usize / 64] = 0;
        }
        let Finder {
            candidates,
            chosen,
            exact,
            ..
        } = finder;
        if candidates.len() < top.count {
            return None;
        }
        let threshold = winners::threshold(isa, (head, cap), x, top, candidates, chosen, exact)?;

        let mut count = 0;
        for panel in 0..panels {
            if largest(panel) >= threshold {
                for (id, _) in in_panel(panel).filter(|(_, most)| **most >= threshold) {
                    *chosen.get_mut(count)? = id;
                    count += 1;
                }
            }
        }
        let (chosen, exact) = (&chosen[..count], &mut exact[..count]);
        some_rows(isa, head, x, chosen, exact);
        if let Some(cap) = cap {
            softcap::softcap(isa, cap, exact);
        }
        logits.fill(f32::NEG_INFINITY);
        for (&row, &logit) in chosen.iter().zip(&*exact) {
            logits[row as usize] = logit;
        }
        Some(count)
    }
}
