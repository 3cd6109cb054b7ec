//! A read-only memory map, the one place of this crate that needs `unsafe`.
#![allow(unsafe_code)]

use std::fs::File;

/// The bytes of a file, read from disk as they are touched, or in memory.
#[derive(Debug)]
pub(super) enum Map {
    /// A file that is not empty. Open, because it is locked as long as it is.
    File(memmap2::Mmap, File),
    Memory(Vec<u8>),
}

impl Map {
    /// Maps the whole of `file`, locked; an empty file, which cannot be mapped, gives no bytes.
    pub(super) fn new(file: File) -> std::io::Result<Map> {
        if file.metadata()?.len() == 0 {
            return Ok(Map::Memory(Vec::new()));
        }
        // The contents must not change while the map lives: token files are written under another name and renamed when they are complete, no code of this
        // workspace opens one for writing, and the file is locked for all who ask. A program that does not, and truncates the file between `unchanged` and
        // a read, ends this one with a bus error; it cannot make it read other memory.
        // SAFETY: the map is read only, its length is the file's, so every index that slices allow is inside it, and any bytes are valid.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        Ok(Map::File(map, file))
    }

    /// Refuses a file that another program made longer or shorter since it was mapped.
    pub(super) fn unchanged(&self) -> std::io::Result<()> {
        match self {
            Map::File(map, file) if file.metadata()?.len() != map.len() as u64 => Err(std::io::Error::other(
                "another program changed its length; it is damaged, make it again",
            )),
            _ => Ok(()),
        }
    }

    /// The bytes; those of a file are page aligned.
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Map::File(map, _) => map,
            Map::Memory(bytes) => bytes,
        }
    }
}
