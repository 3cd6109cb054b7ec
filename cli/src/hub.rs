//! The Hub of Hugging Face, as commands ask it.

use std::sync::Arc;

use onebit_trainer::hub::{Hub, HubOptions, Told};

use crate::{Result, output};

/// The Hub that the environment names, which says on stderr what it tries again.
pub(crate) fn hub() -> Result<Hub> {
    Ok(Hub::new(HubOptions {
        told: Some(Told(Arc::new(output::note))),
        ..HubOptions::from_env()?
    })?)
}
