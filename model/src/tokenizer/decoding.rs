//! Which bytes a token stands for, by the decoder of the `tokenizer.json`.
//!
//! Two kinds of decoder give each token bytes of its own, whatever stands beside it: the byte-level one and SentencePiece's with byte
//! fallback. With these a text is the bytes of its tokens joined, so decoding is exact, also where the bytes are no UTF-8, and can be done
//! token by token. (The library's own byte fallback turns a whole run of byte tokens into U+FFFD as soon as one of them is wrong.) Any other
//! decoder belongs to the library.

use serde_json::Value;

use super::pieces::SPACE;
use crate::bpe::byte_level;

/// How tokens become text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decoding {
    /// Byte-level: spellings in the alphabet of `bpe::byte_level`.
    ByteLevel,
    /// SentencePiece: `▁` is a space, `<0x0A>` a byte; the text loses up to `strip` spaces at its start.
    Pieces {
        /// Spaces that the normaliser puts there.
        strip: usize,
    },
    /// Through the library, all tokens at once.
    Library,
}

impl Decoding {
    /// That of a `tokenizer.json`'s `decoder`.
    pub(super) fn of(decoder: &Value) -> Decoding {
        if decoder["type"] == "ByteLevel" {
            return Decoding::ByteLevel;
        }
        let all = decoder["decoders"].as_array().map(Vec::as_slice).unwrap_or_default();
        let [replace, fallback, fuse, strip @ ..] = all else {
            return Decoding::Library;
        };
        let spaces = replace["type"] == "Replace" && replace["pattern"]["String"] == SPACE && replace["content"] == " ";
        if !spaces || fallback["type"] != "ByteFallback" || fuse["type"] != "Fuse" {
            return Decoding::Library;
        }
        let strip = match strip {
            [] => Some(0),
            [strip] if strip["type"] == "Strip" && strip["content"] == " " && strip["stop"] == 0 => {
                strip["start"].as_u64()
            }
            _ => None,
        };
        match strip.and_then(|strip| usize::try_from(strip).ok()) {
            Some(strip) => Decoding::Pieces { strip },
            None => Decoding::Library,
        }
    }

    /// Spaces that a text loses at its start.
    pub(super) fn strip(self) -> usize {
        match self {
            Decoding::Pieces { strip } => strip,
            Decoding::ByteLevel | Decoding::Library => 0,
        }
    }

    /// Appends the bytes of a token by its spelling; nothing for [`Decoding::Library`].
    pub(super) fn push(self, spelling: &str, out: &mut Vec<u8>) {
        match self {
            Decoding::ByteLevel => byte_level::push(spelling, out),
            Decoding::Pieces { .. } => match fallback_byte(spelling) {
                Some(byte) => out.push(byte),
                None => out.extend_from_slice(spelling.replace(SPACE, " ").as_bytes()),
            },
            Decoding::Library => {}
        }
    }
}

/// The byte of a token as the library's decoder sees it, which takes what Rust takes for a hexadecimal number.
fn fallback_byte(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// Takes spaces from the start of a text that comes in pieces, until `left` are taken or something else begins.
pub(super) fn strip_start(bytes: &mut Vec<u8>, left: &mut usize) {
    let spaces = bytes.iter().take(*left).take_while(|&&byte| byte == b' ').count();
    *left = if spaces < bytes.len() { 0 } else { *left - spaces };
    bytes.drain(..spaces);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_start_of_a_text_loses_spaces() {
        for (pieces, strip, expected) in [
            (&["  a", " b"][..], 1, " a b"),
            (&["", " ", " ", "a"], 1, " a"),
            (&[" ", " ", "a", " "], 3, "a "),
            (&["a", " "], 2, "a "),
            (&[" "], 0, " "),
        ] {
            let mut left = strip;
            let mut text = Vec::new();
            for piece in pieces {
                let mut piece = piece.as_bytes().to_vec();
                strip_start(&mut piece, &mut left);
                text.extend(piece);
            }
            assert_eq!(text, expected.as_bytes(), "{pieces:?}");
        }
    }
}
