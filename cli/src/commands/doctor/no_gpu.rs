//! A build without CUDA looks for no GPU.

use serde::Serialize;

/// What was found: nothing.
pub(super) struct Gpus {
    pub driver: Option<String>,
    pub all: Vec<GpuReport>,
    pub note: Option<String>,
}

/// One GPU, of which there is none.
#[derive(Serialize)]
pub(super) enum GpuReport {}

impl Gpus {
    /// Says why nothing is looked for.
    pub fn find() -> Self {
        Gpus {
            driver: None,
            all: Vec::new(),
            note: Some("this build has no CUDA".into()),
        }
    }

    /// None.
    pub fn names(&self) -> Option<String> {
        None
    }
}

impl GpuReport {
    /// As with CUDA.
    pub fn usable(&self) -> Result<&str, &str> {
        match *self {}
    }

    /// As with CUDA.
    pub fn failed(&self) -> Option<&str> {
        match *self {}
    }

    /// As with CUDA.
    pub fn line(&self) -> String {
        match *self {}
    }
}
