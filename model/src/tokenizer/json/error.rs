//! What can be wrong with a `tokenizer.json`.

/// The reason in [`TokenizerError::Invalid`](crate::tokenizer::TokenizerError::Invalid).
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum JsonError {
    /// The file ends before it is complete.
    #[error("it ends at line {line}, column {column}, before it is complete; download it again")]
    Truncated {
        /// The line, from 1.
        line: usize,
        /// The column, from 1.
        column: usize,
    },
    /// The bytes are no JSON.
    #[error("it is no JSON: {reason}; download it again")]
    Syntax {
        /// The parser's words, with the place.
        reason: String,
    },
    /// A value of another type than its key has.
    #[error("{reason}; export it again with Hugging Face tokenizers")]
    Type {
        /// What was found and expected, with the place.
        reason: String,
    },
    /// Values inside values inside values.
    #[error(
        "{part} is nested more than {limit} deep, which no tokenizer needs; export it again with Hugging Face tokenizers"
    )]
    TooDeep {
        /// The key at the top of the file.
        part: String,
        /// The most allowed.
        limit: usize,
    },
    /// More values than a part of a tokenizer has.
    #[error(
        "{part} has more than {limit} values, which no tokenizer needs; export it again with Hugging Face tokenizers"
    )]
    TooLarge {
        /// The key at the top of the file.
        part: String,
        /// The most allowed.
        limit: usize,
    },
    /// A key that is there twice.
    #[error("{place} has the key {key:?} twice; export it again with Hugging Face tokenizers")]
    DuplicateKey {
        /// The object.
        place: String,
        /// The key.
        key: String,
    },
    /// There are no tokens.
    #[error("its vocabulary is empty; take the tokenizer.json that belongs to the model")]
    Empty,
    /// A token that is there twice.
    #[error(
        "the token {token:?} is there twice, with ids {first} and {second}; export it again with Hugging Face tokenizers"
    )]
    DuplicateToken {
        /// Its spelling.
        token: String,
        /// Its first id.
        first: u64,
        /// Its second id.
        second: u64,
    },
    /// Two tokens of one id.
    #[error("the tokens {first:?} and {second:?} both have id {id}; export it again with Hugging Face tokenizers")]
    DuplicateId {
        /// The id.
        id: u32,
        /// One token.
        first: String,
        /// The other one.
        second: String,
    },
    /// An id far above the number of tokens, which would size tables and embeddings.
    #[error(
        "the token {token:?} has id {id}, and there are {tokens} tokens; export it again with Hugging Face tokenizers"
    )]
    IdOutside {
        /// Its spelling.
        token: String,
        /// Its id.
        id: u64,
        /// The number of tokens.
        tokens: usize,
    },
    /// A merge that is not two tokens.
    #[error(
        "merge {index} is not two tokens (\"a b\" or [\"a\", \"b\"]); export it again with Hugging Face tokenizers"
    )]
    MergeForm {
        /// Its place, from 0.
        index: usize,
    },
    /// A merge of, or into, what is no token.
    #[error(
        "merge {index} needs the token {token:?}, which is not in the vocabulary; export it again with Hugging Face tokenizers"
    )]
    MergeToken {
        /// Its place, from 0.
        index: usize,
        /// The token that is missing.
        token: String,
    },
    /// An added token whose id would be another one.
    #[error(
        "the added token {token:?} has id {id} in the file, and {found} by its place; export it again with Hugging Face tokenizers"
    )]
    AddedId {
        /// Its spelling.
        token: String,
        /// The id in the file.
        id: u64,
        /// The id that the vocabulary gives it.
        found: u32,
    },
    /// A table of characters that leads outside itself.
    #[error("the normalizer's precompiled_charsmap is damaged: {reason}; export it again with Hugging Face tokenizers")]
    Charsmap {
        /// What is wrong with it.
        reason: String,
    },
    /// A setting with which the library fails on some texts.
    #[error("{setting}, with which some texts cannot be read; export it again with Hugging Face tokenizers")]
    Setting {
        /// The setting.
        setting: &'static str,
    },
    /// The library refused it.
    #[error("{reason}; export it again with Hugging Face tokenizers")]
    Library {
        /// The library's words.
        reason: String,
    },
}
