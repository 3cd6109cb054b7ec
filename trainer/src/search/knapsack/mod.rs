//! The best maps under the sum model: rises of the loss and bytes both add up over the sites.
//!
//! Choosing one width a site so that `Σ rise` is least within `Σ bytes ≤ S` is the multiple-choice knapsack. All budgets are answered at once by
//! lists of states (Nemhauser and Ullmann 1969, "Discrete dynamic programming and capital allocation"):
//!
//! ```text
//! list of no site       (base, 0)
//! list of t + 1 sites   every state of the list of t with every choice of the next site, merged by bytes;
//!                       what is not better than a smaller one goes
//!                       bytes ──────────────▶
//!                       (12, 0.9) (14, 0.7) (20, 0.1)          a list: bytes rise, rises fall
//! ```
//! A state that is dominated can be exchanged for the other in whatever follows, so the last list is the whole front of the model: exact, in `u64` and `f64`,
//! without rounding bytes to a grid. Sums are made in the order in which the sites are gone through, so rises are exact up to the rounding of that sum.
//!
//! A list is at most as long as there are different sums of bytes, and the matrices of a model have few shapes: sites of one shape are gone through together. Without that it is
//! polynomial on average (Beier and Vöcking 2004, "Random knapsack in expected polynomial time"): 5,000 states for 58 sites of any sizes, 15,000 for 210 sites of a 2B-4T's shapes.
//! Should a list still pass [`CAP`], bytes are cut into granules and of each granule the best state stays, with its true bytes, and the smallest of all: every map
//! that comes out is one with exactly those bytes, and [`SumFront::slack`] bounds what was lost: the answer to `S` is at least as good as the optimum of `S − slack`.
//!
//! Cost: `sites · choices · list` steps, and 5 bytes for each state of each list, from which maps are read back: 70 MB at 210 sites and the longest lists.

#[cfg(test)]
mod tests;

use super::map::{Candidate, Sensitivity, Sites};

/// The longest list.
pub const CAP: usize = 1 << 16;

/// What some choices of the first sites come to.
#[derive(Clone, Copy, Debug, PartialEq)]
struct State {
    bytes: u64,
    rise: f64,
}

/// Where the states of a list came from.
#[derive(Clone, Debug)]
struct Layer {
    site: usize,
    /// The state of the list before.
    from: Vec<u32>,
    /// The choice.
    choice: Vec<u8>,
}

/// A map, and what the sum model says of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Solution {
    /// The map.
    pub map: Candidate,
    /// [`Sites::sum`] of it.
    pub bytes: u64,
    /// [`Sensitivity::sum`] of it, up to the order of summation.
    pub rise: f64,
}

/// The front of the sum model.
#[derive(Clone, Debug)]
pub struct SumFront {
    layers: Vec<Layer>,
    states: Vec<State>,
    slack: u64,
}

impl SumFront {
    /// The front up to `most` bytes (`u64::MAX`: all of it).
    pub fn new(sites: &Sites, rises: &Sensitivity, most: u64) -> Self {
        Self::with_cap(sites, rises, most, CAP)
    }

    /// The front of lists of at most `cap` states (at least 3).
    pub fn with_cap(sites: &Sites, rises: &Sensitivity, most: u64, cap: usize) -> Self {
        let cap = cap.max(3);
        let options: Vec<Vec<(State, u8)>> = (0..sites.len()).map(|site| worthwhile(sites, rises, site)).collect();
        let sizes = |site: usize| options[site].iter().map(|(option, _)| option.bytes);
        let mut order: Vec<usize> = (0..sites.len()).collect();
        // Sites of one shape side by side, the large ones first: sums fall together as long as possible.
        order.sort_by(|&a, &b| sizes(b).rev().cmp(sizes(a).rev()).then(a.cmp(&b)));
        // What the sites that are left take at least.
        let mut rest: u64 = options.iter().map(|options| options[0].0.bytes).sum();
        let mut states = vec![State {
            bytes: sites.base(),
            rise: 0.0,
        }];
        states.retain(|state| state.bytes + rest <= most);
        let (mut layers, mut granule, mut slack) = (Vec::with_capacity(order.len()), 1u64, 0u64);
        for site in order {
            rest -= options[site][0].0.bytes;
            let mut merged = merge(&states, &options[site], most.saturating_sub(rest));
            if merged.len() > cap {
                merged = thin(merged, cap, &mut granule);
                slack = slack.saturating_add(granule - 1);
            }
            states = merged.iter().map(|&(state, ..)| state).collect();
            layers.push(Layer {
                site,
                from: merged.iter().map(|&(_, from, _)| from).collect(),
                choice: merged.iter().map(|&(.., choice)| choice).collect(),
            });
        }
        SumFront { layers, states, slack }
    }

    /// How many maps are on it.
    pub fn len(&self) -> usize {
        self.states.len()
    }

    /// Whether no map has as few bytes as were asked for.
    pub fn is_empty(&self) -> bool {
        self.states.is_empty()
    }

    /// Bytes by which a budget may be used worse than by the optimum; 0 where the front is exact.
    pub fn slack(&self) -> u64 {
        self.slack
    }

    /// Bytes and rise of the front's maps, by ascending bytes and so by descending rise.
    pub fn points(&self) -> impl ExactSizeIterator<Item = (u64, f64)> + '_ {
        self.states.iter().map(|state| (state.bytes, state.rise))
    }

    /// The `i`-th map of the front.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn solution(&self, i: usize) -> Solution {
        let State { bytes, rise } = self.states[i];
        let mut choices = vec![0; self.layers.len()];
        let mut at = i;
        for layer in self.layers.iter().rev() {
            choices[layer.site] = layer.choice[at];
            at = layer.from[at] as usize;
        }
        Solution {
            map: Candidate::new(choices),
            bytes,
            rise,
        }
    }

    /// The least rise within so many bytes.
    pub fn within(&self, bytes: u64) -> Option<Solution> {
        let up_to = self.states.partition_point(|state| state.bytes <= bytes);
        up_to.checked_sub(1).map(|i| self.solution(i))
    }

    /// The least bytes with at most this rise.
    pub fn reaching(&self, rise: f64) -> Option<Solution> {
        let from = self.states.partition_point(|state| state.rise > rise);
        let reaches = self.states.get(from).is_some_and(|state| state.rise <= rise);
        reaches.then(|| self.solution(from))
    }
}

/// The choices of a site of which none is worse than a smaller one, by ascending bytes.
fn worthwhile(sites: &Sites, rises: &Sensitivity, site: usize) -> Vec<(State, u8)> {
    let mut all: Vec<(State, u8)> = (sites.ladder(site).iter())
        .map(|&choice| {
            let bytes = sites.all()[site].choices[usize::from(choice)].bytes;
            let rise = rises.rise(site, choice);
            (State { bytes, rise }, choice)
        })
        .collect();
    all.sort_by(|(a, i), (b, j)| a.bytes.cmp(&b.bytes).then(a.rise.total_cmp(&b.rise)).then(i.cmp(j)));
    let mut least = f64::INFINITY;
    let mut kept: Vec<(State, u8)> = Vec::with_capacity(all.len());
    for option in all {
        if kept.is_empty() || option.0.rise < least {
            least = option.0.rise;
            kept.push(option);
        }
    }
    kept
}

/// Every state with every option, as far as it has at most `most` bytes and no smaller one is as good: state, its place in `states`, choice.
fn merge(states: &[State], options: &[(State, u8)], most: u64) -> Vec<(State, u32, u8)> {
    let mut at = vec![0usize; options.len()];
    let mut merged: Vec<(State, u32, u8)> = Vec::with_capacity(states.len());
    loop {
        let mut next: Option<(State, usize)> = None;
        for (o, (option, _)) in options.iter().enumerate() {
            let Some(state) = states.get(at[o]) else { continue };
            let sum = State {
                bytes: state.bytes + option.bytes,
                rise: state.rise + option.rise,
            };
            let first = next.is_none_or(|(best, _)| (sum.bytes, sum.rise) < (best.bytes, best.rise));
            if first {
                next = Some((sum, o));
            }
        }
        let Some((sum, o)) = next else { return merged };
        if sum.bytes > most {
            return merged;
        }
        if merged.last().is_none_or(|(last, ..)| sum.rise < last.rise) {
            merged.push((sum, at[o] as u32, options[o].1));
        }
        at[o] += 1;
    }
}

/// The smallest state, and the best of each granule; the granule doubles until that is at most `cap` states.
fn thin(merged: Vec<(State, u32, u8)>, cap: usize, granule: &mut u64) -> Vec<(State, u32, u8)> {
    // Rises fall, so the best of a granule is its last.
    let stays = |i: usize, granule: u64| {
        let of = |i: usize| merged.get(i).map(|(state, ..)| state.bytes / granule);
        i == 0 || of(i) != of(i + 1)
    };
    while (0..merged.len()).filter(|&i| stays(i, *granule)).count() > cap {
        *granule *= 2;
    }
    (0..merged.len())
        .filter(|&i| stays(i, *granule))
        .map(|i| merged[i])
        .collect()
}
