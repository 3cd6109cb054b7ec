//! The parts of a `tokenizer.json` that are read without a look at anything else: strings, merges, added tokens.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, SeqAccess, Visitor};

/// A string, borrowed from the file where it has no escapes.
#[derive(Deserialize)]
pub(super) struct Text<'t>(#[serde(borrow)] pub Cow<'t, str>);

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
        Ok(merged(text, Cow::Borrowed))
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        Ok(merged(text, |token| Cow::Owned(token.to_owned())))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let (left, right) = (seq.next_element()?, seq.next_element()?);
        let more = seq.next_element::<IgnoredAny>()?.is_some();
        Ok(Merged::Pair(match (left, right) {
            (Some(Text(left)), Some(Text(right))) if !more => Some((left, right)),
            _ => None,
        }))
    }
}

/// The entry that a string stands for.
fn merged<'t, 'de>(text: &'t str, token: impl Fn(&'t str) -> Cow<'de, str>) -> Merged<'de> {
    if text.starts_with("#version") {
        return Merged::Header;
    }
    let pair = text.split_once(' ').filter(|(_, right)| !right.contains(' '));
    Merged::Pair(pair.map(|(left, right)| (token(left), token(right))))
}

/// The list of added tokens; each has all of its keys, so a short file has few of them.
pub(super) struct AddedTokens;

#[derive(Deserialize)]
struct AddedToken<'t> {
    #[serde(rename = "id")]
    _id: u64,
    #[serde(rename = "content", borrow)]
    _content: Text<'t>,
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
        while seq.next_element::<AddedToken<'de>>()?.is_some() {}
        Ok(())
    }
}
