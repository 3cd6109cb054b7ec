//! `onebit tokenizer train`: a vocabulary from text.

use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::tokenizer::{BpeTrainer, WordTrainer};
use onebit_trainer::data::text::Documents;
use serde::Serialize;

use crate::progress::Progress;
use crate::{CliError, Result, args, device, output};

/// Makes tokenizers.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand, name = "tokenizer")]
pub struct Tokenizer {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand)]
enum Command {
    Train(Train),
}

/// Trains a tokenizer on text: the same input gives the same file.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "train",
    example = "{command_name} --input train.txt --vocab-size 4096 --output tokenizer.json",
    note = "`bpe` is byte-level and loses nothing. `word` is for closed vocabularies such as tokenised WikiText: words between white space and one token for the end of each line."
)]
struct Train {
    /// text, JSONL or parquet file (also .gz, .zst), or a directory of them; may be given several times
    #[argh(option)]
    input: Vec<PathBuf>,
    /// further inputs
    #[argh(positional, arg_name = "input")]
    more: Vec<PathBuf>,
    /// tokens of the vocabulary, at least 257 for bpe; for word the default is every word
    #[argh(option)]
    vocab_size: Option<usize>,
    /// bpe or word (default: bpe)
    #[argh(option, default = "String::from(\"bpe\")")]
    kind: String,
    /// the tokenizer.json to write
    #[argh(option)]
    output: PathBuf,
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
struct Trained {
    output: PathBuf,
    kind: String,
    vocab_size: usize,
    bytes: u64,
    seconds: f64,
}

enum Trainer {
    Bpe(BpeTrainer),
    Word(WordTrainer),
}

impl Tokenizer {
    pub(super) fn run(self) -> Result<()> {
        let Command::Train(train) = self.command;
        train.run()
    }
}

impl Train {
    fn run(self) -> Result<()> {
        let mut trainer = match (self.kind.as_str(), self.vocab_size) {
            ("bpe", Some(size)) => Trainer::Bpe(BpeTrainer::new(size)?),
            ("bpe", None) => {
                return Err(CliError::Usage(
                    "required option not provided: --vocab-size (for --kind bpe)".into(),
                ));
            }
            ("word", size) => Trainer::Word(WordTrainer::new(size)?),
            (other, _) => {
                return Err(CliError::Usage(format!(
                    "--kind: expected bpe or word, found {other:?}"
                )));
            }
        };
        let inputs = args::paths(self.input, self.more, "--input")?;
        args::new_file(&self.output, "--output", self.force)?;
        device::place_on_cpu(self.threads)?;
        let start = std::time::Instant::now();
        let mut documents = Documents::open(&inputs)?;
        let progress = Progress::new("reading", documents.bytes_total());
        let mut bytes = 0;
        while let Some(piece) = documents.next() {
            let piece = piece?;
            bytes += piece.text.len() as u64;
            match &mut trainer {
                Trainer::Bpe(trainer) => trainer.feed(&piece.text),
                Trainer::Word(trainer) => trainer.feed(&piece.text),
            }
            progress.set(documents.bytes_read(), String::new);
        }
        drop(progress);
        let tokenizer = match trainer {
            Trainer::Bpe(trainer) => trainer.finish()?,
            Trainer::Word(trainer) => trainer.finish()?,
        };
        tokenizer.save(&self.output)?;
        let seconds = start.elapsed().as_secs_f64();
        let result = Trained {
            output: self.output,
            kind: self.kind,
            vocab_size: tokenizer.vocab_size(),
            bytes,
            seconds,
        };
        if self.json {
            return output::json(&result);
        }
        output::line(&format!(
            "{}: {} tokens ({}) from {} in {}",
            result.output.display(),
            result.vocab_size,
            result.kind,
            output::bytes(bytes),
            output::seconds(seconds)
        ))
    }
}
