//! `onebit data`: corpora under their usual names.

mod download;

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use argh::FromArgs;
use serde::Serialize;

use self::download::Download;
use crate::{CliError, Result, args, output};

/// Gets training data.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand, name = "data")]
pub struct Data {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand)]
enum Command {
    WikiText2(WikiText2),
}

/// Downloads WikiText-2 from the Hugging Face Hub, or takes it from a local directory.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "wikitext2",
    example = "{command_name}",
    example = "{command_name} --from ~/wikitext-2 --output-dir data/wikitext-2",
    note = "The download (Salesforce/wikitext, wikitext-2-v1) is checked by SHA-256; one that was interrupted goes on where it was when the command is run again. HF_ENDPOINT names another Hub, HF_TOKEN says who asks, which is not needed.",
    note = "A local copy's files are found under the names train, valid (or validation) and test with .txt, .tokens, .raw or wiki.*.tokens as WikiText names them; test may be missing."
)]
struct WikiText2 {
    /// where train.txt, valid.txt and test.txt go (default: data/wikitext-2)
    #[argh(option, default = "PathBuf::from(\"data/wikitext-2\")")]
    output_dir: PathBuf,
    /// a local copy (default: it is downloaded)
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

/// Where a split's text is, and where it goes.
struct Source {
    split: &'static str,
    from: PathBuf,
    to: PathBuf,
}

impl Source {
    /// A split whose text is nowhere yet.
    fn nowhere(split: &'static str, output_dir: &Path) -> Self {
        Self {
            split,
            from: PathBuf::new(),
            to: output_dir.join(format!("{split}.txt")),
        }
    }
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
        let download = Download::of(&self.output_dir);
        let sources = match &self.from {
            Some(from) => {
                let sources = local(from, &self.output_dir)?;
                self.check_new(&sources)?;
                sources
            }
            None => {
                // What an earlier run of this command has finished may be written over.
                if !download.was_naming() {
                    self.check_new(&SPLITS.map(|(split, _)| Source::nowhere(split, &self.output_dir)))?;
                }
                download.run(&self.output_dir)?
            }
        };
        // Counted before anything has its name, so that a damaged copy leaves nothing behind.
        let mut splits = Vec::new();
        for source in &sources {
            let (bytes, lines, words) = measure(&source.from)?;
            splits.push(Split {
                split: source.split,
                path: source.to.clone(),
                bytes,
                lines,
                words,
            });
        }
        args::output_directory(&self.output_dir, "--output-dir")?;
        match self.from {
            Some(_) => sources.iter().try_for_each(|source| copy(&source.from, &source.to))?,
            None => download.finish(&sources, &self.output_dir)?,
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

    /// Refuses to write over anything unasked.
    fn check_new(&self, sources: &[Source]) -> Result<()> {
        match sources.iter().find(|source| source.to.exists() && !self.force) {
            Some(source) => Err(CliError::Failed(format!(
                "--output-dir: {} exists already; give another directory or --force",
                source.to.display()
            ))),
            None => Ok(()),
        }
    }
}

/// The splits of a local copy.
fn local(from: &Path, output_dir: &Path) -> Result<Vec<Source>> {
    args::existing_directory(from, "--from")?;
    let mut sources = Vec::new();
    for (split, names) in SPLITS {
        match names.iter().map(|name| from.join(name)).find(|path| path.is_file()) {
            Some(path) => {
                args::existing_file(&path, "--from")?;
                sources.push(Source {
                    from: path,
                    ..Source::nowhere(split, output_dir)
                });
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
    Ok(sources)
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
