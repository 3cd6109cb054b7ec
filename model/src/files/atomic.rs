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

/// Removes what [`replace_file`] left in `directory` when its program was killed. Nobody else may be writing there.
///
/// # Errors
/// [`FileError::Io`].
pub fn remove_unfinished(directory: &Path) -> Result<(), FileError> {
    let io = |path: &Path, action| {
        let path = path.to_path_buf();
        move |source| FileError::Io { action, path, source }
    };
    for entry in fs::read_dir(directory).map_err(io(directory, "list"))? {
        let entry = entry.map_err(io(directory, "list"))?;
        if is_unfinished(&entry.file_name().to_string_lossy()) && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::remove_file(entry.path()).map_err(io(&entry.path(), "remove"))?;
        }
    }
    Ok(())
}

/// Whether a file's name is one of those that [`replace_file`] gives: `.NAME.PROCESS-NUMBER.tmp`.
fn is_unfinished(name: &str) -> bool {
    let numbers = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(".tmp"))
        .and_then(|name| name.rsplit_once('.'))
        .and_then(|(name, numbers)| Some((name, numbers.split_once('-')?)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    numbers.is_some_and(|(name, (process, number))| !name.is_empty() && is_number(process) && is_number(number))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_program_left_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let kept = [
            ".config.json",
            "config.json.1-2.tmp",
            ".a.tmp",
            ".a.1.tmp",
            "..1-2.tmp",
            ".a.x-1.tmp",
            ".a.1-.tmp",
        ];
        let removed = [".tokenizer.json.21028-1.tmp", ".a.0-0.tmp"];
        for name in kept.iter().chain(&removed) {
            fs::write(dir.path().join(name), "").unwrap();
        }
        fs::create_dir(dir.path().join(".b.1-1.tmp")).unwrap();
        remove_unfinished(dir.path()).unwrap();
        assert!(kept.iter().all(|name| dir.path().join(name).exists()));
        assert!(removed.iter().all(|name| !dir.path().join(name).exists()));
        assert!(dir.path().join(".b.1-1.tmp").exists());
    }
}
