//! First inputs of the fuzz targets, in the folders of `ONEBIT_FUZZ_CORPUS`, where that is set. See `fuzz/src/lib.rs`.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

/// Longer inputs slow a target down more than they show.
const LONGEST: usize = 1 << 13;

/// Hands a file to a fuzz target as a first input.
pub fn seed(target: &str, name: &str, bytes: &[u8]) {
    if let Some(corpus) = std::env::var_os("ONEBIT_FUZZ_CORPUS") {
        let folder = Path::new(&corpus).join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

/// Hands one of a class of damaged files to fuzz targets, unless it is long.
pub fn damaged(targets: &[&str], bytes: &[u8]) {
    if bytes.len() <= LONGEST {
        let mut hasher = DefaultHasher::new();
        bytes.hash(&mut hasher);
        let name = format!("class-{:016x}", hasher.finish());
        targets.iter().for_each(|target| seed(target, &name, bytes));
    }
}
