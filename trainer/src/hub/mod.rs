//! The Hugging Face Hub, as far as data sets need it: what a branch stands for, what files there are, and their bytes.
//!
//! ```text
//! dataset("bigcode/the-stack", "main") ──▶ Commit ──list──▶ Entry { path, bytes, sha256 } ──download──▶ TO.part ──checked──▶ TO
//! ```
//!
//! **What it promises.**
//! - Listings and downloads are of a *commit*: what was listed is what is downloaded, whatever happens to the branch.
//! - A file is there under its name whole and checked (length, SHA-256), or not at all. What came before a failure, a stop or a kill lies beside it as `TO.part`
//!   and is taken up by the next call (`Range`); it is never longer than the file.
//! - What may pass is tried again: 429 and 5xx, connections that break or cannot be made, bodies that are cut. Pauses double, with jitter, or are what `Retry-After`
//!   asks for. As long as bytes come that were not there before, no number of cuts ends a download.
//! - The token goes to the Hub's scheme, host and port alone. A redirect elsewhere, which is where the Hub keeps large files, is followed without it; one from https to
//!   http is not followed.
//! - What will not pass is said by name: terms that were not accepted, a token that is wrong or has expired, a data set, revision or file that is not there, a full disk.
//!
//! **Why this library.** `ureq` is small, blocking and leaves statuses, redirects and bodies to us, with TLS by `rustls` and the certificate authorities of
//! `webpki-roots`. `hf-hub` needs an asynchronous runtime, keeps files in a cache of its own whose size nobody can budget, and neither takes up a cut file under our
//! control nor shows its checksums. Proxies are taken from the environment (`HTTPS_PROXY`, `NO_PROXY`), but for an
//! endpoint on this machine.
//!
//! The protocol is tested against `fake.rs`, a Hub on this machine that can be told to fail in every way above.

mod address;
mod download;
mod error;
#[cfg(test)]
pub(crate) mod fake;
mod listing;
mod names;
mod options;
mod retry;
mod wire;

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;

use ureq::Agent;

pub(crate) use download::lock;
pub use error::HubError;
pub use listing::{Commit, Entry, Listing, Page, Pages};
pub(crate) use names::{is_commit, is_dataset_id, is_plain_path, is_sha256};
pub use options::{HubOptions, Told};

use address::Address;
use error::Trouble;
use wire::{Answer, Request};

/// Characters of a server's message that are shown.
const SHOWN: usize = 200;

/// A file of a data set at a commit: what [`Hub::download`] gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubFile {
    /// The data set: `bigcode/the-stack`.
    pub dataset: String,
    /// The commit.
    pub revision: String,
    /// Its path in the data set: `data/rust/train-00000-of-00206.parquet`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of its bytes in lower-case hexadecimal, if it is known.
    pub sha256: Option<String>,
}

/// A client of the Hub; one is enough for all threads.
pub struct Hub {
    options: HubOptions,
    endpoint: Address,
    agent: Agent,
    /// Data sets for which the token was taken.
    served: Mutex<HashSet<String>>,
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.options.fmt(f)
    }
}

impl Hub {
    /// A client; nothing is asked yet.
    ///
    /// # Errors
    /// [`HubError::Setting`] for an endpoint that is no address, or that is plain `http` elsewhere than on this machine without [`HubOptions::plain_http`]; for a token that
    /// no header can hold.
    pub fn new(options: HubOptions) -> crate::Result<Self> {
        let setting = |setting, why| HubError::Setting { setting, why };
        let endpoint = options.endpoint.trim_end_matches('/');
        let endpoint = Address::parse(endpoint).map_err(|why| setting("HF_ENDPOINT", why))?;
        if endpoint.as_str().contains(['?', '#']) {
            let why = "expected an address without ? and #, such as https://huggingface.co".into();
            return Err(setting("HF_ENDPOINT", why).into());
        }
        if !endpoint.origin().is_secure() && !endpoint.origin().is_loopback() && !options.plain_http {
            let why = format!("{} is not encrypted, expected https", endpoint.shown());
            return Err(setting("HF_ENDPOINT", why).into());
        }
        if let Some(token) = &options.token
            && (token.is_empty() || token.bytes().any(|b| !b.is_ascii_graphic()))
        {
            let why = "the token holds spaces, line ends or other signs that no token has; set it again".into();
            return Err(setting("HF_TOKEN", why).into());
        }
        Ok(Self {
            agent: wire::agent(&options, endpoint.origin()),
            endpoint,
            options,
            served: Mutex::default(),
        })
    }

    /// Asks for an address, once; an answer other than 200 and 206 (and 416, if `from` is not 0) is trouble.
    fn ask(&self, dataset: &str, address: &Address, from: u64, stop: &AtomicBool) -> Result<Answer, Trouble> {
        let hub = self.endpoint.origin().clone();
        let request = Request {
            address: address.clone(),
            from,
            token: self.options.token.clone(),
            hub,
        };
        let answer = wire::ask(&self.agent, request, stop)?;
        match answer.status {
            200 | 206 => {}
            416 if from > 0 => {}
            _ => return Err(self.refusal(dataset, &answer)),
        }
        if self.options.token.is_some()
            && let Ok(mut served) = self.served.lock()
            && !served.contains(dataset)
        {
            served.insert(dataset.into());
        }
        Ok(answer)
    }

    /// What an answer that is none means.
    fn refusal(&self, dataset: &str, answer: &Answer) -> Trouble {
        let address = answer.address.shown();
        let at_hub = answer.address.origin() == self.endpoint.origin();
        let message = answer.header("X-Error-Message").map_or(String::new(), |text| {
            let plain = text.chars().filter(|c| !c.is_control()).take(SHOWN);
            format!(" ({})", plain.collect::<String>())
        });
        let dataset = dataset.to_string();
        match (answer.status, answer.header("X-Error-Code")) {
            (status @ (408 | 425 | 429 | 500..), _) => {
                return Trouble::Passing {
                    what: format!("the server answers {status}{message}"),
                    after: answer.header("Retry-After").and_then(retry::retry_after),
                };
            }
            // A signed address that has expired; the Hub gives a new one.
            (status @ (401 | 403), _) if !at_hub => {
                return Trouble::passing(format!("{address} answers {status}"));
            }
            (401, _) if self.was_served(&dataset) => HubError::TokenExpired { dataset },
            (_, Some("GatedRepo")) => HubError::Gated { dataset, message },
            (_, Some("RepoNotFound")) => HubError::NoDataset { dataset },
            (_, Some("RevisionNotFound")) => HubError::NoRevision {
                dataset,
                revision: "as given".into(),
            },
            (_, Some("EntryNotFound")) => HubError::NoEntry {
                dataset,
                entry: "such file or folder".into(),
            },
            (401 | 403, _) if self.options.token.is_some() => HubError::TokenRefused { dataset, message },
            (401 | 403, _) => HubError::NoDataset { dataset },
            (status, _) => HubError::Status {
                address,
                status,
                message,
            },
        }
        .into()
    }

    fn was_served(&self, dataset: &str) -> bool {
        self.served.lock().is_ok_and(|served| served.contains(dataset))
    }

    /// An address of the Hub, of parts that are encoded.
    fn address(&self, path: &str) -> Result<Address, HubError> {
        let text = format!("{}/{path}", self.endpoint.as_str());
        Address::parse(&text).map_err(|what| HubError::Answer { address: text, what })
    }
}

/// The same error with the names that were asked for.
fn named(error: HubError, revision: &str, entry: &str) -> HubError {
    match error {
        HubError::NoRevision { dataset, .. } => HubError::NoRevision {
            dataset,
            revision: revision.into(),
        },
        HubError::NoEntry { dataset, .. } => HubError::NoEntry {
            dataset,
            entry: entry.into(),
        },
        other => other,
    }
}
