//! What can go wrong between here and the Hub, and what to do about it.

use std::path::PathBuf;

/// An error of the Hub client. No message holds a token or the query of an address, which may be a signature.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the fields are what each message names")]
pub enum HubError {
    /// A setting that cannot be used.
    #[error("{setting}: {why}")]
    Setting { setting: &'static str, why: String },
    /// A name that would not be one on the Hub, or would leave its folder.
    #[error("{what} {name:?}: expected {expected}")]
    Name {
        what: &'static str,
        name: String,
        expected: &'static str,
    },
    /// The system refused a file operation.
    #[error("cannot {action} {}: {source}; check that the path exists and may be used", path.display())]
    Io {
        path: PathBuf,
        action: &'static str,
        source: std::io::Error,
    },
    /// No room for what is downloaded.
    #[error("cannot write {}: {source}; make room there and run the command again: what was downloaded is kept and taken up", path.display())]
    DiskFull { path: PathBuf, source: std::io::Error },
    /// Another process downloads the same file.
    #[error("{} is being downloaded by another process; wait for it or stop it", path.display())]
    Busy { path: PathBuf },
    /// Too many attempts in a row that came to nothing.
    #[error(
        "{address}: {what}, {attempts} times in a row; check the network and run the command again: what was downloaded is kept and taken up"
    )]
    Unreachable {
        address: String,
        what: String,
        attempts: u32,
    },
    /// A secure connection that could not be made.
    #[error(
        "{address}: no secure connection: {what}; check the clock of this machine and what stands between it and the Hub"
    )]
    Secure { address: String, what: String },
    /// An answer that another attempt would not change.
    #[error("{address}: the server answers {status}{message}; check the names, or try later")]
    Status {
        address: String,
        status: u16,
        message: String,
    },
    /// Terms that must be accepted first.
    #[error(
        "the data set {dataset} is gated{message}; accept its terms on its page at the Hub while logged in, and set HF_TOKEN to a token of that account that may read"
    )]
    Gated { dataset: String, message: String },
    /// A token that the Hub does not take.
    #[error(
        "the Hub does not take the token for {dataset}{message}; set HF_TOKEN to one that may read it, or unset it for public data"
    )]
    TokenRefused { dataset: String, message: String },
    /// A token that was taken before.
    #[error(
        "the token was taken for {dataset} before and is not any more: it has expired or was withdrawn; set HF_TOKEN to a new one and run the command again: what was downloaded is kept and taken up"
    )]
    TokenExpired { dataset: String },
    /// No such data set, or none that may be known.
    #[error("the Hub has no data set {dataset}; check the name, and set HF_TOKEN if it is private")]
    NoDataset { dataset: String },
    /// No such revision.
    #[error(
        "the data set {dataset} has no revision {revision}; give a branch, a tag or a commit that it has, such as main"
    )]
    NoRevision { dataset: String, revision: String },
    /// No such file or folder.
    #[error("the data set {dataset} has no {entry} at that revision; check the name")]
    NoEntry { dataset: String, entry: String },
    /// An answer that makes no sense.
    #[error("{address}: {what}; check that HF_ENDPOINT is a Hub")]
    Answer { address: String, what: String },
    /// A redirect that is not followed.
    #[error("{address}: {what}; check HF_ENDPOINT")]
    Redirect { address: String, what: String },
    /// Not the length that the listing told.
    #[error(
        "{path} of {dataset} has {found} bytes at the server, expected {expected}, twice; list the data set again (`onebit stack manifest --force`)"
    )]
    Length {
        dataset: String,
        path: String,
        expected: u64,
        found: String,
    },
    /// Not the bytes that the listing told.
    #[error(
        "{path} of {dataset} came with the SHA-256 {found}, expected {expected}, twice; what was downloaded is removed: look for what changes it on the way, or list the data set again"
    )]
    Checksum {
        dataset: String,
        path: String,
        expected: String,
        found: String,
    },
    /// The caller asked to stop.
    #[error("stopped before the end; what was downloaded is kept and taken up when the command is run again")]
    Stopped,
}

/// What became of one attempt.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Another attempt may go well.
    Passing {
        /// What happened.
        what: String,
        /// How long the server asks to be left alone.
        after: Option<std::time::Duration>,
    },
    /// Another attempt would end as this one.
    Final(HubError),
}

impl Trouble {
    pub(super) fn passing(what: impl Into<String>) -> Self {
        Trouble::Passing {
            what: what.into(),
            after: None,
        }
    }
}

impl From<HubError> for Trouble {
    fn from(error: HubError) -> Self {
        Trouble::Final(error)
    }
}
