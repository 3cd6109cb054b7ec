//! The filters: which tokens stay.

use alloc::vec::Vec;
use core::cmp::Ordering;

/// A token that may be drawn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Candidate {
    pub logit: f32,
    /// Proportional to the probability; 1 for the most likely token.
    pub weight: f32,
    pub id: u32,
}

/// The larger logit first, the lower id among equals. Logits are never NaN here; −0 and 0 are equal.
pub(super) fn likelier(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit
        .partial_cmp(&a.logit)
        .unwrap_or(Ordering::Equal)
        .then(a.id.cmp(&b.id))
}

/// Room that [`top_k`] needs.
pub(super) fn top_k_room(k: usize, vocab: usize) -> usize {
    if k == 0 {
        vocab
    } else {
        vocab.min(k.saturating_mul(2).max(64))
    }
}

/// Runs of logits that are compared as a whole, in vectors, before any is looked at alone.
const RUN: usize = 64;

/// Calls `take` with each token whose logit is above the threshold; `take` returns the next threshold.
///
/// Few tokens of a vocabulary pass once the threshold has risen, so most runs cost one vector comparison.
pub(super) fn above(logits: &[f32], mut take: impl FnMut(u32, f32) -> f32) {
    let mut threshold = f32::NEG_INFINITY;
    for (run, start) in logits.chunks(RUN).zip((0u32..).step_by(RUN)) {
        if run.iter().fold(false, |any, x| any | (*x > threshold)) {
            for (logit, id) in run.iter().zip(start..) {
                if *logit > threshold {
                    threshold = take(id, *logit);
                }
            }
        }
    }
}

/// Puts the `k` likeliest to the front, the least likely of them last.
fn select(candidates: &mut [Candidate], k: usize) {
    if let Some(last) = k.checked_sub(1).filter(|&last| last < candidates.len()) {
        candidates.select_nth_unstable_by(last, likelier);
    }
}

/// The `k` largest logits of those that are offered by ascending id, with room for some more (`k` = 0: all of them).
///
/// Collects what beats the threshold; whenever `out` is full, keeps its `k` largest and raises the threshold to the
/// smallest of these. Later equals lose to earlier ones, which have the lower ids.
pub(crate) struct Largest<'a> {
    k: usize,
    room: usize,
    /// Whether there may be more than there is room for.
    full: bool,
    out: &'a mut Vec<Candidate>,
    /// What is not above this is not among them.
    pub threshold: f32,
}

impl<'a> Largest<'a> {
    /// Of `offered` logits at most, of which those that are not above `threshold` do not count.
    pub fn new(k: usize, offered: usize, threshold: f32, out: &'a mut Vec<Candidate>) -> Self {
        out.clear();
        let room = top_k_room(k, offered);
        Self {
            k,
            room,
            full: room < offered,
            out,
            threshold,
        }
    }

    /// Takes a logit above the threshold and returns the next one.
    pub fn take(&mut self, id: u32, logit: f32) -> f32 {
        self.out.push(Candidate { logit, weight: 0.0, id });
        // Room for less than all means that there is room for 2k at least.
        if self.full && self.out.len() == self.room {
            select(self.out, self.k);
            self.out.truncate(self.k);
            self.threshold = self.out.last().map_or(self.threshold, |least| least.logit);
        }
        self.threshold
    }

    /// Sorts what was taken, the largest first (`k` = 0: it stays by id).
    pub fn finish(self) {
        if self.k > 0 {
            self.out.sort_unstable_by(likelier);
            self.out.truncate(self.k);
        }
    }
}

/// Puts the `k` largest finite logits into `out`, sorted (`k` = 0: all of them, by id).
pub(crate) fn top_k(logits: &[f32], k: usize, out: &mut Vec<Candidate>) {
    let mut largest = Largest::new(k, logits.len(), f32::NEG_INFINITY, out);
    above(logits, |id, logit| largest.take(id, logit));
    largest.finish();
}

/// Sorts as many of the most likely candidates to the front as together reach `p` of all weight, and drops the rest.
pub(super) fn top_p(candidates: &mut Vec<Candidate>, p: f32) {
    let total: f64 = candidates.iter().map(|c| f64::from(c.weight)).sum();
    let target = f64::from(p) * total;
    // Tokens lighter than this are together lighter than 1 − p, so the others reach p without them. The margin covers rounding.
    let floor = 0.999 * (1.0 - f64::from(p)) * total / candidates.len() as f64;
    candidates.retain(|c| f64::from(c.weight) >= floor);
    let (mut mass, mut sorted, mut step) = (0.0, 0usize, 64usize);
    while let Some(rest) = candidates.get_mut(sorted..).filter(|rest| !rest.is_empty()) {
        // The next `step` likeliest of what is left: the set is small as a rule, the vocabulary large.
        select(rest, step);
        let step_end = step.min(rest.len());
        let rest = rest.get_mut(..step_end).unwrap_or_default();
        rest.sort_unstable_by(likelier);
        for c in rest.iter() {
            sorted = sorted.saturating_add(1);
            mass += f64::from(c.weight);
            if mass >= target {
                candidates.truncate(sorted);
                return;
            }
        }
        step = step.saturating_mul(4);
    }
}

/// Keeps the candidates at least `min_p` times as likely as the likeliest.
pub(super) fn min_p(candidates: &mut Vec<Candidate>, min_p: f32) {
    let most = candidates.iter().fold(0.0f32, |a, c| a.max(c.weight));
    candidates.retain(|c| c.weight >= min_p * most);
}
