//! What a run writes, as operations that a test can make fail one by one.
//!
//! A run changes the disk through [`Storage`] and nothing else: [`Disk`] is the real one; the tests have one that counts operations and ends the program, as far as the
//! disk can tell, before, during or after any of them. Reading needs no such layer: what is read is checked.

mod disk;
#[cfg(test)]
pub(crate) mod faulty;

use std::fmt::Debug;
use std::io::{Result, Write};
use std::path::Path;

pub use disk::Disk;

/// Where a run is kept.
pub trait Storage: Debug + Send + Sync {
    /// Makes a directory and those above it, which may be there.
    ///
    /// # Errors
    /// The system's, here and below.
    fn create_directory(&self, path: &Path) -> Result<()>;

    /// Makes a file, in place of one that is there.
    ///
    /// # Errors
    /// The system's.
    fn create(&self, path: &Path) -> Result<Box<dyn Output>>;

    /// Opens a file to write behind its first `length` bytes, and cuts off the rest. It is made if it is not there.
    ///
    /// # Errors
    /// The system's.
    fn append(&self, path: &Path, length: u64) -> Result<Box<dyn Output>>;

    /// Waits until the disk has the content of a file, whoever wrote it.
    ///
    /// # Errors
    /// The system's.
    fn sync_file(&self, path: &Path) -> Result<()>;

    /// Waits until the disk has the entries of a directory.
    ///
    /// # Errors
    /// The system's.
    fn sync_directory(&self, path: &Path) -> Result<()>;

    /// Gives a file or directory another name, at once.
    ///
    /// # Errors
    /// The system's.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a directory with all in it, or a link to one; nothing, if there is none.
    ///
    /// # Errors
    /// The system's.
    fn remove_directory(&self, path: &Path) -> Result<()>;

    /// Bytes that can still be written below `path`, if the system tells.
    ///
    /// # Errors
    /// The system's.
    fn free_space(&self, path: &Path) -> Result<Option<u64>>;
}

/// A file that is being written.
pub trait Output: Write + Debug + Send {
    /// Waits until the disk has what was written.
    ///
    /// # Errors
    /// The system's.
    fn sync(&mut self) -> Result<()>;
}
