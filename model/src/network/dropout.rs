//! Dropout by place.
//!
//! Every mask is a pure function of the run's seed, the place, the micro-batch and an index, so the CPU and a GPU have the same, and a backward makes its own again.

use onebit_engine::rng::Key;

/// RNG purpose of the masks of elements; the place's number is added.
pub(super) const ELEMENTS: u32 = 0x6472_6f70; // "drop"
/// Of words, numbered by their id.
pub(super) const WORDS: u32 = 0x776f_7264; // "word"
/// Of the head's input.
pub(super) const OUTPUT: u32 = 0x6f75_7470; // "outp"
/// Of attention's probabilities, numbered by sequence, head, query and key; the place's number is added.
pub(super) const PROBABILITIES: u32 = 0x6174_746e; // "attn"
/// Of branches, numbered by sequence; the place's number is added.
pub(super) const BRANCHES: u32 = 0x6470_7468; // "dpth"

/// Probabilities of dropout, each in `[0, 1)`; what is kept is multiplied by `1 / (1 − p)`. By default nothing is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct DropoutRates {
    /// Of a word: all of its embedding, wherever it stands in the micro-batch (Gal and Ghahramani 2016).
    pub word: f32,
    /// Of an element of the embedded tokens (Srivastava et al. 2014).
    pub input: f32,
    /// Of a probability of attention, behind the softmax (Vaswani et al. 2017).
    pub attention: f32,
    /// Of an element of what a block writes to the residual stream.
    pub hidden: f32,
    /// Of an element of the head's input.
    pub output: f32,
    /// Of the last block's branches, whole, for a sequence; those before it have less, down to one part in as many as there are blocks (stochastic depth with linear decay, Huang et
    /// al. 2016).
    pub depth: f32,
}

impl DropoutRates {
    /// Whether anything is dropped.
    pub fn any(&self) -> bool {
        let DropoutRates {
            word,
            input,
            attention,
            hidden,
            output,
            depth,
        } = *self;
        [word, input, attention, hidden, output, depth].iter().any(|p| *p > 0.0)
    }

    /// The probability of dropping a branch of `block` of `blocks`.
    pub(super) fn depth_of(&self, block: usize, blocks: usize) -> f32 {
        self.depth * (block + 1) as f32 / blocks as f32
    }
}

/// Dropout of one forward.
#[derive(Clone, Copy, Debug)]
pub struct Dropout {
    /// How much, and where.
    pub rates: DropoutRates,
    /// Seed of the run.
    pub seed: u64,
    /// A number that differs for each micro-batch.
    pub step: u64,
}

impl Dropout {
    /// The numbers of a purpose.
    pub(super) fn key(&self, purpose: u32) -> Key {
        Key::new(self.seed, purpose, self.step)
    }

    /// `1 / (1 − p)` or 0 for each of `numbers`.
    pub(super) fn factors(&self, p: f32, purpose: u32, numbers: impl Iterator<Item = u64>) -> Vec<f32> {
        let (key, keep) = (self.key(purpose), 1.0 / (1.0 - p));
        numbers.map(|i| if key.uniform(i) >= p { keep } else { 0.0 }).collect()
    }
}

/// Places of dropout of elements and of branches: the embedding, then two for each block.
pub(super) const EMBEDDING_SITE: u32 = 0;

/// The place behind the attention of `block`, and that of its probabilities.
pub(super) fn attention_site(block: usize) -> u32 {
    1 + 2 * block as u32
}

/// The place behind the feed-forward of `block`.
pub(super) fn feed_forward_site(block: usize) -> u32 {
    2 + 2 * block as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_grows_to_its_rate() {
        let rates = DropoutRates {
            depth: 0.4,
            ..DropoutRates::default()
        };
        assert!(rates.any() && !DropoutRates::default().any());
        let attention = DropoutRates {
            attention: 0.1,
            ..DropoutRates::default()
        };
        assert!(attention.any());
        assert_eq!([0, 1, 3].map(|block| rates.depth_of(block, 4)), [0.1, 0.2, 0.4]);
    }

    #[test]
    fn factors_keep_the_mean() {
        let dropout = Dropout {
            rates: DropoutRates::default(),
            seed: 5,
            step: 7,
        };
        let factors = dropout.factors(0.25, WORDS, 0..20_000);
        let mean = factors.iter().sum::<f32>() / 20_000.0;
        assert!((mean - 1.0).abs() < 0.02, "{mean}");
        assert!(factors.iter().all(|f| *f == 0.0 || *f == 1.0 / 0.75));
        // The number decides, and nothing else.
        assert_eq!(
            dropout.factors(0.25, WORDS, [3, 3, 19_999].into_iter()),
            [factors[3], factors[3], factors[19_999]]
        );
    }
}
