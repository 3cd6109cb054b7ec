//! `onebit completions`: what a shell needs to complete commands, options and their values.
//!
//! The tree of commands is argh's own account of them (`ArgsInfo`), so nothing can be forgotten. The scripts are written by clap's generator, for which the tree is told once more as a
//! clap command that parses nothing: argh's generator takes `onebit train` for `onebit tokenizer train`, because it looks for a word wherever it stands, and completes no files.

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, FromArgs, Optionality, PositionalInfo};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command};
use clap_complete::Shell;

use crate::{CliError, Result, output};

/// Prints a script that completes commands, options and their values in a shell.
#[derive(FromArgs, ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "completions",
    example = "{command_name} bash > ~/.local/share/bash-completion/completions/onebit",
    example = "{command_name} zsh > ~/.zfunc/_onebit",
    example = "{command_name} fish > ~/.config/fish/completions/onebit.fish",
    note = "For this bash alone: source <(onebit completions bash). zsh looks in the folders of $fpath before compinit."
)]
pub struct Completions {
    /// bash, zsh or fish
    #[argh(positional)]
    shell: String,
}

const SHELLS: [(&str, Shell); 3] = [("bash", Shell::Bash), ("zsh", Shell::Zsh), ("fish", Shell::Fish)];

/// Values that an option or an argument can have, where they are few. A test compares them with the help.
const VALUES: &[(&str, &[&str])] = &[
    ("--device", &["auto", "cpu", "cuda"]),
    ("--kv-type", &["f32", "f16", "int8"]),
    ("--head", &["f32", "f16", "bf16", "int8", "int4"]),
    ("--optimizer", &["adamw", "adamw8bit", "muon"]),
    ("--precision", &["auto", "f32", "bf16"]),
    ("--gradients", &["f32", "bf16"]),
    ("--shard", &["none", "optimizer", "parameters"]),
    ("--lr-decay", &["cosine", "linear", "wsd", "two-stage", "none"]),
    ("--init", &["normal", "mimetic"]),
    ("--quant", &["ternary", "binary", "none"]),
    ("--phase", &["warmup", "hard"]),
    ("--kind", &["bpe", "word"]),
    ("--format", &["1bit", "hf", "gguf"]),
    (
        "--type",
        &["t2", "t5", "packed", "master", "tq2_0", "tq1_0", "i2_s", "f16"],
    ),
    ("--graph", &["bitnet", "bitnet-b1.58", "bitnet-25", "llama"]),
    ("what", &["decode", "prefill", "train", "scaling"]),
    ("shell", &["bash", "zsh", "fish"]),
];

impl Completions {
    pub(super) fn run(self) -> Result<()> {
        let Some((_, shell)) = SHELLS.into_iter().find(|(name, _)| *name == self.shell) else {
            return Err(CliError::Usage(format!(
                "shell: expected bash, zsh or fish, found {:?}",
                self.shell
            )));
        };
        let mut command = described("onebit", &super::Onebit::get_args_info()).arg(
            Arg::new("version")
                .long("version")
                .action(ArgAction::SetTrue)
                .help("print the version"),
        );
        let mut script = Vec::new();
        clap_complete::generate(shell, &mut command, "onebit", &mut script);
        output::text(&String::from_utf8_lossy(&script))
    }
}

/// A command of argh's, and those below it, as one of clap's.
fn described(name: &'static str, info: &CommandInfoWithArgs) -> Command {
    let flags = info.flags.iter().filter(|flag| !flag.hidden).map(flag);
    let positionals = info.positionals.iter().map(positional);
    Command::new(name)
        .about(info.description)
        .disable_help_flag(true)
        .disable_help_subcommand(true)
        .args(flags)
        .args(positionals)
        .subcommands(info.commands.iter().map(|below| described(below.name, &below.command)))
}

fn flag(flag: &FlagInfo<'static>) -> Arg {
    let name = flag.long.trim_start_matches('-');
    // Known by its dashes too, for an argument may have the same name.
    let arg = Arg::new(flag.long).long(name).help(flag.description);
    match flag.kind {
        FlagInfoKind::Switch => arg.action(ArgAction::SetTrue),
        FlagInfoKind::Option { .. } => valued(arg.action(ArgAction::Append).value_name(name), flag.long),
    }
}

fn positional(argument: &PositionalInfo<'static>) -> Arg {
    let arg = Arg::new(argument.name).help(argument.description);
    match argument.optionality {
        Optionality::Repeating | Optionality::Greedy => arg.num_args(0..),
        Optionality::Required | Optionality::Optional => valued(arg, argument.name),
    }
}

/// With the values that it can have. Others complete files, which most of them are.
fn valued(arg: Arg, name: &str) -> Arg {
    match VALUES.iter().find(|(known, _)| *known == name) {
        Some((_, values)) => arg.value_parser(PossibleValuesParser::new(values.iter().copied())),
        None => arg,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every option and argument of a command and of those below it: its name and what its help says.
    fn all(info: &CommandInfoWithArgs, found: &mut Vec<(&'static str, String)>) {
        found.extend(info.flags.iter().map(|flag| (flag.long, flag.description.to_string())));
        let positionals = info.positionals.iter();
        found.extend(positionals.map(|argument| (argument.name, argument.description.to_string())));
        info.commands.iter().for_each(|below| all(&below.command, found));
    }

    #[test]
    fn values_are_those_that_the_help_names() {
        let mut found = Vec::new();
        all(&super::super::Onebit::get_args_info(), &mut found);
        for (name, values) in VALUES {
            let helps: Vec<&String> = found
                .iter()
                .filter(|(known, _)| known == name)
                .map(|(_, help)| help)
                .collect();
            assert!(!helps.is_empty(), "{name} is an option or an argument");
            for value in *values {
                let told = |help: &&String| {
                    let mut words = help.split(|c: char| !(c.is_alphanumeric() || "_-.".contains(c)));
                    words.any(|word| word.trim_end_matches('.') == *value)
                };
                assert!(helps.iter().any(told), "{name}: no help names {value}: {helps:?}");
            }
        }
    }

    #[test]
    fn the_tree_is_one_that_clap_takes() {
        described("onebit", &super::super::Onebit::get_args_info()).debug_assert();
    }
}
