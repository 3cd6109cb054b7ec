//! What a token of a SentencePiece or GGUF vocabulary stands for. Both formats use the same codes.

/// The kind of a token, by the codes of `tokenizer.ggml.token_type` and of SentencePiece's `ModelProto.SentencePiece.Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenKind {
    /// A piece of text, code 1.
    Normal,
    /// What stands for anything outside the vocabulary, code 2.
    Unknown,
    /// A mark that no plain text holds, such as the beginning of a text; code 3.
    Control,
    /// A piece that is never divided and never merged, code 4.
    UserDefined,
    /// A row that no text uses, code 5.
    Unused,
    /// One byte of a character outside the vocabulary, spelled `<0x0A>`; code 6.
    Byte,
}

impl TokenKind {
    /// The kind of a code; `None` outside 1 to 6.
    pub fn from_code(code: i32) -> Option<TokenKind> {
        Some(match code {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    /// The code of the kind.
    pub fn code(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }

    /// Whether texts are searched for the token before they are divided.
    pub(super) fn is_added(self) -> bool {
        matches!(self, Self::Unknown | Self::Control | Self::UserDefined)
    }
}

/// The byte of a spelling such as `<0x0A>`: two capital hexadecimal digits, as the library writes and searches them.
pub(super) fn byte_of(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    let digit = |d: u8| matches!(d, b'0'..=b'9' | b'A'..=b'F');
    match digits.as_bytes() {
        &[high, low] if digit(high) && digit(low) => u8::from_str_radix(digits, 16).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_and_bytes_both_ways() {
        let kinds: Vec<_> = (-1..9).filter_map(TokenKind::from_code).collect();
        assert_eq!(
            kinds.iter().map(|kind| kind.code()).collect::<Vec<_>>(),
            [1, 2, 3, 4, 5, 6]
        );
        for byte in 0..=255u8 {
            assert_eq!(byte_of(&format!("<0x{byte:02X}>")), Some(byte));
        }
        for wrong in [
            "<0x-1>", "<0x+1>", "<0xZZ>", "<0x0a>", "<0x1>", "<0x001>", "<0xé>", "0x01", "",
        ] {
            assert_eq!(byte_of(wrong), None, "{wrong}");
        }
    }
}
