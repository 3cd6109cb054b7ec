//! One run a directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::Path;

use crate::error::io_error;
use crate::{Result, TrainError};

const NAME: &str = ".lock";

/// Holds a run's directory until it is dropped or its process ends, however that happens: the system forgets the lock then.
#[derive(Debug)]
pub struct RunLock(#[expect(dead_code, reason = "open is locked")] File);

impl RunLock {
    /// Takes `directory`, which is made if it is not there.
    ///
    /// # Errors
    /// [`TrainError::Locked`] if another run has it; [`TrainError::Io`].
    pub fn take(directory: &Path) -> Result<Self> {
        let denied = || io_error(directory, "choose a directory that can be written");
        std::fs::create_dir_all(directory).map_err(denied())?;
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(directory.join(NAME))
            .map_err(denied())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut owner = String::new();
                // Only to say it.
                let _ = file.read_to_string(&mut owner);
                return Err(TrainError::Locked {
                    path: directory.into(),
                    owner: if owner.is_empty() { "unknown".into() } else { owner },
                });
            }
            // A file system without locks: two runs there are the user's business.
            Err(TryLockError::Error(error)) if error.kind() == std::io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(denied()(error)),
        }
        let written = file
            .set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .and_then(|()| file.flush());
        written.map_err(denied())?;
        Ok(RunLock(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_run_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        let first = RunLock::take(&path).unwrap();
        let error = RunLock::take(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("its process is {}", std::process::id())),
            "{error}"
        );
        drop(first);
        RunLock::take(&path).unwrap();
    }
}
