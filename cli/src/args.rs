//! What the commands' options have in common: aliases, forms, and checks that come before any work.

use std::fs;
use std::path::Path;
#[cfg(feature = "train")]
use std::path::PathBuf;
#[cfg(feature = "train")]
use std::str::FromStr;

use onebit_model::runtime::{FloatStorage, KvType};

use crate::{CliError, Result};

/// Options whose value is free text, which may itself look like `--name=value`.
const FREE_TEXT: [&str; 3] = ["--prompt", "--stop", "--system"];

/// `--name=value` as two arguments; everything after `--` stays as it is.
pub(crate) fn split_equals(given: Vec<String>) -> Vec<String> {
    let mut out: Vec<String> = Vec::with_capacity(given.len());
    let mut literal = false;
    for argument in given {
        let is_value = out.last().is_some_and(|before| FREE_TEXT.contains(&before.as_str()));
        literal |= argument == "--" && !is_value;
        let split = if literal || is_value {
            None
        } else {
            long_option(&argument)
        };
        match split {
            Some((name, value)) => out.extend([name, value]),
            None => out.push(argument),
        }
    }
    out
}

fn long_option(argument: &str) -> Option<(String, String)> {
    let (name, value) = argument.split_once('=')?;
    let letters = name.strip_prefix("--")?;
    let plain = !letters.is_empty()
        && letters
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    plain.then(|| (name.to_string(), value.to_string()))
}

/// Lines joined by spaces, runs of white space shortened.
pub(crate) fn one_line(text: &str) -> String {
    if !text.contains('\n') {
        return text.to_string();
    }
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The value of `--kv-type`.
pub(crate) fn kv_type(given: Option<&str>) -> Result<KvType> {
    let Some(name) = given else {
        return Ok(KvType::default());
    };
    KvType::by_name(name).ok_or_else(|| {
        let known = KvType::ALL.map(KvType::name).join(", ");
        CliError::Usage(format!("--kv-type: expected one of {known}, found {name:?}"))
    })
}

/// The value of `--head`.
pub(crate) fn head_type(given: Option<&str>) -> Result<FloatStorage> {
    let Some(name) = given else {
        return Ok(FloatStorage::Stored);
    };
    // "as stored" is what it is without the option.
    let known = || {
        FloatStorage::ALL
            .into_iter()
            .filter(|(_, storage)| *storage != FloatStorage::Stored)
    };
    known()
        .find(|(known, _)| *known == name)
        .map(|(_, storage)| storage)
        .ok_or_else(|| {
            let names: Vec<&str> = known().map(|(name, _)| name).collect();
            CliError::Usage(format!("--head: expected one of {}, found {name:?}", names.join(", ")))
        })
}

/// The value of an option that has two names.
pub(crate) fn either<T>(value: Option<T>, name: &str, other: Option<T>, other_name: &str) -> Result<Option<T>> {
    match (value, other) {
        (Some(_), Some(_)) => Err(CliError::Usage(format!(
            "{name} and {other_name} are the same option; give one of them"
        ))),
        (value, other) => Ok(value.or(other)),
    }
}

/// The value of an option that must be there, under either of its names.
pub(crate) fn required<T>(value: Option<T>, name: &str) -> Result<T> {
    value.ok_or_else(|| CliError::Usage(format!("required option not provided: {name}")))
}

/// Parses the text of an option.
#[cfg(feature = "train")]
pub(crate) fn parse<T: FromStr>(text: &str, name: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    text.parse()
        .map_err(|error: T::Err| CliError::Usage(format!("{name}: {error}")))
}

/// Refuses a path that is not a file with something in it.
pub(crate) fn existing_file(path: &Path, option: &str) -> Result<()> {
    let metadata = fs::metadata(path)
        .map_err(|e| CliError::io(path, &format!("read the file of {option},"), &e, "check the path"))?;
    if !metadata.is_file() {
        return Err(CliError::Failed(format!(
            "{option}: {} is not a file; give the path of a file",
            path.display()
        )));
    }
    if metadata.len() == 0 {
        return Err(CliError::Failed(format!(
            "{option}: {} is empty; give a file that holds something",
            path.display()
        )));
    }
    Ok(())
}

/// Refuses a path that is not a directory.
#[cfg(feature = "train")]
pub(crate) fn existing_directory(path: &Path, option: &str) -> Result<()> {
    let metadata = fs::metadata(path)
        .map_err(|e| CliError::io(path, &format!("read the directory of {option},"), &e, "check the path"))?;
    if !metadata.is_dir() {
        return Err(CliError::Failed(format!(
            "{option}: {} is not a directory; give the path of a directory",
            path.display()
        )));
    }
    Ok(())
}

/// Refuses an output that exists (unless forced) or whose directory cannot be written. Nothing is left behind.
pub(crate) fn new_file(path: &Path, option: &str, force: bool) -> Result<()> {
    if path.is_dir() {
        return Err(CliError::Failed(format!(
            "{option}: {} is a directory; give the path of a file",
            path.display()
        )));
    }
    if path.exists() && !force {
        return Err(CliError::Failed(format!(
            "{option}: {} exists already; give another name or --force",
            path.display()
        )));
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    writable(parent, option)
}

/// Makes a directory (and those above it) and refuses one that cannot be written.
#[cfg(feature = "tokenizers")]
pub(crate) fn output_directory(path: &Path, option: &str) -> Result<()> {
    let failed = |e: std::io::Error| {
        CliError::io(
            path,
            &format!("make the directory of {option},"),
            &e,
            "choose one that can be written",
        )
    };
    fs::create_dir_all(path).map_err(failed)?;
    writable(path, option)
}

/// Writes and removes an empty file (named like one that a killed program left, so that it goes if this one is killed): permissions, read-only file systems and full disks all show.
fn writable(directory: &Path, option: &str) -> Result<()> {
    let probe = directory.join(format!(".onebit.{}-0.tmp", std::process::id()));
    let tried = fs::File::create(&probe).and_then(|_| fs::remove_file(&probe));
    tried.map_err(|e| {
        CliError::io(
            directory,
            &format!("write to the directory of {option},"),
            &e,
            "choose one that exists and can be written",
        )
    })
}

/// Paths given by an option and, after it, without one: `--input a b c`.
#[cfg(feature = "train")]
pub(crate) fn paths(option: Vec<PathBuf>, more: Vec<PathBuf>, name: &str) -> Result<Vec<PathBuf>> {
    let all: Vec<PathBuf> = option.into_iter().chain(more).collect();
    if all.is_empty() {
        return Err(CliError::Usage(format!("required option not provided: {name}")));
    }
    for path in &all {
        fs::metadata(path)
            .map_err(|e| CliError::io(path, &format!("read the path of {name},"), &e, "check the path"))?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(given: &[&str]) -> Vec<String> {
        split_equals(given.iter().map(|s| s.to_string()).collect())
    }

    #[test]
    fn values_may_follow_an_equals_sign() {
        assert_eq!(
            split(&["train", "--lr=0.1", "--data", "a=b"]),
            ["train", "--lr", "0.1", "--data", "a=b"]
        );
        assert_eq!(
            split(&["generate", "--prompt", "--x=1"]),
            ["generate", "--prompt", "--x=1"]
        );
        assert_eq!(split(&["plot", "--", "--x=1"]), ["plot", "--", "--x=1"]);
        assert_eq!(split(&["--=1", "-x=1"]), ["--=1", "-x=1"]);
    }

    #[test]
    fn an_alias_is_the_option_itself() {
        assert_eq!(either(Some(1), "--data", None, "--data-dir").unwrap(), Some(1));
        assert_eq!(either(None, "--data", Some(2), "--data-dir").unwrap(), Some(2));
        assert_eq!(either(None::<u8>, "--data", None, "--data-dir").unwrap(), None);
        let both = either(Some(1), "--data", Some(2), "--data-dir").unwrap_err();
        assert!(matches!(both, CliError::Usage(message) if message.contains("--data and --data-dir")));
    }

    #[test]
    fn messages_become_one_line() {
        assert_eq!(
            one_line("Required options:\n    --config\n"),
            "Required options: --config"
        );
        assert_eq!(one_line("a  b"), "a  b");
    }

    #[test]
    fn outputs_are_checked_and_nothing_is_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.svg");
        new_file(&file, "--output", false).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        fs::write(&file, "here").unwrap();
        assert!(
            new_file(&file, "--output", false)
                .unwrap_err()
                .to_string()
                .contains("exists already")
        );
        new_file(&file, "--output", true).unwrap();
        assert!(new_file(dir.path(), "--output", true).is_err());
        assert!(new_file(&dir.path().join("none/x"), "--output", false).is_err());
        #[cfg(feature = "tokenizers")]
        assert!(output_directory(&file.join("below"), "--output-dir").is_err());
    }
}
