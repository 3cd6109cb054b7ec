//! Why a conversation could not be put into text.

use std::path::PathBuf;

/// An error of a chat template.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChatError {
    /// A file that is there and cannot be read.
    #[error("cannot read {}: {source}; check its permissions", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's account.
        source: std::io::Error,
    },
    /// A file that cannot be written.
    #[error("cannot write {}: {source}; check the path and the free space", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's account.
        source: std::io::Error,
    },
    /// A JSON file that cannot be used.
    #[error("{}: {message}; correct the file or fetch it again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// The template is not valid, or refused the conversation.
    #[error("chat template of {origin}: {message}; correct the template, or change what it complains of")]
    Template {
        /// The file.
        origin: String,
        /// What is wrong.
        message: String,
    },
    /// The template would take more memory or time than a template may.
    #[error("chat template of {origin}: {message}; it may be meant to do harm: use another template")]
    Limit {
        /// The file.
        origin: String,
        /// Which bound, and where.
        message: String,
    },
}
