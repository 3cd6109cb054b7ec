//! `onebit stack`: data sets that are larger than the disk.

mod manifest;
mod train;

use argh::FromArgs;

use crate::Result;

/// Works with a sharded data set of the Hub, such as The Stack.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand, name = "stack")]
pub struct Stack {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(subcommand)]
#[allow(clippy::large_enum_variant, reason = "one is made, once")]
enum Command {
    Manifest(manifest::Manifest),
    Train(train::Train),
}

impl Stack {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            Command::Manifest(command) => command.run(),
            Command::Train(command) => command.run(),
        }
    }
}
