//! What the fuzz targets share.
//!
//! A target is `fuzz_targets/NAME.rs` with an entry in `Cargo.toml`. It reads bytes as far as a program would, and asserts what holds beyond "no
//! panic": mostly that what was accepted is the same after it was written and read again. Its first inputs, small good files and one of each
//! class of damage, are written to `corpus/NAME` by the tests called `malformed` (of `model`, `trainer` and `cli`, and beside the reader of GGUF) when
//! `ONEBIT_FUZZ_CORPUS` names the folder. A format whose target writes files or runs models has a second one, `NAME_header` or `NAME_container`, that
//! stays in memory and tries a hundred times as many inputs.
//!
//! ```text
//! ONEBIT_FUZZ_CORPUS=$PWD/fuzz/corpus cargo test --workspace --test malformed
//! cargo +nightly fuzz run --sanitizer none NAME -- -rss_limit_mb=2048 -malloc_limit_mb=256 -timeout=10
//! ```
//!
//! `.ci/fuzz` does both for every target, for a few seconds each; `docs/reliability.md` says how many inputs ran so far.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::sync::Arc;

use onebit_model::runtime::SharedBytes;

/// Bytes that begin at a multiple of 64, as a mapped file does.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

/// A copy of the bytes that lies in memory as a mapped file does.
pub fn as_if_mapped(bytes: &[u8]) -> SharedBytes {
    let len = bytes.len();
    let mut memory = vec![0; len + 64];
    let start = memory.as_ptr().align_offset(64);
    memory[start..start + len].copy_from_slice(bytes);
    SharedBytes::new(Arc::new(Aligned { memory, start, len }))
}

/// A path for one file of this process, in memory where the system has such a place.
pub fn scratch(name: &str) -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("onebit-fuzz-{}-{name}", std::process::id()))
}

/// The container with the length of its header set to where its JSON object ends, and spaces up to a multiple of 64, so that a mutation that
/// makes the header longer or shorter still gets past its length. `None` where there is no object.
pub fn with_right_length(bytes: &[u8]) -> Option<Vec<u8>> {
    let rest = bytes.get(8..)?;
    let (mut depth, mut quoted, mut escaped) = (0usize, false, false);
    let end = rest.iter().position(|&byte| {
        match (quoted, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (_, b'"') => quoted = !quoted,
            (false, b'{') => depth += 1,
            (false, b'}') => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    })?;
    let (header, data) = rest.split_at_checked(end + 1)?;
    let spaces = data.iter().take_while(|byte| **byte == b' ').count();
    let length = (8 + header.len()).next_multiple_of(64) - 8;
    let mut whole = (length as u64).to_le_bytes().to_vec();
    whole.extend(header);
    whole.resize(8 + length, b' ');
    whole.extend(&data[spaces..]);
    Some(whole)
}
