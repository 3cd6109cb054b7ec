//! The byte-level alphabet of GPT-2: each of the 256 bytes is written as one printable character, so that a vocabulary
//! of strings can spell any byte sequence (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).

/// The character of each byte: printable Latin-1 stands for itself, the other 68 bytes become U+0100, U+0101, …
pub(super) const fn alphabet() -> [char; 256] {
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
}

/// The byte of each character of the alphabet, by its code point.
const BYTES: [Option<u8>; 0x180] = {
    let mut bytes = [None; 0x180];
    let chars = alphabet();
    let mut byte = 0;
    while byte < 256 {
        bytes[chars[byte] as usize] = Some(byte as u8);
        byte += 1;
    }
    bytes
};

/// Appends the bytes of a token by its spelling. One with a character outside the alphabet is an added token, which stands for its own
/// text.
pub(super) fn push(spelling: &str, out: &mut Vec<u8>) {
    let start = out.len();
    for c in spelling.chars() {
        match BYTES.get(c as usize).copied().flatten() {
            Some(byte) => out.push(byte),
            None => {
                out.truncate(start);
                out.extend_from_slice(spelling.as_bytes());
                return;
            }
        }
    }
}
