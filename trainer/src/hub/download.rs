//! A file's bytes: into `TO.part`, from where it ends, checked as a whole, then renamed.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

use super::address::Address;
use super::error::Trouble;
use super::retry::Retry;
use super::{Hub, HubError, HubFile, named, names};
use crate::storage::{Disk, Storage};

/// Bytes read at once of what was there before.
const BLOCK: usize = 1 << 20;

impl Hub {
    /// Downloads a file to `to`, in place of one that is there; the folder must exist. `seen` is told how many of its bytes are there, which falls where the download
    /// begins anew; `stop` ends it within a second.
    ///
    /// The bytes lie in `TO.part` until all are there and checked, never more than [`HubFile::bytes`], and a call finds what an earlier one left. Without a checksum
    /// nobody could tell whether that is of the same file, so it is then begun anew.
    ///
    /// # Errors
    /// [`HubError`], after which the part is there for another call, but for [`HubError::Length`] and [`HubError::Checksum`].
    pub fn download(
        &self,
        file: &HubFile,
        to: &Path,
        seen: &mut dyn FnMut(u64),
        stop: &AtomicBool,
    ) -> crate::Result<()> {
        names::check_dataset(&file.dataset)?;
        names::check_commit(&file.revision)?;
        names::check_path(&file.path)?;
        let address = format!(
            "datasets/{}/resolve/{}/{}",
            names::path(&file.dataset),
            file.revision,
            names::path(&file.path)
        );
        let address = self.address(&address)?;
        let mut part = Part::open(to, file, stop)?;
        seen(part.length);
        let mut again = true;
        loop {
            let filled = self.fill(file, &address, &mut part, seen, stop);
            match filled.and_then(|()| part.check(file)) {
                Ok(()) => return Ok(part.finish(to)?),
                Err(HubError::Length { .. } | HubError::Checksum { .. }) if again => {
                    again = false;
                    part.clear()?;
                }
                Err(error @ (HubError::Length { .. } | HubError::Checksum { .. })) => {
                    part.remove()?;
                    return Err(error.into());
                }
                Err(error) => return Err(named(error, &file.revision, &file.path).into()),
            }
        }
    }

    /// Attempts, until all bytes are there.
    fn fill(
        &self,
        file: &HubFile,
        address: &Address,
        part: &mut Part,
        seen: &mut dyn FnMut(u64),
        stop: &AtomicBool,
    ) -> Result<(), HubError> {
        let mut retry = Retry::new(&self.options, address.shown());
        let mut most = part.length;
        while part.length < file.bytes {
            let outcome = self.transfer(file, address, part, seen, stop);
            // A server that begins anew each time and is cut at the same place achieves nothing.
            if part.length > most {
                most = part.length;
                retry.progress();
            }
            if let Err(trouble) = outcome {
                retry.again(trouble, stop)?;
            }
        }
        Ok(())
    }

    /// One attempt.
    fn transfer(
        &self,
        file: &HubFile,
        address: &Address,
        part: &mut Part,
        seen: &mut dyn FnMut(u64),
        stop: &AtomicBool,
    ) -> Result<(), Trouble> {
        let from = part.length;
        let mut answer = self.ask(&file.dataset, address, from, stop)?;
        let range = answer.header("Content-Range").and_then(content_range);
        match (answer.status, range) {
            (_, Some((_, Some(total)))) if total != file.bytes => return Err(length(file, total.to_string()).into()),
            (206, Some((Some(first), _))) if first == from => {}
            (200, _) => {
                // The server sends all of it, whatever was asked for.
                let promised = answer.header("Content-Length").and_then(|n| n.parse().ok());
                if let Some(found) = promised.filter(|n: &u64| *n != file.bytes) {
                    return Err(length(file, found.to_string()).into());
                }
                part.clear()?;
            }
            (status, _) => {
                part.clear()?;
                return Err(Trouble::passing(format!(
                    "the server answers {status} with another range than was asked for"
                )));
            }
        }
        while let Some(bytes) = answer.next(stop)? {
            if bytes.len() as u64 > file.bytes - part.length {
                return Err(length(file, format!("more than {}", file.bytes)).into());
            }
            part.write(&bytes)?;
            seen(part.length);
        }
        if part.length < file.bytes {
            return Err(Trouble::passing(format!(
                "the body ended after {} of {} bytes",
                part.length, file.bytes
            )));
        }
        Ok(())
    }
}

fn length(file: &HubFile, found: String) -> HubError {
    HubError::Length {
        dataset: file.dataset.clone(),
        path: file.path.clone(),
        expected: file.bytes,
        found,
    }
}

/// First byte and whole length of `bytes 5-9/10`, `bytes 5-9/*` or `bytes */10`.
fn content_range(header: &str) -> Option<(Option<u64>, Option<u64>)> {
    let (range, total) = header.trim().strip_prefix("bytes")?.trim_start().split_once('/')?;
    let first = range.split('-').next().and_then(|first| first.trim().parse().ok());
    Some((first, total.trim().parse().ok()))
}

/// What is there of a file.
struct Part {
    path: PathBuf,
    file: File,
    length: u64,
    sum: Sha256,
}

impl Part {
    /// Takes up what an earlier call left, if it can be checked, or begins. No other process writes to it as long as it is open.
    fn open(to: &Path, wanted: &HubFile, stop: &AtomicBool) -> Result<Self, HubError> {
        let mut name = to.as_os_str().to_owned();
        name.push(".part");
        let path = PathBuf::from(name);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| write_failed(&path, e))?;
        lock(&file, &path)?;
        // Whoever held it may have finished and given it its name between the two steps above.
        if !path.exists() {
            return Err(HubError::Busy { path });
        }
        let length = file.metadata().map_err(|e| write_failed(&path, e))?.len();
        let mut part = Self {
            path,
            file,
            length,
            sum: Sha256::new(),
        };
        if wanted.sha256.is_none() || length > wanted.bytes {
            part.clear()?;
        } else {
            part.read_again(stop)?;
        }
        Ok(part)
    }

    /// The checksum of what is there.
    fn read_again(&mut self, stop: &AtomicBool) -> Result<(), HubError> {
        let mut block = vec![0; BLOCK];
        let mut left = self.length;
        while left > 0 {
            if stop.load(Ordering::Relaxed) {
                return Err(HubError::Stopped);
            }
            let want = left.min(BLOCK as u64) as usize;
            self.file
                .read_exact(&mut block[..want])
                .map_err(|source| HubError::Io {
                    path: self.path.clone(),
                    action: "read",
                    source,
                })?;
            self.sum.update(&block[..want]);
            left -= want as u64;
        }
        Ok(())
    }

    /// Forgets all that is there.
    fn clear(&mut self) -> Result<(), HubError> {
        if self.length > 0 {
            let cut = self.file.set_len(0).and_then(|()| self.file.seek(SeekFrom::Start(0)));
            cut.map_err(|e| write_failed(&self.path, e))?;
        }
        self.length = 0;
        self.sum = Sha256::new();
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        if let Err(error) = self.file.write_all(bytes) {
            // Some of them may be there; the next bytes must stand behind those that are counted.
            let back = self.file.set_len(self.length);
            let _ = back.and_then(|()| self.file.seek(SeekFrom::Start(self.length)));
            return Err(write_failed(&self.path, error));
        }
        self.length += bytes.len() as u64;
        self.sum.update(bytes);
        Ok(())
    }

    /// Compares with what the listing told.
    fn check(&self, file: &HubFile) -> Result<(), HubError> {
        if self.length != file.bytes {
            return Err(length(file, self.length.to_string()));
        }
        let Some(expected) = &file.sha256 else { return Ok(()) };
        let found: String = self.sum.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        if found == *expected {
            return Ok(());
        }
        Err(HubError::Checksum {
            dataset: file.dataset.clone(),
            path: file.path.clone(),
            expected: expected.clone(),
            found,
        })
    }

    /// Gives it its name, once the disk has it.
    fn finish(self, to: &Path) -> Result<(), HubError> {
        let folder = match to.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let done = self.file.sync_all().and_then(|()| fs::rename(&self.path, to));
        done.and_then(|()| Disk.sync_directory(folder))
            .map_err(|e| write_failed(to, e))
    }

    fn remove(self) -> Result<(), HubError> {
        fs::remove_file(&self.path).map_err(|e| write_failed(&self.path, e))
    }
}

/// Takes a file that is being written for this process alone, until it is closed.
pub(crate) fn lock(file: &File, path: &Path) -> Result<(), HubError> {
    match file.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(HubError::Busy { path: path.into() }),
        // A file system without locks: two downloads there are the user's business.
        Err(TryLockError::Error(e)) if e.kind() == ErrorKind::Unsupported => Ok(()),
        Err(TryLockError::Error(e)) => Err(write_failed(path, e)),
    }
}

fn write_failed(path: &Path, source: std::io::Error) -> HubError {
    let path = path.to_path_buf();
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            HubError::DiskFull { path, source }
        }
        _ => HubError::Io {
            path,
            action: "write",
            source,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn ranges_are_understood() {
        assert_eq!(content_range("bytes 5-9/10"), Some((Some(5), Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((Some(5), None)));
        assert_eq!(content_range("bytes */10"), Some((None, Some(10))));
        assert_eq!(content_range("bytes"), None);
        assert_eq!(content_range("lines 1-2/3"), None);
    }
}
