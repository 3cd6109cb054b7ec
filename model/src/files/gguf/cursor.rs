//! Reading a file from front to back without ever leaving it.

use super::error::GgufError;
use super::value::{Array, Value, ValueType};

/// What is being read, told when it cannot be.
pub(super) type What<'w> = &'w dyn Fn() -> String;

/// A position in a file's bytes.
pub(super) struct Cursor<'a> {
    pub bytes: &'a [u8],
    pub at: usize,
}

impl<'a> Cursor<'a> {
    /// The next `n` bytes.
    pub fn take(&mut self, n: u64, what: What<'_>) -> Result<&'a [u8], GgufError> {
        let end = usize::try_from(n).ok().and_then(|n| self.at.checked_add(n));
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(found) => {
                self.at += found.len();
                Ok(found)
            }
            None => Err(GgufError::Truncated {
                what: what(),
                at: self.at,
                need: n,
                len: self.bytes.len(),
            }),
        }
    }

    fn fixed<const N: usize>(&mut self, what: What<'_>) -> Result<[u8; N], GgufError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub fn u32(&mut self, what: What<'_>) -> Result<u32, GgufError> {
        Ok(u32::from_le_bytes(self.fixed(what)?))
    }

    pub fn u64(&mut self, what: What<'_>) -> Result<u64, GgufError> {
        Ok(u64::from_le_bytes(self.fixed(what)?))
    }

    /// A text: its length and its bytes.
    pub fn text(&mut self, what: What<'_>) -> Result<&'a str, GgufError> {
        let length = self.u64(what)?;
        let bytes = self.take(length, what)?;
        std::str::from_utf8(bytes).map_err(|_| GgufError::Utf8 { what: what() })
    }

    /// A value of the type `kind`, of key `key`.
    pub fn value(&mut self, kind: ValueType, key: &str) -> Result<Value, GgufError> {
        let what: What<'_> = &|| format!("the value of key {key}");
        Ok(match kind {
            ValueType::U8 => Value::Unsigned(u8::from_le_bytes(self.fixed(what)?).into()),
            ValueType::U16 => Value::Unsigned(u16::from_le_bytes(self.fixed(what)?).into()),
            ValueType::U32 => Value::Unsigned(u32::from_le_bytes(self.fixed(what)?).into()),
            ValueType::U64 => Value::Unsigned(u64::from_le_bytes(self.fixed(what)?)),
            ValueType::I8 => Value::Signed(i8::from_le_bytes(self.fixed(what)?).into()),
            ValueType::I16 => Value::Signed(i16::from_le_bytes(self.fixed(what)?).into()),
            ValueType::I32 => Value::Signed(i32::from_le_bytes(self.fixed(what)?).into()),
            ValueType::I64 => Value::Signed(i64::from_le_bytes(self.fixed(what)?)),
            ValueType::F32 => Value::F32(f32::from_le_bytes(self.fixed(what)?)),
            ValueType::F64 => Value::F64(f64::from_le_bytes(self.fixed(what)?)),
            ValueType::Bool => {
                let [found] = self.fixed(what)?;
                Value::Bool(truth(found, key)?)
            }
            ValueType::Text => Value::Text(self.text(what)?.to_string()),
            ValueType::Array => Value::Array(self.array(key)?),
        })
    }

    /// The type of a value of key `key`.
    pub fn value_type(&mut self, key: &str) -> Result<ValueType, GgufError> {
        let found = self.u32(&|| format!("the type of key {key}"))?;
        ValueType::by_id(found).ok_or_else(|| GgufError::ValueType {
            key: key.to_string(),
            found,
        })
    }

    /// An array: it is walked over, so that its end is known and what is in it is valid, and left where it lies.
    fn array(&mut self, key: &str) -> Result<Array, GgufError> {
        let what: What<'_> = &|| format!("the array of key {key}");
        let element = self.value_type(key)?;
        if element == ValueType::Array {
            return Err(GgufError::NestedArray { key: key.to_string() });
        }
        let count = self.u64(what)?;
        let most = (self.bytes.len() - self.at) / element.least_bytes();
        let count = match usize::try_from(count) {
            Ok(count) if count <= most => count,
            _ => {
                return Err(GgufError::Count {
                    what: "array elements",
                    found: count,
                    most: most as u64,
                });
            }
        };
        let start = self.at;
        match element {
            ValueType::Text => {
                for _ in 0..count {
                    self.text(what)?;
                }
            }
            ValueType::Bool => {
                for &found in self.take(count as u64, what)? {
                    truth(found, key)?;
                }
            }
            _ => {
                self.take((count * element.least_bytes()) as u64, what)?;
            }
        }
        Ok(Array {
            element,
            count,
            place: start..self.at,
        })
    }
}

fn truth(found: u8, key: &str) -> Result<bool, GgufError> {
    match found {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(GgufError::Bool {
            key: key.to_string(),
            found,
        }),
    }
}
