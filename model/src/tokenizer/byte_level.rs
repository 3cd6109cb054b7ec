//! The byte-level alphabet of GPT-2: each of the 256 bytes is written as one printable character, so that a vocabulary
//! of strings can spell any byte sequence (Radford et al., "Language Models are Unsupervised Multitask Learners", 2019).

/// The character of each byte: printable Latin-1 stands for itself, the other 68 bytes become U+0100, U+0101, …
pub(super) fn alphabet() -> [char; 256] {
    let mut chars = ['\0'; 256];
    let mut next = 0x100u32;
    for (byte, slot) in chars.iter_mut().enumerate() {
        let own = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
        let code = if own { byte as u32 } else { next };
        next += u32::from(!own);
        *slot = char::from_u32(code).unwrap_or('\0');
    }
    chars
}

/// The bytes of every token of a byte-level vocabulary, end to end.
pub(super) struct ByteTable {
    bytes: Vec<u8>,
    /// Token `id` is `bytes[starts[id]..starts[id + 1]]`.
    starts: Vec<u32>,
    known: Vec<bool>,
}

impl ByteTable {
    /// From the token strings in id order; `None` for an id that no token has.
    pub(super) fn new<'a>(tokens: impl Iterator<Item = Option<&'a str>>) -> ByteTable {
        let mut byte_of = [None; 0x180];
        for (byte, c) in alphabet().into_iter().enumerate() {
            byte_of[c as usize] = Some(byte as u8);
        }
        let mut table = ByteTable {
            bytes: Vec::new(),
            starts: vec![0],
            known: Vec::new(),
        };
        for token in tokens {
            let start = table.bytes.len();
            for c in token.unwrap_or("").chars() {
                match byte_of.get(c as usize).copied().flatten() {
                    Some(byte) => table.bytes.push(byte),
                    None => {
                        // A character outside the alphabet: an added token, which stands for its own text.
                        table.bytes.truncate(start);
                        table.bytes.extend_from_slice(token.unwrap_or("").as_bytes());
                        break;
                    }
                }
            }
            table.starts.push(table.bytes.len() as u32);
            table.known.push(token.is_some());
        }
        table
    }

    /// The bytes of one token; `None` if the vocabulary has no such id.
    pub(super) fn get(&self, id: u32) -> Option<&[u8]> {
        let index = id as usize;
        if !*self.known.get(index)? {
            return None;
        }
        self.bytes
            .get(*self.starts.get(index)? as usize..*self.starts.get(index + 1)? as usize)
    }
}
