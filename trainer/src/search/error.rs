//! What can go wrong in a search.

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
}
