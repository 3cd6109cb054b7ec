//! Protobuf's wire format, as far as a SentencePiece model needs it.
//!
//! A message is a list of fields, each a number, a wire type and a value; a value that is a message itself is a slice of the file. Reading is
//! fifty lines over a slice, and nothing is copied or allocated, so that no length in a file can ask for memory. A protobuf library would
//! need generated code and would own every string.

use super::SentencePieceError;

type Result<T> = std::result::Result<T, SentencePieceError>;

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    /// A whole number, a truth value or an enum.
    Varint(u64),
    /// Four bytes: a float.
    Fixed32(u32),
    /// Eight bytes.
    Fixed64(u64),
    /// A string, bytes or a message.
    Bytes(Message<'a>),
}

/// A field of a message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Field<'a> {
    /// Its number.
    pub number: u64,
    /// Where in the file it begins.
    pub offset: usize,
    /// Its value.
    pub value: Value<'a>,
}

/// A slice of the file, and where it begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Message<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    offset: usize,
}

impl<'a> Message<'a> {
    /// The whole file.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// The next field; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Field<'a>>> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let offset = self.offset;
        let tag = self.varint()?;
        let (number, wire_type) = (tag >> 3, (tag & 7) as u8);
        let value = match wire_type {
            0 if number > 0 => Value::Varint(self.varint()?),
            1 if number > 0 => Value::Fixed64(u64::from_le_bytes(self.fixed(offset)?)),
            2 if number > 0 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length, offset)?)
            }
            5 if number > 0 => Value::Fixed32(u32::from_le_bytes(self.fixed(offset)?)),
            _ => {
                return Err(SentencePieceError::Tag {
                    offset,
                    field: number,
                    wire_type,
                });
            }
        };
        Ok(Some(Field { number, offset, value }))
    }

    /// Takes `length` bytes of the field that begins at `offset`.
    fn take(&mut self, length: u64, offset: usize) -> Result<Message<'a>> {
        let short = SentencePieceError::Truncated {
            offset,
            needed: length,
            left: self.bytes.len(),
        };
        let split = usize::try_from(length)
            .ok()
            .and_then(|length| self.bytes.split_at_checked(length));
        let (bytes, rest) = split.ok_or(short)?;
        let taken = Message {
            bytes,
            offset: self.offset,
        };
        self.offset += bytes.len();
        self.bytes = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self, offset: usize) -> Result<[u8; N]> {
        let bytes = self.take(N as u64, offset)?.bytes;
        bytes.first_chunk().copied().ok_or(SentencePieceError::Truncated {
            offset,
            needed: N as u64,
            left: bytes.len(),
        })
    }

    /// Seven bits a byte, the lowest first; the top bit says that more follow.
    fn varint(&mut self) -> Result<u64> {
        let offset = self.offset;
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1, offset)?.bytes.first().copied().unwrap_or_default();
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(SentencePieceError::Varint { offset })
    }
}

impl<'a> Field<'a> {
    fn wrong(&self, field: &'static str, expected: &'static str) -> SentencePieceError {
        let found = match self.value {
            Value::Varint(_) => "a whole number",
            Value::Fixed32(_) => "four bytes",
            Value::Fixed64(_) => "eight bytes",
            Value::Bytes(_) => "a string",
        };
        SentencePieceError::Type {
            field,
            offset: self.offset,
            found,
            expected,
        }
    }

    /// The value as a message or bytes.
    pub(super) fn message(&self, field: &'static str) -> Result<Message<'a>> {
        match self.value {
            Value::Bytes(message) => Ok(message),
            _ => Err(self.wrong(field, "a message")),
        }
    }

    /// The value as a string.
    pub(super) fn string(&self, field: &'static str) -> Result<&'a str> {
        let Value::Bytes(message) = self.value else {
            return Err(self.wrong(field, "a string"));
        };
        std::str::from_utf8(message.bytes).map_err(|_| SentencePieceError::Utf8 {
            field,
            offset: self.offset,
        })
    }

    /// The value as a float.
    pub(super) fn float(&self, field: &'static str) -> Result<f32> {
        match self.value {
            Value::Fixed32(bits) => Ok(f32::from_bits(bits)),
            _ => Err(self.wrong(field, "a float")),
        }
    }

    /// The value as a whole number, a truth value or an enum.
    pub(super) fn number(&self, field: &'static str) -> Result<u64> {
        match self.value {
            Value::Varint(number) => Ok(number),
            _ => Err(self.wrong(field, "a whole number")),
        }
    }
}
