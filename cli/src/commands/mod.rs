//! The commands, a file each: its options (argh), its checks, its work, its result.

mod bench;
mod chat;
mod data;
mod doctor;
pub(crate) mod eval;
mod export;
pub(crate) mod generate;
mod import;
mod inspect;
mod plot;
mod quickstart;
mod tokenize;
mod tokenizer;
mod train;

use argh::FromArgs;

use crate::Result;

/// Trains, scores and runs BitNet b1.58 ternary language models.
#[derive(FromArgs, Debug)]
#[argh(
    example = "onebit quickstart",
    example = "onebit tokenizer train --input train.txt --vocab-size 4096 --output tokenizer.json",
    example = "onebit tokenize --input train.txt --tokenizer tokenizer.json --output train.tokens",
    example = "onebit train --config wikitext2-cpu --data train.tokens --tokenizer tokenizer.json --output-dir model",
    example = "onebit generate --model model --prompt 'The first '",
    note = "`onebit --version` prints the version. ONEBIT_ISA=NAME forces a CPU path (see `onebit doctor`).",
    error_code(0, "done"),
    error_code(1, "failed; one line on stderr says why and what to do"),
    error_code(2, "wrong usage"),
    error_code(130, "interrupted; what a resume needs is saved")
)]
pub struct Onebit {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Quickstart(quickstart::Quickstart),
    Data(data::Data),
    Tokenizer(tokenizer::Tokenizer),
    Tokenize(tokenize::Tokenize),
    Train(Box<train::Train>),
    Eval(eval::Eval),
    Generate(generate::Generate),
    Chat(chat::Chat),
    Export(export::Export),
    Import(import::Import),
    Inspect(inspect::Inspect),
    Bench(bench::Bench),
    Plot(plot::Plot),
    Doctor(doctor::Doctor),
}

/// Runs a parsed command.
///
/// # Errors
/// What went wrong, as it is told to the user.
pub fn run(onebit: Onebit) -> Result<()> {
    match onebit.command {
        Command::Quickstart(command) => command.run(),
        Command::Data(command) => command.run(),
        Command::Tokenizer(command) => command.run(),
        Command::Tokenize(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Generate(command) => command.run(),
        Command::Chat(command) => command.run(),
        Command::Export(command) => command.run(),
        Command::Import(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Plot(command) => command.run(),
        Command::Doctor(command) => command.run(),
    }
}
