//! The parts of a `tokenizer.json` that are read without a look at anything else: strings, merges, added tokens.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A string, borrowed from the file where it has no escapes.
pub(super) struct Text<'de>(pub Cow<'de, str>);
/// Reads a [`Text`].
pub(super) struct TextSeed;

impl<'de> DeserializeSeed<'de> for TextSeed {
    type Value = Text<'de>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Text<'de>, D::Error> {
        reader.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for TextSeed {
    type Value = Text<'de>;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a token")
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Borrowed(text)))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text<'de>, E> {
        Ok(Text(Cow::Owned(text.to_owned())))
    }
}

/// Reads a [`Merged`].
pub(super) struct Merge;

/// An entry of the list of merges.
pub(super) enum Merged<'de> {
    /// The first line of a merges.txt.
    Header,
    /// Two tokens; none where it is no merge.
    Pair(Option<(Cow<'de, str>, Cow<'de, str>)>),
}

impl<'de> DeserializeSeed<'de> for Merge {
    type Value = Merged<'de>;
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<Self::Value, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Merge {
    type Value = Merged<'de>;
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a merge of two tokens")
    }
    fn visit_borrowed_str<E: serde::de::Error>(self, text: &'de str) -> Result<Self::Value, E> {
        if text.starts_with("#version") {
            return Ok(Merged::Header);
        }
        let pair = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
        Ok(Merged::Pair(pair.map(|(left, right)| (left.into(), right.into()))))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        if text.starts_with("#version") {
            return Ok(Merged::Header);
        }
        let pair = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
        Ok(Merged::Pair(pair.map(|(left, right)| {
            (left.to_owned().into(), right.to_owned().into())
        })))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (left, right) = (seq.next_element_seed(TextSeed)?, seq.next_element_seed(TextSeed)?);
        let more = seq.next_element::<IgnoredAny>()?.is_some();
        Ok(Merged::Pair(match (left, right) {
            (Some(Text(left)), Some(Text(right))) if !more => Some((left, right)),
            _ => None,
        }))
    }
}

/// The list of added tokens; each has all of its keys, so a short file has few of them.
pub(super) struct AddedTokens;

#[derive(Deserialize)]
struct AddedToken {
    #[serde(rename = "id")]
    _id: u64,
    #[serde(rename = "content", deserialize_with = "text")]
    _content: (),
    #[serde(rename = "single_word")]
    _single_word: bool,
    #[serde(rename = "lstrip")]
    _lstrip: bool,
    #[serde(rename = "rstrip")]
    _rstrip: bool,
    #[serde(rename = "normalized")]
    _normalized: bool,
    #[serde(rename = "special")]
    _special: bool,
}

fn text<'de, D: Deserializer<'de>>(reader: D) -> Result<(), D::Error> {
    TextSeed.deserialize(reader).map(|_| ())
}

impl<'de> DeserializeSeed<'de> for AddedTokens {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for AddedTokens {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("a list of added tokens")
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element::<AddedToken>()?.is_some() {}
        Ok(())
    }
}
