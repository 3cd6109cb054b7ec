//! Which sequence a prompt goes to.

/// A sequence, as far as prompts are concerned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// Tokens that are in its cache.
    pub held: &'a [u32],
    /// The rest of a prompt that is being read behind them.
    pub coming: &'a [u32],
    /// Whether an answer is being written there.
    pub busy: bool,
    /// When it was used last; more is later.
    pub used: u64,
}

/// Where a prompt is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    /// In a sequence that nobody uses, whose first `reused` tokens are the prompt's.
    In {
        /// The sequence.
        sequence: usize,
        /// Tokens that need not be read again.
        reused: usize,
    },
    /// There too, after the first `reused` tokens of `from` were copied there.
    CopyOf {
        /// Whose beginning is copied.
        from: usize,
        /// The sequence.
        sequence: usize,
        /// Tokens that need not be read again.
        reused: usize,
    },
    /// Nowhere yet: every sequence is in use, or what the prompt begins with is just being read.
    Wait,
}

/// Tokens that a copy must save to be worth it, and for which a prompt waits.
const WORTH: usize = 16;

/// How much two texts have in common.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Chooses for `prompt`.
pub(super) fn choose(places: &[Place<'_>], prompt: &[u32]) -> Choice {
    // The last token is read in any case: its logits are what the answer begins with.
    let most = prompt.len().saturating_sub(1);
    let held: Vec<usize> = places
        .iter()
        .map(|place| common(place.held, prompt).min(most))
        .collect();
    let free = places
        .iter()
        .zip(&held)
        .enumerate()
        .filter(|(_, (place, _))| !place.busy);
    // First one whose text the prompt goes on with, more or less; then an empty one; then what was used least recently.
    let rank = |place: &Place<'_>, held: usize| match (held > 0 && 2 * held >= place.held.len(), place.held) {
        (true, _) => (2, held),
        (false, []) => (1, 0),
        (false, _) => (0, 0),
    };
    let Some((sequence, (_, &own))) =
        free.max_by_key(|(_, (place, held))| (rank(place, **held), std::cmp::Reverse(place.used)))
    else {
        return Choice::Wait;
    };
    let other = (held.iter().enumerate()).max_by_key(|&(i, held)| (*held, std::cmp::Reverse(i)));
    let (from, &theirs) = other.unwrap_or((sequence, &own));
    let will = |place: &Place<'_>| match common(place.held, prompt) {
        all if all == place.held.len() => (all + common(place.coming, prompt.get(all..).unwrap_or_default())).min(most),
        some => some.min(most),
    };
    if places.iter().any(|place| will(place) >= theirs + WORTH) {
        return Choice::Wait;
    }
    match theirs >= own + WORTH {
        true => Choice::CopyOf {
            from,
            sequence,
            reused: theirs,
        },
        false => Choice::In { sequence, reused: own },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(held: &[u32], used: u64, busy: bool) -> Place<'_> {
        Place {
            held,
            coming: &[],
            busy,
            used,
        }
    }

    #[test]
    fn a_prompt_goes_where_it_has_most_in_common() {
        let places = [
            place(&[1, 2, 9], 1, false),
            place(&[1, 2, 3, 4], 2, false),
            place(&[1, 2, 3], 3, true),
        ];
        assert_eq!(choose(&places, &[1, 2, 3, 4, 5]), Choice::In { sequence: 1, reused: 4 });
        // The last token is always read.
        assert_eq!(choose(&places, &[1, 2, 3, 4]), Choice::In { sequence: 1, reused: 3 });
        assert_eq!(choose(&places, &[1, 2, 9, 9]), Choice::In { sequence: 0, reused: 3 });
    }

    #[test]
    fn without_anything_in_common_the_oldest_goes_and_an_empty_one_first() {
        let places = [place(&[1, 2], 5, false), place(&[1, 3], 4, false), place(&[4], 1, true)];
        assert_eq!(choose(&places, &[7, 8]), Choice::In { sequence: 1, reused: 0 });
        let places = [place(&[1, 2], 3, false), place(&[], 9, false)];
        assert_eq!(choose(&places, &[7, 8]), Choice::In { sequence: 1, reused: 0 });
    }

    #[test]
    fn what_a_busy_one_has_is_copied_and_what_is_being_read_is_waited_for() {
        let text: Vec<u32> = (0..100).collect();
        let busy = place(&text[..50], 9, true);
        let free = place(&[], 0, false);
        assert_eq!(
            choose(&[busy, free], &text),
            Choice::CopyOf {
                from: 0,
                sequence: 1,
                reused: 50
            }
        );
        let reading = Place {
            coming: &text[50..],
            ..busy
        };
        assert_eq!(choose(&[reading, free], &text), Choice::Wait);
        assert_eq!(choose(&[reading], &text), Choice::Wait);
        // Another text that begins a little alike is not worth waiting for.
        let mut other = text.clone();
        other[55] = 0;
        assert_eq!(
            choose(&[reading, free], &other),
            Choice::CopyOf {
                from: 0,
                sequence: 1,
                reused: 50
            }
        );
        assert_eq!(choose(&[], &text), Choice::Wait);
    }
}
