//! The table with which SentencePiece rewrites characters, looked over before it is used.
//!
//! ```text
//! u32 bytes of the trie | trie: u32 units | texts, each ending in a zero byte
//! ```
//!
//! The trie is a double array (darts-clone): a unit has a label (bits 0 to 7, bit 31 set in values), bit 8 says that a value hangs below, and
//! the rest is an offset; from place `p` byte `b` leads to `p ^ b`, if the unit there has that label, and on to `p ^ b ^ offset`. A value is
//! a place in the texts. The `tokenizers` library follows all of this without looking where it leads, so each way is walked here first.

/// Why a table cannot be used; `Ok` if every way through it stays inside.
pub(super) fn check(table: &[u8]) -> Result<(), String> {
    let (size, rest) = table.split_first_chunk().ok_or("it is shorter than its length")?;
    let size = u32::from_le_bytes(*size) as usize;
    if !size.is_multiple_of(4) {
        return Err(format!("its trie has {size} bytes, expected a multiple of 4"));
    }
    let (trie, texts) = rest
        .split_at_checked(size)
        .ok_or_else(|| format!("its trie should have {size} bytes, and {} are left", rest.len()))?;
    let texts = std::str::from_utf8(texts).map_err(|_| "its texts are not UTF-8")?;
    let units: Vec<u32> = trie
        .chunks_exact(4)
        .map(|unit| unit.iter().rev().fold(0, |word, &byte| word << 8 | u32::from(byte)))
        .collect();
    let root = *units.first().ok_or("its trie is empty")?;

    // Units by the place they are reached from; a label of zero never matches.
    let mut below: Vec<(usize, usize)> = (units.iter().enumerate())
        .map(|(at, unit)| (at, (unit & 0x8000_00ff) as usize))
        .filter(|&(_, label)| (1..256).contains(&label))
        .map(|(at, label)| (at ^ label, at))
        .collect();
    below.sort_unstable();
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(root)];
    while let Some(place) = open.pop() {
        if place | 0xff >= units.len() {
            return Err(format!("its trie leads to unit {} of {}", place | 0xff, units.len()));
        }
        if std::mem::replace(&mut seen[place], true) {
            continue;
        }
        let first = below.partition_point(|&(from, _)| from < place);
        for &(_, at) in below[first..].iter().take_while(|&&(from, _)| from == place) {
            let unit = units[at];
            let next = at ^ offset(unit);
            if unit >> 8 & 1 == 1 {
                let value = units
                    .get(next)
                    .ok_or_else(|| format!("its trie leads to unit {next} of {}", units.len()))?;
                let text = (value & 0x7fff_ffff) as usize;
                if !texts.is_char_boundary(text) {
                    return Err(format!("a value is place {text} of {} bytes of text", texts.len()));
                }
            }
            open.push(next);
        }
    }
    Ok(())
}

fn offset(unit: u32) -> usize {
    ((unit >> 10) as usize) << ((unit & 1 << 9) >> 6)
}
