//! `onebit import`: a model of whatever kind as a model directory.

use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::files::DirectoryOptions;
use serde_json::json;

use crate::convert::{self, Subject};
use crate::{CliError, Result, args, output};

/// Makes a model directory of a model in somebody else's files.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "import",
    example = "{command_name} bit_model.bin --output-dir model",
    example = "{command_name} model.gguf --output-dir model",
    note = "The kind is told by what is in the file. Packed weights stay packed, float weights stay as they are, and every tensor keeps its type. Tensors are converted one at a time: the memory it takes is that of a few of the largest."
)]
pub struct Import {
    /// the model: a Hugging Face directory, a .1bit file, a .gguf file or a bit_model.bin of bitllama2.c
    #[argh(positional)]
    path: Option<PathBuf>,
    /// tokenizer.json to put in (default: the model's, or the one beside it)
    #[argh(option)]
    tokenizer: Option<PathBuf>,
    /// the directory to write
    #[argh(option)]
    output_dir: Option<PathBuf>,
    /// write into a directory that is not empty
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

impl Import {
    pub(super) fn run(self) -> Result<()> {
        let Some(path) = self.path else {
            return Err(CliError::Usage(
                "required argument not provided: the path of a model".into(),
            ));
        };
        let output = args::required(self.output_dir, "--output-dir")?;
        if let Some(tokenizer) = &self.tokenizer {
            args::existing_file(tokenizer, "--tokenizer")?;
        }
        convert::new_directory(&output, Some(&path), "--output-dir", self.force)?;
        let subject = Subject::read(&path, self.tokenizer.as_deref())?;
        let options = DirectoryOptions {
            pack: false,
            ..Default::default()
        };
        let bytes = subject.write_directory(&output, &options)?;
        if self.json {
            return output::json(
                &json!({ "output": output, "bytes": bytes, "tokenizer": subject.tokenizer.is_some() }),
            );
        }
        output::line(&format!("{}: {}", output.display(), output::bytes(bytes)))
    }
}
