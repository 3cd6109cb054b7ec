//! How likely the chosen tokens were.

use crate::sampling::filters;

/// A token and the natural logarithm of its probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogprob {
    /// The token.
    pub id: u32,
    /// Never above 0.
    pub logprob: f64,
}

/// What the model thought of one token, before temperature, penalty and filters.
#[derive(Clone, Debug, PartialEq)]
pub struct Logprobs {
    /// The token that was chosen.
    pub chosen: TokenLogprob,
    /// The likeliest tokens, likeliest first; ties go to the lower id.
    pub top: Vec<TokenLogprob>,
}

/// `ln Σ exp(logits)`, summed in f64 relative to the largest.
fn log_sum(logits: &[f32]) -> f64 {
    let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    if most == f32::NEG_INFINITY {
        return f64::NEG_INFINITY;
    }
    let sum: f64 = logits.iter().map(|&x| f64::from(x - most).exp()).sum();
    f64::from(most) + sum.ln()
}

/// The `count` likeliest tokens of `logits` and the logarithm that all of them are measured by.
pub(crate) fn likeliest(logits: &[f32], count: usize) -> (Vec<TokenLogprob>, f64) {
    let total = log_sum(logits);
    let mut candidates = Vec::new();
    if count > 0 {
        filters::top_k(logits, count, &mut candidates);
    }
    let of = |id, logit: f32| TokenLogprob {
        id,
        logprob: f64::from(logit) - total,
    };
    (candidates.iter().map(|c| of(c.id, c.logit)).collect(), total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probabilities_sum_to_one_and_come_in_order() {
        let logits = [1.0, 3.0, f32::NEG_INFINITY, 3.0, -200.0, 2.0];
        let (top, total) = likeliest(&logits, 3);
        assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [1, 3, 5]);
        let sum: f64 = logits.iter().map(|&x| (f64::from(x) - total).exp()).sum();
        assert!((sum - 1.0).abs() < 1e-12, "{sum}");
        let expected = 3.0 - (1f64.exp() + 2.0 * 3f64.exp() + 2f64.exp()).ln();
        assert!((top[0].logprob - expected).abs() < 1e-12);
        assert!(likeliest(&logits, 0).0.is_empty());
    }

    #[test]
    fn more_than_there_are_gives_all_that_can_come() {
        let (top, _) = likeliest(&[0.0, f32::NEG_INFINITY, 1.0], 10);
        assert_eq!(top.iter().map(|t| t.id).collect::<Vec<_>>(), [2, 0]);
    }
}
