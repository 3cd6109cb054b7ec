//! MinHash with bands (Broder, "On the resemblance and containment of documents", 1997; Leskovec, Rajaraman and Ullman, "Mining of Massive Datasets", section 3.4).
//!
//! A document is the set of its runs of five words; a word is a run of letters, digits and underscores. Of a random function's values over the set the least is the same in two
//! documents with the probability of their Jaccard similarity J. 128 such functions in 16 bands of 8: two documents share a band, and are near duplicates, with the probability
//! `1 − (1 − J⁸)¹⁶`:
//!
//! | J | 0.4 | 0.5 | 0.6 | 0.7 | 0.8 | 0.9 |
//! |---|---|---|---|---|---|---|
//! | shared | 0.01 | 0.06 | 0.24 | 0.61 | 0.95 | 1.00 |

/// Bands of a document.
pub(super) const BANDS: usize = 16;
/// Functions of a band.
const ROWS: usize = 8;
/// Words of a shingle.
const SHINGLE: usize = 5;

/// The finaliser of SplitMix64 (Steele, Lea and Flood 2014): a bijection whose output bits each depend on all input bits.
fn mix(mut x: u64) -> u64 {
    x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// FNV-1a of a word's bytes.
fn word_hash(word: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    word.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The document's shingles, hashed; a document of fewer words is one.
fn shingles(text: &str) -> Vec<u64> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let words: Vec<u64> = text
        .split(|c| !is_word(c))
        .filter(|word| !word.is_empty())
        .map(word_hash)
        .collect();
    let hash = |words: &[u64]| {
        words
            .iter()
            .fold(words.len() as u64, |hash, word| mix(hash ^ word).rotate_left(5))
    };
    let mut found: Vec<u64> = match words.len() {
        0..SHINGLE => vec![hash(&words)],
        _ => words.windows(SHINGLE).map(hash).collect(),
    };
    found.sort_unstable();
    found.dedup();
    found
}

/// A hash of each band.
pub(super) fn bands(text: &str) -> [u64; BANDS] {
    let mut least = [u64::MAX; BANDS * ROWS];
    let functions: [u64; BANDS * ROWS] =
        std::array::from_fn(|i| mix(0x9e37_79b9_7f4a_7c15u64.wrapping_mul(i as u64 + 1)));
    for shingle in shingles(text) {
        for (least, function) in least.iter_mut().zip(&functions) {
            *least = (*least).min(mix(shingle ^ function));
        }
    }
    std::array::from_fn(|band| {
        let values = &least[band * ROWS..(band + 1) * ROWS];
        values
            .iter()
            .fold(mix(band as u64), |hash, value| mix(hash ^ value).rotate_left(7))
    })
}
