//! Models that are part of the program, by name: they run wherever it does.

use std::path::Path;

use onebit_model::files::OneFile;
use onebit_model::runtime::SharedBytes;

use crate::Result;

/// Name and `.1bit` file of each.
const MODELS: [(&str, &[u8]); 1] = [("wikitext2-25m", &WIKITEXT2_25M.bytes)];

/// Tensors lie in a file as they are read, on borders of 64 bytes.
#[repr(C, align(64))]
struct Aligned<T: ?Sized> {
    bytes: T,
}

static WIKITEXT2_25M: &Aligned<[u8]> = &Aligned {
    bytes: *include_bytes!("../../models/wikitext2-25m/wikitext2-25m.1bit"),
};

/// The model that `path` is the name of. What lies at that path goes before it.
pub(crate) fn named(path: &Path) -> Option<Result<OneFile>> {
    if path.exists() {
        return None;
    }
    let (_, bytes) = MODELS.iter().find(|(name, _)| path.as_os_str() == *name)?;
    Some(OneFile::from_shared(SharedBytes::from_static(bytes), path).map_err(Into::into))
}

/// The names, for a reader.
pub(crate) fn names() -> String {
    MODELS.map(|(name, _)| name).join(", ")
}
