//! Models that are part of the program, by name: they run wherever it does. A build without the feature `bundled` has none.

use std::path::Path;

use onebit_model::files::OneFile;
use onebit_model::runtime::SharedBytes;
#[cfg(feature = "bundled")]
use onebit_models::ALL as MODELS;

use crate::Result;

/// Name and `.1bit` file of each.
#[cfg(not(feature = "bundled"))]
static MODELS: &[(&str, &[u8])] = &[];

/// The model that `path` is the name of. What lies at that path goes before it.
pub(crate) fn named(path: &Path) -> Option<Result<OneFile>> {
    if path.exists() {
        return None;
    }
    let (_, bytes) = MODELS.iter().find(|(name, _)| path.as_os_str() == *name)?;
    Some(OneFile::from_shared(SharedBytes::from_static(bytes), path).map_err(Into::into))
}

/// What to do instead of a path that does not exist.
pub(crate) fn advice() -> String {
    let names: Vec<&str> = MODELS.iter().map(|(name, _)| *name).collect();
    match names.is_empty() {
        true => "check the path of the model".to_string(),
        false => format!(
            "check the path of the model, or give the name of a bundled one ({})",
            names.join(", ")
        ),
    }
}
