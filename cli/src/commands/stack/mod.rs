//! `onebit stack`: data sets that are larger than the disk.

mod manifest;
mod train;

use argh::FromArgs;

use crate::Result;

/// Works with a sharded data set of the Hub, such as The Stack.
#[derive(FromArgs, Debug)]
#[argh(subcommand, name = "stack")]
pub struct Stack {
    #[argh(subcommand)]
    command: Command,
}

#[derive(FromArgs, Debug)]
#[argh(subcommand)]
enum Command {
    Manifest(manifest::Manifest),
    Train(Box<train::Train>),
}

impl Stack {
    pub(super) fn run(self) -> Result<()> {
        match self.command {
            Command::Manifest(command) => command.run(),
            Command::Train(command) => command.run(),
        }
    }
}
