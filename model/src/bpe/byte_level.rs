//! The byte-level alphabet of GPT-2: each of the 256 bytes is written as one printable character, so that a vocabulary
//! of strings can spell any byte sequence (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).

use alloc::string::String;
use alloc::vec::Vec;

/// The character of each byte: printable Latin-1 stands for itself, the other 68 bytes become U+0100, U+0101, …
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated when the crate is compiled"
)]
const ALPHABET: [char; 256] = {
    let mut chars = ['\0'; 256];
    let mut next = 0x100u32;
    let mut byte = 0;
    while byte < 256 {
        let own = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if own { byte as u32 } else { next };
        next += !own as u32;
        if let Some(c) = char::from_u32(code) {
            chars[byte] = c;
        }
        byte += 1;
    }
    chars
};

/// The byte of each character of the alphabet, by its code point.
#[allow(
    clippy::arithmetic_side_effects,
    clippy::indexing_slicing,
    reason = "evaluated when the crate is compiled"
)]
static BYTES: [Option<u8>; 0x180] = {
    let mut bytes = [None; 0x180];
    let mut byte = 0;
    while byte < 256 {
        bytes[ALPHABET[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
};

/// The character of each byte.
pub(crate) const fn alphabet() -> [char; 256] {
    ALPHABET
}

/// The byte of a character of the alphabet.
pub(crate) fn byte_of(c: char) -> Option<u8> {
    BYTES.get(usize::try_from(u32::from(c)).ok()?).copied().flatten()
}

/// Appends the bytes of a token by its spelling. One with a character outside the alphabet is an added token, which stands for its own
/// text.
pub(crate) fn push(spelling: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in spelling.chars() {
        match byte_of(c) {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(spelling.as_bytes());
                return;
            }
        }
    }
}

/// Appends what spells `bytes`.
pub(super) fn spell(bytes: &[u8], out: &mut String) {
    out.extend(bytes.iter().filter_map(|&byte| ALPHABET.get(usize::from(byte))));
}
