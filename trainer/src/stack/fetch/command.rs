//! A shard by a command of the user's, such as `curl -sSfL {url} -o {out_dir}/shard`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Fetch;
use crate::error::io_error;
use crate::stack::StackError;
use crate::stack::manifest::Shard;
use crate::{Result, TrainError};

const OPTION: &str = "download-cmd";
/// Between two looks at the command and what it wrote.
const PATIENCE: Duration = Duration::from_millis(20);
/// What stays as it is in an address, the path's `/` too.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/');

/// The command, word by word; no shell is asked, so that no name can be anything else than a name.
#[derive(Clone, Debug)]
pub struct FromCommand {
    words: Vec<String>,
    endpoint: String,
}

impl FromCommand {
    /// The command of a template, in words as a shell divides them, for a Hub at `endpoint`. `{url}` stands for a shard's address there, `{out_dir}` for an empty folder
    /// that it is to come to under any name.
    ///
    /// # Errors
    /// [`TrainError::Option`] for a template that is no command, or without one of the two.
    pub fn new(template: &str, endpoint: &str) -> Result<Self> {
        let refused = |why: &str| TrainError::Option {
            option: OPTION,
            why: why.into(),
        };
        let words = shlex::split(template).filter(|words| !words.is_empty());
        let words = words.ok_or_else(|| refused("is no command; check its quotes"))?;
        for part in ["{url}", "{out_dir}"] {
            if !words.iter().any(|word| word.contains(part)) {
                return Err(refused(&format!(
                    "has no {part}; give one, such as 'curl -sSfL {{url}} -o {{out_dir}}/shard'"
                )));
            }
        }
        Ok(FromCommand {
            words,
            endpoint: endpoint.trim_end_matches('/').into(),
        })
    }

    fn start(&self, shard: &Shard, folder: &Path) -> Result<Child> {
        let url = format!(
            "{}/datasets/{}/resolve/{}/{}",
            self.endpoint,
            shard.dataset,
            shard.revision,
            utf8_percent_encode(&shard.path, PLAIN)
        );
        let folder = folder.display().to_string();
        let mut words = self
            .words
            .iter()
            .map(|word| word.replace("{url}", &url).replace("{out_dir}", &folder));
        let program = words.next().unwrap_or_default();
        let child = Command::new(&program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn();
        child.map_err(io_error(program, "check the first word of --download-cmd"))
    }
}

impl Fetch for FromCommand {
    fn fetch(&self, shard: &Shard, to: &Path, stop: &AtomicBool) -> Result<()> {
        let mut folder = to.as_os_str().to_owned();
        folder.push(".part");
        let folder = PathBuf::from(folder);
        let unwritten = || io_error(&folder, "check the space and the permissions there");
        let cleared = match fs::symlink_metadata(&folder) {
            Ok(about) if about.is_dir() => fs::remove_dir_all(&folder),
            Ok(_) => fs::remove_file(&folder),
            Err(_) => Ok(()),
        };
        cleared.and_then(|()| fs::create_dir(&folder)).map_err(unwritten())?;
        let fetched = self
            .start(shard, &folder)
            .and_then(|child| watched(child, shard, &folder, stop));
        let moved = fetched.and_then(|file| fs::rename(file, to).map_err(unwritten()));
        let removed = fs::remove_dir_all(&folder).map_err(unwritten());
        moved.and(removed)
    }
}

/// Waits for a command, which may not write more than the shard's length. Returns the file that it made.
fn watched(mut child: Child, shard: &Shard, folder: &Path, stop: &AtomicBool) -> Result<PathBuf> {
    let wrong = |found| StackError::Size {
        shard: shard.id.clone(),
        expected: shard.bytes,
        found,
        path: folder.to_path_buf(),
    };
    let status = loop {
        let found: u64 = files(folder).iter().map(|(_, bytes)| bytes).sum();
        let over = found > shard.bytes;
        if over || stop.load(Ordering::Relaxed) {
            // It may have ended meanwhile.
            let _ = child.kill();
            let _ = child.wait();
            return Err(if over { wrong(found) } else { StackError::Stopped }.into());
        }
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) => std::thread::sleep(PATIENCE),
            Err(error) => return Err(io_error(folder, "run the command again")(error)),
        }
    };
    if !status.success() {
        let shard = shard.id.clone();
        return Err(StackError::Command { shard, status }.into());
    }
    match files(folder).as_slice() {
        [(file, bytes)] if *bytes == shard.bytes => Ok(file.clone()),
        found => Err(wrong(found.iter().map(|(_, bytes)| bytes).sum()).into()),
    }
}

/// The files below a folder, with their lengths.
fn files(folder: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(about) if about.is_dir() => found.extend(files(&entry.path())),
            Ok(about) => found.push((entry.path(), about.len())),
            Err(_) => {}
        }
    }
    found
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::stack::testing::DataSet;

    #[test]
    fn a_command_brings_what_it_is_asked_for() {
        let data = DataSet::usual(2);
        let never = AtomicBool::new(false);
        let to = data.folder.path().join("to.parquet");
        let whole = data.hub().join(&data.shards[1].path);
        let by = |template: &str| FromCommand::new(template, "https://hub/").unwrap();
        let copy = format!("cp '{}' {{out_dir}}/x --update={{url}}", whole.display());
        let error = by(&copy).fetch(&data.shards[1], &to, &never).unwrap_err().to_string();
        assert!(error.contains("ended with"), "{error}");
        // What the command is given: an address of the Hub, and a folder below which any name will do.
        let script = data.folder.path().join("fetch.sh");
        let address = format!(
            "https://hub/datasets/some/code/resolve/{}/{}",
            "0".repeat(40),
            data.shards[1].path
        );
        let text = format!(
            "test \"$1\" = '{address}' && mkdir \"$2/deep\" && cp '{}' \"$2/deep/any name\"",
            whole.display()
        );
        fs::write(&script, text).unwrap();
        let good = by(&format!("sh {} {{url}} {{out_dir}}", script.display()));
        good.fetch(&data.shards[1], &to, &never).unwrap();
        assert_eq!(fs::read(&to).unwrap(), fs::read(&whole).unwrap());
        let stopped = good.fetch(&data.shards[1], &to, &AtomicBool::new(true)).unwrap_err();
        assert!(matches!(stopped, TrainError::Stack(StackError::Stopped)));
        // More than the shard has is cut off.
        fs::write(&script, "while true; do head -c 100000 /dev/zero; done > \"$2/x\"").unwrap();
        let error = good.fetch(&data.shards[1], &to, &never).unwrap_err().to_string();
        assert!(error.contains("expected"), "{error}");
        assert!(!data.folder.path().join("to.parquet.part").exists());
        for template in ["", "curl 'x", "curl {url}", "curl {out_dir}"] {
            assert!(FromCommand::new(template, "https://hub").is_err(), "{template}");
        }
    }
}
