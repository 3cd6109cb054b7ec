//! Where the Hub is, who asks, and how patiently.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::HubError;

/// The Hub of everybody.
const ENDPOINT: &str = "https://huggingface.co";

/// How the Hub is asked.
#[derive(Clone)]
pub struct HubOptions {
    /// The Hub's address, without what follows its name: `https://huggingface.co`.
    pub endpoint: String,
    /// Allows an endpoint of plain `http` that is not on this machine. Whoever is on the way reads the token then, and may change listings.
    pub plain_http: bool,
    /// Proves to the Hub who asks; `None` asks as anybody.
    pub token: Option<String>,
    /// What the program calls itself.
    pub user_agent: String,
    /// Failures in a row that are borne; bytes that were not there before begin the count anew.
    pub retries: u32,
    /// The pause after the first failure; each further one doubles it.
    pub backoff: Duration,
    /// The longest pause, also where the server asks for a longer one (`Retry-After`).
    pub longest_pause: Duration,
    /// Seed of the pauses' jitter, between half of a pause and the whole; processes that began together should not ask together again.
    pub jitter_seed: u64,
    /// The longest wait for a connection.
    pub connect_timeout: Duration,
    /// The longest wait for the next byte.
    pub read_timeout: Duration,
    /// The most files that a listing may have; the listing of a server that never ends does.
    pub most_files: usize,
    /// Whoever is told of failures that are tried again.
    pub told: Option<Told>,
}

/// Is told of failures that are tried again: what failed, and how long the pause is.
#[derive(Clone)]
pub struct Told(pub Arc<dyn Fn(&str) + Send + Sync>);

impl Default for HubOptions {
    /// The Hub of everybody, asked as anybody; about ten minutes without any progress end a download.
    fn default() -> Self {
        Self {
            endpoint: ENDPOINT.into(),
            plain_http: false,
            token: None,
            user_agent: concat!("onebit/", env!("CARGO_PKG_VERSION")).into(),
            retries: 12,
            backoff: Duration::from_secs(1),
            longest_pause: Duration::from_secs(120),
            jitter_seed: u64::from(std::process::id()),
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_secs(60),
            most_files: 1_000_000,
            told: None,
        }
    }
}

/// As derived, but for the token, which is nobody's business.
impl std::fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}

impl HubOptions {
    /// What the environment says, under the names that Hugging Face's own tools use: `HF_ENDPOINT`; `HF_TOKEN`, or else the file that their login leaves
    /// (`HF_TOKEN_PATH`, `HF_HOME/token`, `~/.cache/huggingface/token`). An `HF_ENDPOINT` of plain `http` is taken at its word: the token then goes over the network
    /// for everybody on the way to read.
    ///
    /// # Errors
    /// [`HubError::Io`] for a token file that is there and cannot be read.
    pub fn from_env() -> crate::Result<Self> {
        Ok(Self::from_variables(&|name| std::env::var(name).ok())?)
    }

    pub(super) fn from_variables(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, HubError> {
        let given = |name: &str| variable(name).map(|v| v.trim().to_string()).filter(|v| !v.is_empty());
        let mut options = Self::default();
        if let Some(endpoint) = given("HF_ENDPOINT") {
            options.plain_http = endpoint.starts_with("http://");
            options.endpoint = endpoint;
        }
        // Empty means nobody, also where a login left a file.
        options.token = match variable("HF_TOKEN") {
            Some(_) => given("HF_TOKEN"),
            None => token_file(&given).map_or(Ok(None), read_token)?,
        };
        Ok(options)
    }
}

fn token_file(given: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(path) = given("HF_TOKEN_PATH") {
        return Some(path.into());
    }
    let home = given("HF_HOME").map(PathBuf::from);
    let cache = || given("XDG_CACHE_HOME").map(|cache| PathBuf::from(cache).join("huggingface"));
    let user = || given("HOME").map(|user| PathBuf::from(user).join(".cache/huggingface"));
    Some(home.or_else(cache).or_else(user)?.join("token"))
}

fn read_token(path: PathBuf) -> Result<Option<String>, HubError> {
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_string()).filter(|token| !token.is_empty())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(HubError::Io {
            path,
            action: "read the token in",
            source,
        }),
    }
}
