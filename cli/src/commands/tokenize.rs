//! `onebit tokenize`: text to a token file.

use std::ops::ControlFlow;
use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::tokenizer::Tokenizer;
use onebit_trainer::data::{self, DataError, TokenizeOptions};
use serde::Serialize;

use crate::progress::Progress;
use crate::{CliError, Result, args, device, interrupt, output};

/// Turns text into a token file for training and scoring.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "tokenize",
    example = "{command_name} --input train.txt --tokenizer tokenizer.json --output train.tokens --seq-len 256",
    note = "Directories are read recursively in sorted order. Document boundaries are kept, and everything is decoded again and compared with the text."
)]
pub struct Tokenize {
    /// text, JSONL (`text`, `content`) or parquet file (also .gz, .zst), or a directory of them; may be given several times
    #[argh(option)]
    input: Vec<PathBuf>,
    /// the same as --input
    #[argh(option)]
    data_dir: Vec<PathBuf>,
    /// further inputs
    #[argh(positional, arg_name = "input")]
    more: Vec<PathBuf>,
    /// the tokenizer.json
    #[argh(option)]
    tokenizer: PathBuf,
    /// the token file to write
    #[argh(option)]
    output: PathBuf,
    /// check that windows of this many tokens exist (default: no check)
    #[argh(option)]
    seq_len: Option<usize>,
    /// write over an existing file
    #[argh(switch)]
    force: bool,
    /// threads (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// The result.
#[derive(Serialize)]
struct Tokenized {
    #[serde(flatten)]
    summary: data::Summary,
    tokens_per_byte: f64,
    windows: Option<u64>,
    seconds: f64,
}

impl Tokenize {
    pub(super) fn run(self) -> Result<()> {
        if !self.input.is_empty() && !self.data_dir.is_empty() {
            return Err(CliError::Usage(
                "--input and --data-dir are the same option; give one of them".into(),
            ));
        }
        if self.seq_len == Some(0) {
            return Err(CliError::Usage("--seq-len: expected at least 1, found 0".into()));
        }
        let inputs = args::paths([self.input, self.data_dir].concat(), self.more, "--input")?;
        args::existing_file(&self.tokenizer, "--tokenizer")?;
        args::new_file(&self.output, "--output", self.force)?;
        device::place_on_cpu(self.threads)?;
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let options = TokenizeOptions {
            force: self.force,
            verify: true,
            seq_len: self.seq_len,
        };
        let start = std::time::Instant::now();
        let mut progress = None;
        interrupt::poll();
        let summary = data::tokenize(&inputs, &tokenizer, &self.output, &options, &mut |now| {
            let progress = progress.get_or_insert_with(|| Progress::new("tokenizing", now.bytes_total));
            progress.set(now.bytes_read, || format!("{} tokens", output::count(now.tokens)));
            if interrupt::requested() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        drop(progress);
        let summary = summary.map_err(|error| match error {
            DataError::Interrupted => {
                CliError::Interrupted("interrupted; no token file was written; run the command again".into())
            }
            error => error.into(),
        })?;
        let seconds = start.elapsed().as_secs_f64();
        let windows = self.seq_len.map(|n| (summary.tokens - 1) / n as u64);
        let tokens_per_byte = summary.tokens as f64 / summary.source_bytes.max(1) as f64;
        let result = Tokenized {
            summary,
            tokens_per_byte,
            windows,
            seconds,
        };
        if self.json {
            return output::json(&result);
        }
        let s = &result.summary;
        let mut rows = vec![
            ("file", s.path.display().to_string()),
            ("tokens", s.tokens.to_string()),
            ("documents", s.documents.to_string()),
            (
                "text",
                format!("{}, {} words", output::bytes(s.source_bytes), s.source_words),
            ),
            ("bytes a token", format!("{:.3}", 1.0 / tokens_per_byte)),
        ];
        if s.unknown > 0 {
            rows.push(("unknown", format!("{} tokens outside the vocabulary", s.unknown)));
        }
        if let (Some(windows), Some(length)) = (windows, self.seq_len) {
            rows.push(("windows", format!("{windows} of {length} tokens")));
        }
        output::table(&rows)
    }
}
