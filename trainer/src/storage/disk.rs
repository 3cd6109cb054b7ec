//! The disk.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Result, Seek, SeekFrom};
use std::path::Path;

use super::{Output, Storage};

/// The file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Disk;

impl Storage for Disk {
    fn create_directory(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path)
    }

    fn create(&self, path: &Path) -> Result<Box<dyn Output>> {
        Ok(Box::new(File::create(path)?))
    }

    fn append(&self, path: &Path, length: u64) -> Result<Box<dyn Output>> {
        let mut file = OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length))?;
        Ok(Box::new(file))
    }

    fn sync_file(&self, path: &Path) -> Result<()> {
        OpenOptions::new().write(true).open(path)?.sync_all()
    }

    #[cfg(unix)]
    fn sync_directory(&self, path: &Path) -> Result<()> {
        File::open(path)?.sync_all()
    }

    /// Elsewhere a directory cannot be opened, and its entries need no waiting for.
    #[cfg(not(unix))]
    fn sync_directory(&self, _: &Path) -> Result<()> {
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to)
    }

    fn remove_directory(&self, path: &Path) -> Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    #[cfg(unix)]
    fn free_space(&self, path: &Path) -> Result<Option<u64>> {
        let found = rustix::fs::statvfs(path)?;
        Ok(Some(found.f_bavail.saturating_mul(found.f_frsize)))
    }

    #[cfg(not(unix))]
    fn free_space(&self, _: &Path) -> Result<Option<u64>> {
        Ok(None)
    }
}

impl Output for File {
    fn sync(&mut self) -> Result<()> {
        self.sync_all()
    }
}
