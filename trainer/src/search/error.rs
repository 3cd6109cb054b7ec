//! What can go wrong in a search.

use std::path::PathBuf;

/// Sites, a table or options that make no sense.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what each message names")]
pub enum SetupError {
    /// Nothing to choose from, or too much.
    #[error("{site}: expected 1 to 10 widths to choose from, found {count}")]
    Choices { site: String, count: usize },
    /// A width that is listed again.
    #[error("{site}: {width} is listed twice")]
    WidthTwice { site: String, width: &'static str },
    /// More bytes than can be counted.
    #[error("the largest map passes 2^64 bytes; report this")]
    TooLarge,
    /// A table of other sites.
    #[error("the sensitivity table has {found} rows and there are {sites} sites; measure it again")]
    Rows { sites: usize, found: usize },
    /// A row of another site.
    #[error("{site}: the sensitivity table has {found} numbers for {choices} widths; measure it again")]
    Row { site: String, choices: usize, found: usize },
    /// A number that is none.
    #[error("{site}: the sensitivity table has {rise}; expected a number or +inf")]
    Rise { site: String, rise: f64 },
    /// An evaluator without token counts, or with some that do not grow.
    #[error("the token counts of the evaluation are {stages:?}; expected at least one, each above the one before")]
    Stages { stages: Vec<usize> },
    /// No limit that the bytes could be least under.
    #[error("least bytes are sought under a limit of the loss; give one")]
    NoMaxLoss,
    /// A limit that is no number.
    #[error("a loss of at most {0} was asked for; give a number")]
    MaxLoss(f64),
    /// A search that would make nothing.
    #[error("{option} is 0; give at least 1")]
    Zero { option: &'static str },
}

/// A journal that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what each message names")]
pub enum JournalError {
    /// The system.
    #[error("{}: {source}; check the space and the permissions there", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    /// Something else has that name.
    #[error("{}: this is no journal of a search; give another place", path.display())]
    Foreign { path: PathBuf },
    /// Another model, text or set of widths.
    #[error(
        "{}: this journal is of other inputs (it has {found}, these have {expected}); give them again, or another place", path.display()
    )]
    Hash {
        path: PathBuf,
        expected: String,
        found: String,
    },
    /// A line that no search wrote.
    #[error("{}: line {line}: {why}; remove the journal and begin anew", path.display())]
    Line { path: PathBuf, line: usize, why: String },
}

/// What can go wrong in a search; `E` is the error of an evaluation.
#[derive(Debug, thiserror::Error)]
pub enum SearchError<E> {
    /// Its inputs.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// Its journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// An evaluation, which is told as it is.
    #[error("{0}")]
    Evaluation(E),
}
