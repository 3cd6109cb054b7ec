//! The `onebit` command: training, packing, scoring and talking to BitNet b1.58 models.
//!
//! Each command is a file in [`commands`]. Results go to stdout, as JSON objects one a line under `--json`; everything else goes to
//! stderr. The exit status is 0 when the work is done, 1 when it failed (one line `error: what; where; what to do`), 2 for wrong
//! usage and 130 when it was interrupted, after what a resume needs was saved.
//!
//! The program is one line, so that a build of one's own can put something around it:
//!
//! ```no_run
//! fn main() -> std::process::ExitCode {
//!     onebit_cli::main()
//! }
//! ```
#![forbid(unsafe_code)]

mod args;
mod bundled;
mod colour;
pub mod commands;
#[cfg(feature = "tokenizers")]
mod convert;
mod device;
mod error;
#[cfg(feature = "train")]
#[doc(hidden)]
pub mod fuzzing;
mod generation;
mod gpu;
#[cfg(feature = "train")]
mod hub;
mod interrupt;
mod limits;
mod model;
mod output;
#[cfg(feature = "train")]
mod plot;
mod progress;
mod random;
#[cfg(feature = "train")]
mod report;
mod version;
#[cfg(feature = "train")]
mod watch;

use std::process::ExitCode;

use argh::{EarlyExit, FromArgs};

pub use error::CliError;

/// Result of a command.
pub type Result<T, E = CliError> = std::result::Result<T, E>;

/// Exit status of a failed command.
pub(crate) const FAILED: u8 = 1;
/// Exit status of wrong usage.
const USAGE: u8 = 2;
/// Exit status of an interrupted command, as shells have it: 128 and the number of SIGINT.
pub(crate) const INTERRUPTED: u8 = 130;

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let mut given = std::env::args_os();
    let program = given
        .next()
        .map(|name| base_name(&name.to_string_lossy()))
        .unwrap_or_else(|| "onebit".into());
    let mut texts = Vec::new();
    for argument in given {
        match argument.into_string() {
            Ok(text) => texts.push(text),
            Err(bytes) => {
                let shown = bytes.to_string_lossy().into_owned();
                return report(&CliError::Usage(format!(
                    "argument {shown:?} is not UTF-8; rename the file or type it again"
                )));
            }
        }
    }
    if matches!(texts.first().map(String::as_str), Some("--version" | "-V")) {
        return finish(output::text(&version::lines()));
    }
    #[cfg(not(feature = "train"))]
    if let Some(Err(error)) = texts.first().map(|name| commands::check_present(name)) {
        return report(&error);
    }
    match parse(&program, texts) {
        Ok(command) => finish(interrupt::install().and_then(|()| commands::run(command))),
        Err(EarlyExit { output, status: Ok(()) }) => finish(output::text(&output)),
        Err(EarlyExit {
            output,
            status: Err(()),
        }) => report(&CliError::Usage(args::one_line(&output))),
    }
}

/// The command that `arguments` ask for.
fn parse(program: &str, arguments: Vec<String>) -> Result<commands::Onebit, EarlyExit> {
    let texts = args::split_equals(arguments);
    let borrowed: Vec<&str> = texts.iter().map(String::as_str).collect();
    commands::Onebit::from_args(&[program], &borrowed)
}

fn base_name(path: &str) -> String {
    std::path::Path::new(path)
        .file_stem()
        .map_or_else(|| "onebit".into(), |name| name.to_string_lossy().into_owned())
}

fn finish(result: Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report(&error),
    }
}

/// Says what went wrong on one line, and returns the exit status.
fn report(error: &CliError) -> ExitCode {
    let message = args::one_line(&error.to_string());
    match error {
        CliError::ReaderGone => ExitCode::SUCCESS,
        CliError::Ended(status) => ExitCode::from(*status),
        CliError::Interrupted(_) => {
            output::note(&message);
            ExitCode::from(INTERRUPTED)
        }
        CliError::Usage(_) => {
            output::alarm(&format!("{} {message}", colour::alarming("error:")));
            output::note("run `onebit --help` or `onebit COMMAND --help` for what can be given");
            ExitCode::from(USAGE)
        }
        _ => {
            output::alarm(&format!("{} {message}", colour::alarming("error:")));
            ExitCode::from(FAILED)
        }
    }
}
