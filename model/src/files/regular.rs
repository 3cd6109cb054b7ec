//! Opening files that somebody else made: only regular ones, and no more of them than a file of that kind can need.

use std::fs::{File, TryLockError};
use std::io::{Error, ErrorKind, Read, Result};
use std::path::Path;

/// Opens a regular file for reading. Links are followed, because the caches of model hubs are made of them.
///
/// Anything else is refused before it is opened: opening a pipe would wait for its other end, and reading a device could go on for ever.
///
/// # Errors
/// The system's, or `InvalidInput` when the path leads to something else than a regular file.
pub fn open_regular(path: &Path) -> Result<File> {
    let refused = || Error::new(ErrorKind::InvalidInput, "not a regular file");
    if !std::fs::metadata(path)?.is_file() {
        return Err(refused());
    }
    let file = File::open(path)?;
    // Asked of what was opened, because the path may lead elsewhere by now.
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(refused())
    }
}

/// Opens a regular file that will be mapped, and asks other programs not to change it: a shared lock, which the system lets go when the file is
/// closed. A program that asks for no lock is not held up by it, and a file system without locks has none to give.
///
/// # Errors
/// As [`open_regular`]; `WouldBlock` while another program has the file for itself, to write it.
pub fn open_to_map(path: &Path) -> Result<File> {
    let file = open_regular(path)?;
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => {
            let problem = "another program has locked it to write it; wait until that is done";
            Err(Error::new(ErrorKind::WouldBlock, problem))
        }
        Ok(()) | Err(TryLockError::Error(_)) => Ok(file),
    }
}

/// The text of a regular file of at most `limit` bytes.
///
/// # Errors
/// As [`open_regular`]; `InvalidData` for a longer file or one that is no UTF-8.
pub(crate) fn read_text(path: &Path, limit: u64) -> Result<String> {
    let mut text = String::new();
    open_regular(path)?.take(limit + 1).read_to_string(&mut text)?;
    if text.len() as u64 > limit {
        let problem = format!("longer than {limit} bytes, which no file of this kind is");
        return Err(Error::new(ErrorKind::InvalidData, problem));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_being_written_is_not_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weights");
        std::fs::write(&path, "four").unwrap();
        let (first, second) = (open_to_map(&path).unwrap(), open_to_map(&path).unwrap());
        let writer = File::options().write(true).open(&path).unwrap();
        assert!(matches!(writer.try_lock(), Err(TryLockError::WouldBlock)));
        drop((first, second));
        writer.try_lock().unwrap();
        assert_eq!(open_to_map(&path).unwrap_err().kind(), ErrorKind::WouldBlock);
        drop(writer);
        open_to_map(&path).unwrap();
    }

    #[test]
    fn what_is_no_file_or_too_long_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("text");
        assert_eq!(open_regular(&path).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(open_regular(dir.path()).unwrap_err().kind(), ErrorKind::InvalidInput);
        std::fs::write(&path, "four").unwrap();
        assert_eq!(read_text(&path, 4).unwrap(), "four");
        let long = read_text(&path, 3).unwrap_err();
        assert!(long.kind() == ErrorKind::InvalidData && long.to_string().contains("longer than 3"));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert_eq!(read_text(&path, 4).unwrap_err().kind(), ErrorKind::InvalidData);
    }
}
