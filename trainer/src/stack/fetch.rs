//! Getting a shard: from the Hub, from a folder on this machine, such as a mirror, or by a command.
//!
//! Whatever fetches writes to `TO.part`, never more bytes than the manifest says, and gives it its name `TO` when it is whole: what was cut off is never taken for a shard, and a
//! part may be gone on with.

mod command;

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use sha2::{Digest, Sha256};

pub use self::command::FromCommand;
use super::StackError;
use super::manifest::Shard;
use crate::Result;
use crate::error::io_error;
use crate::hub::Hub;

/// Bytes between two looks at whether to stop.
const CHUNK: usize = 1 << 20;

/// Where shards come from.
pub trait Fetch: Debug + Send + Sync {
    /// Brings `shard` to `to`, by way of the file of that name with `.part` behind it.
    ///
    /// # Errors
    /// What kept it from coming; [`StackError::Stopped`] once `stop` is set.
    fn fetch(&self, shard: &Shard, to: &Path, stop: &AtomicBool) -> Result<()>;
}

/// The file that a shard on its way to `to` is in.
pub fn part_of(to: &Path) -> PathBuf {
    let mut name = to.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

impl Fetch for Hub {
    fn fetch(&self, shard: &Shard, to: &Path, stop: &AtomicBool) -> Result<()> {
        self.download(&shard.file(), to, &mut |_| (), stop)
    }
}

/// A folder that has the shards at their paths in the data set.
#[derive(Clone, Debug)]
pub struct FromFolder(pub PathBuf);

impl Fetch for FromFolder {
    fn fetch(&self, shard: &Shard, to: &Path, stop: &AtomicBool) -> Result<()> {
        let from = self.0.join(&shard.path);
        let unread = || io_error(&from, "check --from, and that the manifest is of the data set there");
        let mut source = File::open(&from).map_err(unread())?;
        let found = source.metadata().map_err(unread())?.len();
        if found != shard.bytes {
            return Err(StackError::Size {
                shard: shard.id.clone(),
                expected: shard.bytes,
                found,
                path: from,
            }
            .into());
        }
        let part = part_of(to);
        let unwritten = || io_error(&part, "make room there, or lower --disk-budget-gb");
        let mut file = File::create(&part).map_err(unwritten())?;
        let mut chunk = vec![0; CHUNK];
        // A file that grows meanwhile is no reason to write more than there is room for.
        let mut left = shard.bytes;
        let mut hash = Sha256::new();
        while left > 0 {
            if stop.load(Ordering::Relaxed) {
                return Err(StackError::Stopped.into());
            }
            let some = CHUNK.min(usize::try_from(left).unwrap_or(CHUNK));
            let n = source.read(&mut chunk[..some]).map_err(unread())?;
            if n == 0 {
                break;
            }
            file.write_all(&chunk[..n]).map_err(unwritten())?;
            if shard.sha256.is_some() {
                hash.update(&chunk[..n]);
            }
            left -= n as u64;
        }
        if let Some(expected) = &shard.sha256 {
            let found: String = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
            if found != *expected {
                fs::remove_file(&part).map_err(unwritten())?;
                return Err(StackError::Checksum {
                    shard: shard.id.clone(),
                    expected: expected.clone(),
                    found,
                    path: from,
                }
                .into());
            }
        }
        file.sync_all().map_err(unwritten())?;
        drop(file);
        fs::rename(&part, to).map_err(unwritten())
    }
}
