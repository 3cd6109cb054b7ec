//! What can go wrong with training data, and what to do about it.

use std::path::PathBuf;

use onebit_model::tokenizer::TokenizerError;

/// What to do about a refused file operation.
fn advice(source: &std::io::Error) -> &'static str {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    match source.kind() {
        StorageFull | QuotaExceeded | FileTooLarge => "free some space there, or write elsewhere",
        _ => "check that the path exists and may be used",
    }
}

/// An error of reading text, or of writing and reading token files.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what each message names")]
pub enum DataError {
    /// The system refused a file operation.
    #[error("cannot {action} {path}: {source}; {}", advice(source))]
    Io {
        path: PathBuf,
        action: &'static str,
        source: std::io::Error,
    },
    /// Nothing is overwritten unasked.
    #[error("{path} exists already; give another name or --force")]
    Exists { path: PathBuf },
    /// The file does not begin like a token file.
    #[error(
        "{path} is not a token file: expected the magic `1BTK` or `TKN2`, found {found}; make one with `onebit tokenize`"
    )]
    NotTokens { path: PathBuf, found: String },
    /// A version that this program does not know.
    #[error("{path} has token file version {found}, expected {expected}; tokenize the text again or update onebit")]
    Version { path: PathBuf, expected: u32, found: u32 },
    /// The file is shorter or longer than its header says.
    #[error(
        "{path} has {found} bytes, expected {expected} for {what}; it was cut off or damaged: copy it or tokenize again"
    )]
    Length {
        path: PathBuf,
        what: &'static str,
        expected: u64,
        found: u64,
    },
    /// The header contradicts itself.
    #[error("{path} has a damaged header: {what} is {found}, expected {expected}; copy it or tokenize again")]
    Header {
        path: PathBuf,
        what: &'static str,
        expected: String,
        found: String,
    },
    /// The bytes are not those that were written.
    #[error("{path} is damaged: the {part} checksum is {found}, expected {expected}; copy it or tokenize again")]
    Checksum {
        path: PathBuf,
        part: &'static str,
        expected: String,
        found: String,
    },
    /// A token id beyond the vocabulary.
    #[error(
        "{path} holds token id {id} at position {position}, expected ids below {vocab_size}; use the tokenizer and model that belong to the file"
    )]
    IdOutOfRange {
        path: PathBuf,
        position: u64,
        id: u32,
        vocab_size: u64,
    },
    /// More was asked for than there is.
    #[error("{path} has {found} {what}, and {start}..{end} were asked for; stay inside the file")]
    OutOfRange {
        path: PathBuf,
        what: &'static str,
        start: u64,
        end: u64,
        found: u64,
    },
    /// The corpus was made with another tokenizer.
    #[error("{path} was made with tokenizer {found}, expected {expected}; tokenize the text again with this tokenizer")]
    Tokenizer {
        path: PathBuf,
        expected: String,
        found: String,
    },
    /// No window of the length fits.
    #[error(
        "the data has {tokens} tokens, expected at least {needed} for a window of --seq-len {seq_len} and its last target; use more data or a shorter window"
    )]
    WindowTooLong { tokens: u64, needed: u64, seq_len: usize },
    /// No file to read was found.
    #[error(
        "no text was found in {inputs}; expected .txt, .raw, .jsonl or .parquet files (also .gz, .zst) that are not empty"
    )]
    NoText { inputs: String },
    /// The text is not UTF-8.
    #[error("{path} is not UTF-8 at byte {offset}{place}; convert it to UTF-8 first")]
    Utf8 { path: PathBuf, offset: u64, place: String },
    /// A line of JSON could not be used.
    #[error("{path}, line {line}: {reason}; expected one JSON object a line with a string `text` or `content`")]
    Json { path: PathBuf, line: u64, reason: String },
    /// A parquet file could not be read.
    #[error("cannot read the parquet file {path}: {reason}; check that the download is complete")]
    Parquet { path: PathBuf, reason: String },
    /// A parquet file without text.
    #[error("{path} has the columns {found}, expected a text column `content` or `text`; rename the column")]
    NoTextColumn { path: PathBuf, found: String },
    /// A kind of file that cannot be used as text.
    #[error("{path} cannot be read as text: {reason}")]
    Unsupported { path: PathBuf, reason: &'static str },
    /// Decoding does not give the text back.
    #[error(
        "{path}: the tokenizer loses the text at byte {offset} of the document: expected {expected:?}, found {found:?}; train a tokenizer with `onebit tokenizer train --kind bpe`"
    )]
    RoundTrip {
        path: PathBuf,
        offset: u64,
        expected: String,
        found: String,
    },
    /// From the tokenizer itself.
    #[error(transparent)]
    Encoding(#[from] TokenizerError),
    /// The caller asked to stop.
    #[error("stopped before the end; nothing was written; run the command again")]
    Interrupted,
}

/// A hash in hexadecimal, as the messages show it.
pub(super) fn hex(bytes: &[u8; 32]) -> String {
    blake3::Hash::from_bytes(*bytes).to_hex().to_string()
}
