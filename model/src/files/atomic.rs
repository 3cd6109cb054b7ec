//! Files that are either the old ones or the new ones, whatever happens while they are written.

use std::fs::{self, File};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::FileError;

/// Lets `write` make a file under a temporary name in the same directory, flushes it to disk and renames it to `path`. On an
/// error the temporary file is removed and `path` is as it was.
///
/// # Errors
/// What `write` returns, or [`FileError::Io`].
pub fn replace_file<E: From<FileError>>(path: &Path, write: impl FnOnce(&Path) -> Result<(), E>) -> Result<(), E> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let unique = COUNTER.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".{name}.{}-{unique}.tmp", std::process::id()));
    let io = |action| {
        move |source| FileError::Io {
            action,
            path: path.to_path_buf(),
            source,
        }
    };
    let result = write(&temporary).and_then(|()| {
        File::options()
            .write(true)
            .open(&temporary)
            .and_then(|file| file.sync_all())
            .map_err(io("flush"))?;
        fs::rename(&temporary, path).map_err(io("replace"))?;
        Ok(sync_directory(path).map_err(io("flush the directory of"))?)
    });
    if result.is_err() {
        // The first error is the one to report; a temporary file left behind harms nobody.
        let _ = fs::remove_file(&temporary);
    }
    result
}

/// Flushes the directory entry, which on Unix is a step of its own.
#[cfg(unix)]
fn sync_directory(path: &Path) -> std::io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()
}

#[cfg(not(unix))]
fn sync_directory(_: &Path) -> std::io::Result<()> {
    Ok(())
}

/// [`replace_file`] with bytes that are at hand.
pub(super) fn replace_with(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    replace_file(path, |temporary| {
        let io = |source| FileError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        };
        fs::write(temporary, bytes).map_err(io)
    })
}
