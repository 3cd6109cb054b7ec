//! The file is read once without building anything from it but lists of its tokens and merges.
//!
//! The library's reader builds what a file says as it goes, so what would be refused, or cost memory out of proportion, is found here first:
//! nesting, numbers of values, types, tokens and ids that are there twice, ids without sense, merges of what is not there.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::JsonError;
use super::shapes::{AddedTokens, Merge, Merged, Text};

/// Objects and lists inside each other, in parts other than the model's vocabulary: real files have six.
const DEEPEST: usize = 16;
/// Values in a part other than vocabulary, merges and added tokens: real files have some hundreds.
const MOST_VALUES: usize = 1 << 16;

/// Keys of the file and of its model: real files have some ten.
const MOST_KEYS: usize = 64;

/// The highest id that this many tokens can have: some files leave gaps.
pub(super) fn highest_id(tokens: usize) -> u64 {
    4 * tokens as u64 + 65_535
}

/// Tokens and merges of a file, and the first thing wrong with it.
#[derive(Default)]
struct Scan<'de> {
    error: Option<JsonError>,
    tokens: HashMap<Cow<'de, str>, u64>,
    /// The two tokens of each merge.
    merges: Vec<(Cow<'de, str>, Cow<'de, str>)>,
    prefix: Option<String>,
    /// The values of the part that is being read.
    values: usize,
}

/// Looks over the bytes of a `tokenizer.json`.
pub(super) fn scan(json: &[u8]) -> Result<(), JsonError> {
    let mut scan = Scan::default();
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = Top(&mut scan).deserialize(&mut reader).and_then(|()| reader.end());
    if let Some(error) = scan.error.take() {
        return Err(error);
    }
    if let Err(error) = read {
        use serde_json::error::Category;
        return Err(match error.classify() {
            Category::Eof => JsonError::Truncated {
                line: error.line(),
                column: error.column(),
            },
            Category::Data => JsonError::Type {
                reason: error.to_string(),
            },
            Category::Io | Category::Syntax => JsonError::Syntax {
                reason: error.to_string(),
            },
        });
    }
    scan.check_tokens()?;
    scan.check_merges()
}

impl<'de> Scan<'de> {
    /// Keeps the error and stops the reader.
    fn stop<E: serde::de::Error>(&mut self, error: JsonError) -> E {
        self.error.get_or_insert(error);
        E::custom("stopped")
    }

    fn check_tokens(&self) -> Result<(), JsonError> {
        let mut by_id: Vec<(u64, &str)> = self.tokens.iter().map(|(token, &id)| (id, &**token)).collect();
        by_id.sort_unstable();
        if let Some(&(id, token)) = by_id.last().filter(|(id, _)| *id > highest_id(by_id.len())) {
            return Err(JsonError::IdOutside {
                token: token.to_owned(),
                id,
                tokens: by_id.len(),
            });
        }
        match by_id.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            Some(pair) => Err(JsonError::DuplicateId {
                id: u32::try_from(pair[0].0).unwrap_or(u32::MAX),
                first: pair[0].1.to_owned(),
                second: pair[1].1.to_owned(),
            }),
            None => Ok(()),
        }
    }

    fn check_merges(&self) -> Result<(), JsonError> {
        // The library takes the prefix's length from the right token without looking.
        let prefix = self.prefix.as_deref().unwrap_or_default();
        let missing = |index, token: &str| {
            Err(JsonError::MergeToken {
                index,
                token: token.to_owned(),
            })
        };
        let mut joint = String::new();
        for (index, (left, right)) in self.merges.iter().enumerate() {
            if let Some(token) = [left, right]
                .into_iter()
                .find(|token| !self.tokens.contains_key(*token))
            {
                return missing(index, token);
            }
            joint.clear();
            joint.push_str(left);
            match right.get(prefix.len()..) {
                Some(rest) => joint.push_str(rest),
                None => return Err(JsonError::MergeForm { index }),
            }
            if !self.tokens.contains_key(joint.as_str()) {
                return missing(index, &joint);
            }
        }
        Ok(())
    }
}

/// The keys of an object, none of which may be there twice.
struct Keys {
    place: &'static str,
    seen: Vec<String>,
}

impl Keys {
    fn of(place: &'static str) -> Self {
        Self {
            place,
            seen: Vec::new(),
        }
    }

    fn add(&mut self, key: &str) -> Result<(), JsonError> {
        if self.has(key) {
            return Err(JsonError::DuplicateKey {
                place: self.place.to_owned(),
                key: key.to_owned(),
            });
        }
        if self.seen.len() == MOST_KEYS {
            return Err(JsonError::TooLarge {
                part: self.place.to_owned(),
                limit: MOST_KEYS,
            });
        }
        self.seen.push(key.to_owned());
        Ok(())
    }

    fn has(&self, key: &str) -> bool {
        self.seen.iter().any(|seen| seen == key)
    }
}

/// The object at the top.
struct Top<'s, 'de>(&'s mut Scan<'de>);

impl<'de> DeserializeSeed<'de> for Top<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Top<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object with a model")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = Keys::of("the file");
        while let Some(key) = map.next_key::<String>()? {
            keys.add(&key).map_err(|error| self.0.stop(error))?;
            self.0.values = 0;
            match key.as_str() {
                "model" => map.next_value_seed(Model(self.0))?,
                "added_tokens" => map.next_value_seed(AddedTokens)?,
                _ => map.next_value_seed(Any {
                    scan: self.0,
                    part: &key,
                    depth: 0,
                })?,
            }
        }
        match keys.has("model") {
            true => Ok(()),
            false => Err(A::Error::missing_field("model")),
        }
    }
}

/// The object under `model`.
struct Model<'s, 'de>(&'s mut Scan<'de>);

impl<'de> DeserializeSeed<'de> for Model<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Model<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a model with a vocabulary")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = Keys::of("model");
        while let Some(key) = map.next_key::<String>()? {
            keys.add(&key).map_err(|error| self.0.stop(error))?;
            match key.as_str() {
                "vocab" => map.next_value_seed(Vocab(self.0))?,
                "merges" => map.next_value_seed(Merges(self.0))?,
                "continuing_subword_prefix" => self.0.prefix = map.next_value()?,
                _ => map.next_value_seed(Any {
                    scan: self.0,
                    part: &key,
                    depth: 0,
                })?,
            }
        }
        match keys.has("vocab") {
            true => Ok(()),
            false => Err(A::Error::missing_field("vocab")),
        }
    }
}

/// Tokens with ids, or, for Unigram, a list of tokens with scores.
struct Vocab<'s, 'de>(&'s mut Scan<'de>);

impl<'de> DeserializeSeed<'de> for Vocab<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Vocab<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a vocabulary of tokens")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(token)) = map.next_key()? {
            let id: u64 = map.next_value()?;
            if let Some(first) = self.0.tokens.insert(token.clone(), id) {
                return Err(self.0.stop(JsonError::DuplicateToken {
                    token: token.into_owned(),
                    first,
                    second: id,
                }));
            }
        }
        match self.0.tokens.is_empty() {
            true => Err(self.0.stop(JsonError::Empty)),
            false => Ok(()),
        }
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let mut tokens = 0;
        while let Some((_, _)) = seq.next_element::<(Text<'de>, f64)>()? {
            tokens += 1;
        }
        match tokens {
            0 => Err(self.0.stop(JsonError::Empty)),
            _ => Ok(()),
        }
    }
}

/// Merges, as strings or as pairs.
struct Merges<'s, 'de>(&'s mut Scan<'de>);

impl<'de> DeserializeSeed<'de> for Merges<'_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Merges<'_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of merges")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(merge) = seq.next_element_seed(Merge)? {
            match merge {
                // The first line of a merges.txt, which the library passes over.
                Merged::Header => {}
                Merged::Pair(Some(pair)) => self.0.merges.push(pair),
                // At once: a list of what is no merge would be longer than its file.
                Merged::Pair(None) => {
                    let index = self.0.merges.len();
                    return Err(self.0.stop(JsonError::MergeForm { index }));
                }
            }
        }
        Ok(())
    }
}

/// Any value of a part, counted.
struct Any<'s, 'k, 'de> {
    scan: &'s mut Scan<'de>,
    part: &'k str,
    depth: usize,
}

impl<'de> Any<'_, '_, 'de> {
    fn count<E: serde::de::Error>(&mut self) -> Result<(), E> {
        self.scan.values += 1;
        let part = || self.part.to_owned();
        if self.scan.values > MOST_VALUES {
            let error = JsonError::TooLarge {
                part: part(),
                limit: MOST_VALUES,
            };
            return Err(self.scan.stop(error));
        }
        if self.depth > DEEPEST {
            let error = JsonError::TooDeep {
                part: part(),
                limit: DEEPEST,
            };
            return Err(self.scan.stop(error));
        }
        Ok(())
    }

    fn inside(&mut self) -> Any<'_, '_, 'de> {
        Any {
            scan: self.scan,
            part: self.part,
            depth: self.depth + 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Any<'_, '_, 'de> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(mut self, reader: D) -> Result<(), D::Error> {
        self.count()?;
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Any<'_, '_, 'de> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.inside())?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        while map.next_key::<IgnoredAny>()?.is_some() {
            map.next_value_seed(self.inside())?;
        }
        Ok(())
    }
}
