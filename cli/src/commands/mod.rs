//! The commands, a file each: its options (argh), its checks, its work, its result.

mod bench;
mod chat;
#[cfg(feature = "completions")]
mod completions;
#[cfg(feature = "train")]
mod data;
mod doctor;
pub(crate) mod eval;
#[cfg(feature = "tokenizers")]
mod export;
pub(crate) mod generate;
#[cfg(feature = "tokenizers")]
mod import;
mod inspect;
#[cfg(feature = "train")]
mod plot;
#[cfg(feature = "train")]
mod quickstart;
#[cfg(feature = "train")]
mod report;
#[cfg(feature = "train")]
mod search;
#[cfg(feature = "serve")]
mod serve;
#[cfg(feature = "train")]
mod stack;
#[cfg(feature = "train")]
mod tokenize;
#[cfg(feature = "train")]
mod tokenizer;
#[cfg(feature = "train")]
mod train;

use argh::FromArgs;

#[cfg(feature = "train")]
pub(crate) use bench::report::block_weights;
#[cfg(feature = "train")]
pub(crate) use train::{checkpoint_step, newest_checkpoint};

#[cfg(not(feature = "train"))]
use crate::CliError;
use crate::Result;

/// Commands of a build with the feature `train` alone.
#[cfg(not(feature = "train"))]
const TRAINING: [&str; 9] = [
    "quickstart",
    "data",
    "tokenizer",
    "tokenize",
    "train",
    "search",
    "stack",
    "plot",
    "report",
];

/// Refuses, by its name, a command that this build does not have.
#[cfg(not(feature = "train"))]
pub(crate) fn check_present(name: &str) -> Result<()> {
    if TRAINING.contains(&name) {
        return Err(no_trainer(name));
    }
    #[cfg(not(feature = "tokenizers"))]
    if ["export", "import"].contains(&name) {
        return Err(no_tokenizers(name));
    }
    Ok(())
}

/// The error of what needs tokenizers of every scheme.
#[cfg(not(feature = "tokenizers"))]
pub(crate) fn no_tokenizers(what: &str) -> CliError {
    CliError::Usage(format!(
        "{what}: this build runs .1bit files alone; use one with the feature `tokenizers`, or make a .1bit file there (`onebit export --format 1bit`)"
    ))
}

/// The error of what needs the trainer.
#[cfg(not(feature = "train"))]
pub(crate) fn no_trainer(what: &str) -> CliError {
    CliError::Usage(format!(
        "{what}: this build has no trainer, it runs models; use one with the feature `train`, which `cargo build -p onebit-cli` has"
    ))
}

#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[cfg_attr(
    feature = "train",
    doc = "Trains, scores and runs BitNet b1.58 ternary language models.",
    argh(
        example = "onebit quickstart",
        example = "onebit tokenizer train --input train.txt --vocab-size 4096 --output tokenizer.json",
        example = "onebit tokenize --input train.txt --tokenizer tokenizer.json --output train.tokens",
        example = "onebit train --config wikitext2-cpu --data train.tokens --tokenizer tokenizer.json --output-dir model"
    )
)]
#[cfg_attr(
    not(feature = "train"),
    doc = "Runs and scores BitNet b1.58 ternary language models; this build has no trainer."
)]
#[argh(
    example = "onebit generate --model model --prompt 'The first '",
    note = "`onebit --version` prints the version, the CPU path in use and the GPU driver. ONEBIT_ISA=NAME forces a CPU path (see `onebit doctor`).",
    error_code(0, "done"),
    error_code(1, "failed; one line on stderr says why and what to do"),
    error_code(2, "wrong usage"),
    error_code(130, "interrupted; what a resume needs is saved")
)]
pub struct Onebit {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
enum Command {
    #[cfg(feature = "train")]
    Quickstart(quickstart::Quickstart),
    #[cfg(feature = "train")]
    Data(data::Data),
    #[cfg(feature = "train")]
    Tokenizer(tokenizer::Tokenizer),
    #[cfg(feature = "train")]
    Tokenize(tokenize::Tokenize),
    #[cfg(feature = "train")]
    Train(train::Train),
    #[cfg(feature = "train")]
    Search(search::Search),
    #[cfg(feature = "train")]
    Stack(stack::Stack),
    Eval(eval::Eval),
    Generate(generate::Generate),
    Chat(chat::Chat),
    #[cfg(feature = "serve")]
    Serve(serve::Serve),
    #[cfg(feature = "tokenizers")]
    Export(export::Export),
    #[cfg(feature = "tokenizers")]
    Import(import::Import),
    Inspect(inspect::Inspect),
    Bench(bench::Bench),
    #[cfg(feature = "train")]
    Plot(plot::Plot),
    #[cfg(feature = "train")]
    Report(report::Report),
    Doctor(doctor::Doctor),
    #[cfg(feature = "completions")]
    Completions(completions::Completions),
}

/// Runs a parsed command.
///
/// # Errors
/// What went wrong, as it is told to the user.
pub fn run(onebit: Onebit) -> Result<()> {
    match onebit.command {
        #[cfg(feature = "train")]
        Command::Quickstart(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Data(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Tokenizer(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Tokenize(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Train(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Search(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Stack(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Chat(command) => command.run(),
        #[cfg(feature = "serve")]
        Command::Serve(command) => command.run(),
        #[cfg(feature = "tokenizers")]
        Command::Export(command) => command.run(),
        #[cfg(feature = "tokenizers")]
        Command::Import(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Bench(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Plot(command) => command.run(),
        #[cfg(feature = "train")]
        Command::Report(command) => command.run(),
        Command::Doctor(command) => command.run(),
        #[cfg(feature = "completions")]
        Command::Completions(command) => command.run(),
    }
}
