//! Which rank has the moments of a parameter.

/// The owner of each of some arrays of these lengths among `ranks`: the longest first, each to the rank that has least, the first of those.
pub fn owners(lengths: &[usize], ranks: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse(lengths[i]));
    let mut held = vec![0usize; ranks.max(1)];
    let mut owners = vec![0; lengths.len()];
    for i in order {
        let least = (0..held.len()).min_by_key(|&rank| held[rank]).unwrap_or(0);
        owners[i] = least;
        held[least] += lengths[i];
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_balanced_and_the_same_everywhere() {
        assert_eq!(owners(&[5, 9, 4, 0], 2), [1, 0, 1, 0]);
        assert_eq!(owners(&[3, 3, 3], 1), [0, 0, 0]);
        assert_eq!(owners(&[7], 3), [0]);
        let lengths: Vec<usize> = (0..200).map(|i| 1 + i * 7919 % 1013).collect();
        for ranks in 1..9 {
            let mut held = vec![0; ranks];
            for (owner, length) in owners(&lengths, ranks).into_iter().zip(&lengths) {
                held[owner] += length;
            }
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 1013, "{held:?}");
        }
    }
}
