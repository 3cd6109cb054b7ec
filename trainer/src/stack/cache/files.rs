//! Names and sizes of files in the folder.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::BY_HAND;
use crate::Result;
use crate::error::io_error;
use crate::stack::manifest::Shard;

/// Hexadecimal digits that our files begin with.
const DIGITS: usize = 16;
/// Characters of a shard's own name that its file keeps.
const LONGEST_NAME: usize = 100;

/// The file of a shard.
pub fn file_name(shard: &Shard) -> String {
    let mut hash = blake3::Hasher::new();
    for part in [&shard.dataset, &shard.revision, &shard.path] {
        hash.update(part.as_bytes()).update(&[0]);
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let own = shard.path.rsplit('/').next().unwrap_or_default();
    let own: String = own.chars().filter(|&c| plain(c)).take(LONGEST_NAME).collect();
    // Whatever the shard's name ends in, ours does not end like a part.
    let own = own.trim_end_matches(".part");
    format!("{}-{own}", &hash.finalize().to_hex()[..DIGITS])
}

/// Whether a file of this name is one of ours.
pub(super) fn is_ours(name: &str) -> bool {
    let digits = name.bytes().take_while(u8::is_ascii_hexdigit).count();
    digits == DIGITS && name.as_bytes().get(DIGITS) == Some(&b'-')
}

/// Removes a file, if there is one.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(io_error(path, BY_HAND)(error)),
        _ => Ok(()),
    }
}

/// Bytes of a file; 0, if there is none.
pub(super) fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |about| if about.is_file() { about.len() } else { 0 })
}

/// Bytes of the files below a folder, as far as they can be seen; links are not followed.
pub(super) fn bytes_below(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => bytes_below(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.flatten().map(bytes).sum()
}
