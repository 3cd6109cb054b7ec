//! `onebit data`: corpora under their usual names.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use argh::FromArgs;
use serde::Serialize;

use crate::{CliError, Result, args, output};

/// Gets training data.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "data")]
pub struct Data {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    WikiText2(WikiText2),
}

/// Copies WikiText-2 from a local directory and checks it.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "wikitext2",
    example = "{command_name} --from ~/wikitext-2 --output-dir data/wikitext-2",
    note = "Files are found under the names train, valid (or validation) and test with .txt, .tokens, .raw or wiki.*.tokens as WikiText names them; test may be missing."
)]
struct WikiText2 {
    /// where the copy goes (default: data/wikitext-2)
    #[argh(option, default = "PathBuf::from(\"data/wikitext-2\")")]
    output_dir: PathBuf,
    /// the local copy
    #[argh(option)]
    from: Option<PathBuf>,
    /// write over existing files
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// One split of the corpus.
#[derive(Serialize)]
struct Split {
    split: &'static str,
    path: PathBuf,
    bytes: u64,
    lines: u64,
    words: u64,
}

/// Names of a split's file, in the order in which they are tried.
const SPLITS: [(&str, &[&str]); 3] = [
    (
        "train",
        &["train.txt", "wiki.train.tokens", "wiki.train.raw", "train.raw"],
    ),
    (
        "valid",
        &[
            "valid.txt",
            "validation.txt",
            "wiki.valid.tokens",
            "wiki.valid.raw",
            "valid.raw",
        ],
    ),
    ("test", &["test.txt", "wiki.test.tokens", "wiki.test.raw", "test.raw"]),
];

impl Data {
    pub(super) fn run(self) -> Result<()> {
        let Command::WikiText2(command) = self.command;
        command.run()
    }
}

impl WikiText2 {
    fn run(self) -> Result<()> {
        let Some(from) = &self.from else {
            return Err(CliError::Failed(
                "data wikitext2: downloading is not part of this version; get Salesforce/wikitext (wikitext-2-v1) from the Hugging Face Hub and pass its directory by --from DIR".into(),
            ));
        };
        args::existing_directory(from, "--from")?;
        let mut found = Vec::new();
        for (split, names) in SPLITS {
            match names.iter().map(|name| from.join(name)).find(|path| path.is_file()) {
                Some(path) => {
                    args::existing_file(&path, "--from")?;
                    let target = self.output_dir.join(format!("{split}.txt"));
                    if target.exists() && !self.force {
                        return Err(CliError::Failed(format!(
                            "--output-dir: {} exists already; give another directory or --force",
                            target.display()
                        )));
                    }
                    found.push((split, path, target));
                }
                None if split == "test" => {}
                None => {
                    return Err(CliError::Failed(format!(
                        "--from: {} holds none of {}; give a copy of WikiText-2",
                        from.display(),
                        names.join(", ")
                    )));
                }
            }
        }
        // Counted before anything is written, so that a damaged copy leaves nothing behind.
        let mut splits = Vec::new();
        for (split, path, target) in &found {
            let (bytes, lines, words) = measure(path)?;
            splits.push(Split {
                split,
                path: target.clone(),
                bytes,
                lines,
                words,
            });
        }
        args::output_directory(&self.output_dir, "--output-dir")?;
        for (_, path, target) in &found {
            copy(path, target)?;
        }
        if self.json {
            return output::json(&splits);
        }
        for s in &splits {
            output::line(&format!(
                "{}: {}, {} lines, {} words",
                s.path.display(),
                output::bytes(s.bytes),
                s.lines,
                s.words
            ))?;
        }
        Ok(())
    }
}

/// Bytes, lines and words of a UTF-8 text.
fn measure(path: &Path) -> Result<(u64, u64, u64)> {
    let failed = |e: std::io::Error| CliError::io(path, "read", &e, "the text must be UTF-8; get the file again");
    let mut reader = BufReader::with_capacity(1 << 20, File::open(path).map_err(failed)?);
    let (mut bytes, mut lines, mut words) = (0, 0, 0);
    let mut line = String::new();
    loop {
        line.clear();
        match reader.read_line(&mut line).map_err(failed)? {
            0 => return Ok((bytes, lines, words)),
            n => {
                bytes += n as u64;
                lines += 1;
                words += line.split_whitespace().count() as u64;
            }
        }
    }
}

/// Copies under a temporary name, then renames.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let partial = to.with_extension(format!("{}.partial", std::process::id()));
    let copied = fs::copy(from, &partial)
        .and_then(|_| File::open(&partial)?.sync_all())
        .and_then(|()| fs::rename(&partial, to));
    copied.map_err(|e| {
        let _ = fs::remove_file(&partial);
        CliError::io(to, "write", &e, "check the space and the permissions there")
    })
}
