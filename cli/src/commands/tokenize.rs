//! `onebit tokenize`: text to a token file.

use std::num::NonZeroU16;
use std::ops::ControlFlow;
use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::tokenizer::Tokenizer;
use onebit_trainer::data::{self, BpeDropoutOptions, DataError, TokenizeOptions};
use serde::Serialize;

use crate::progress::Progress;
use crate::{CliError, Result, args, device, interrupt, output};

/// Turns text into a token file for training and scoring.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "tokenize",
    example = "{command_name} --input train.txt --tokenizer tokenizer.json --output train.tokens --seq-len 256",
    note = "Directories are read recursively in sorted order. Document boundaries are kept, and everything is decoded again and compared with the text. --bpe-dropout 0.1 --passes N is for a training file: validation, scoring and generation take text as it is usually divided, so a validation file is made without."
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
    /// bpe-dropout for training: leave each merge of a byte-level BPE tokenizer out with this probability, so that words are seen in many divisions; below 1 (default: 0)
    #[argh(option)]
    bpe_dropout: Option<f32>,
    /// passes over the text, each divided anew, one behind the other in the file (default: 1; with --bpe-dropout)
    #[argh(option)]
    passes: Option<NonZeroU16>,
    /// seed of what is left out (default: 42; with --bpe-dropout)
    #[argh(option)]
    seed: Option<u64>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    bpe_dropout: Option<BpeDropoutOptions>,
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
        let dropout = self.dropout()?;
        let inputs = args::paths([self.input, self.data_dir].concat(), self.more, "--input")?;
        args::existing_file(&self.tokenizer, "--tokenizer")?;
        args::new_file(&self.output, "--output", self.force)?;
        device::place_on_cpu(self.threads)?;
        let tokenizer = Tokenizer::from_file(&self.tokenizer)?;
        let options = TokenizeOptions {
            force: self.force,
            verify: true,
            seq_len: self.seq_len,
            dropout,
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
            bpe_dropout: dropout,
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
        if let Some(BpeDropoutOptions { p, seed, passes }) = dropout {
            rows.push(("BPE-dropout", format!("{p}, {passes} passes, seed {seed}")));
        }
        output::table(&rows)
    }

    /// What the three options of BPE-dropout ask for.
    fn dropout(&self) -> Result<Option<BpeDropoutOptions>> {
        let p = self.bpe_dropout.unwrap_or(0.0);
        // At 1 the file would hold no token of more than a byte, and the model would never see one.
        if !(0.0..1.0).contains(&p) {
            let problem = format!("--bpe-dropout: expected a probability from 0 to below 1, found {p}");
            return Err(CliError::Usage(problem));
        }
        if p > 0.0 {
            return Ok(Some(BpeDropoutOptions {
                p,
                seed: self.seed.unwrap_or(42),
                passes: self.passes.unwrap_or(NonZeroU16::MIN),
            }));
        }
        let given = [(self.passes.is_some(), "--passes"), (self.seed.is_some(), "--seed")];
        match given.into_iter().find(|(given, _)| *given) {
            Some((_, option)) => Err(CliError::Usage(format!("{option} needs --bpe-dropout above 0"))),
            None => Ok(None),
        }
    }
}
