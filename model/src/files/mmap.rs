//! A file mapped for reading. The crate's only unsafe code.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::path::Path;

use memmap2::Mmap;

use super::open_to_map;

/// A file mapped for reading; it is unmapped on drop.
///
/// What is written here replaces files by renaming, which leaves an existing map untouched, and as long as there is a map the file is
/// locked for all who ask. A program that does not ask and shortens a mapped file in place makes the system end this process when the lost pages
/// are read.
#[derive(Debug)]
pub struct MappedFile {
    /// `None` for an empty file, which cannot be mapped.
    map: Option<Mmap>,
    /// Holds the lock.
    _file: File,
}

impl MappedFile {
    /// Maps a regular file.
    ///
    /// # Errors
    /// The system's, or `InvalidInput` when the path names something else than a regular file.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = open_to_map(path)?;
        if file.metadata()?.len() == 0 {
            return Ok(Self { map: None, _file: file });
        }
        // SAFETY: the map is private to this struct and only ever read as bytes, for which every bit pattern is valid, and
        // it lives as long as the borrows that `bytes` hands out. The file could still be changed by a program that
        // asks for no lock; parsers copy each length before they check it, so that no check can be outrun in this process.
        let map = unsafe { Mmap::map(&file)? };
        Ok(Self {
            map: Some(map),
            _file: file,
        })
    }

    /// Gives the map's resident pages back to the system, which reads them again when they are asked for: after a tensor has been converted,
    /// so that the memory of a conversion does not grow with the file. Elsewhere than on Unix, where the system decides alone, nothing is done.
    pub fn give_pages_back(&self) {
        #[cfg(unix)]
        if let Some(map) = &self.map {
            // SAFETY: the map is shared, backed by a file and never written, so a page that is dropped comes back with the same bytes: the
            // promise of every borrow of `bytes` holds.
            let _ = unsafe { map.unchecked_advise(memmap2::UncheckedAdvice::DontNeed) };
        }
    }

    /// The file's bytes.
    pub fn bytes(&self) -> &[u8] {
        self.map.as_deref().unwrap_or(&[])
    }
}

impl AsRef<[u8]> for MappedFile {
    fn as_ref(&self) -> &[u8] {
        self.bytes()
    }
}
