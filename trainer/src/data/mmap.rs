//! A read-only memory map, the one place of this crate that needs `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;

/// The bytes of a file, read from disk as they are touched.
#[derive(Debug)]
pub(super) struct Map(Option<memmap2::Mmap>);

impl Map {
    /// Maps the whole of `file`; an empty file, which cannot be mapped, gives no bytes.
    pub(super) fn new(file: &File) -> std::io::Result<Map> {
        if file.metadata()?.len() == 0 {
            return Ok(Map(None));
        }
        // SAFETY: the map is read only, and its length is the file's, so every index that slices allow is inside it. The
        // contents must not change while it lives: token files are written under another name and renamed when they are
        // complete, and no code of this workspace opens one for writing; a program that truncates the file meanwhile
        // ends this one with a bus error, it cannot make it read other memory.
        let map = unsafe { memmap2::Mmap::map(file)? };
        Ok(Map(Some(map)))
    }

    /// The mapped bytes; page aligned.
    pub(super) fn bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}
