//! `onebit export`: a model as one file, as a directory for `transformers`, or as a GGUF file.

mod gguf;
mod map;

use std::path::{Path, PathBuf};

use argh::FromArgs;
use onebit_kernels_cpu::ternary::Layout;
use onebit_model::config::{FeedForward, LinearKind, LinearMode, ModelConfig};
use onebit_model::files::gguf::GGUF_EXTENSION;
use onebit_model::files::{
    DirectoryOptions, HighPrecision, ONE_FILE_EXTENSION, OneFile, OneFileOptions, StoredAs, TernaryLayout,
};
use serde_json::json;

use crate::convert::{self, Subject};
use crate::random::{self, RandomModel};
use crate::{CliError, Result, args, device, output};

/// Writes a model as one .1bit file, from which it runs without being converted or copied, as a directory that transformers opens, or as a GGUF file for llama.cpp or bitnet.cpp.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "export",
    example = "{command_name} --model model --format 1bit --output model.1bit",
    example = "{command_name} --model model.1bit --format hf --output directory",
    example = "{command_name} --model model --format gguf --type tq2_0 --output model.gguf",
    example = "{command_name} --model model --map map.json --point 3 --format 1bit --output small.1bit",
    example = "{command_name} --shape 0.7b --tokenizer tokenizer.json --format 1bit --output random.1bit",
    note = "Tensors are converted one at a time: the memory it takes is that of a few of the largest.",
    note = "The file holds the weights as inference keeps them, a sketch of a large head, on request the columns of down_proj, the configuration, the tokenizer, the sampling settings and the chat template. It is a safetensors container. `onebit inspect F.1bit --verify` reads all of it and compares its checksum."
)]
pub struct Export {
    #[cfg_attr(
        feature = "bundled",
        doc = "the model: a directory, a .1bit file (which is verified first), a .gguf file, a bit_model.bin of bitllama2.c, or the name of a bundled one: wikitext2-25m"
    )]
    #[cfg_attr(
        not(feature = "bundled"),
        doc = "the model: a directory, a .1bit file (which is verified first), a .gguf file or a bit_model.bin of bitllama2.c"
    )]
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// random weights of this shape instead of a model, to measure with: 25m, 125m, 350m, 0.7b, 1b3, 2b4t or 8b
    #[argh(option)]
    shape: Option<String>,
    /// seed of the random weights (default: 0)
    #[argh(option)]
    seed: Option<u64>,
    /// tokenizer.json to put in (default: the model's)
    #[argh(option)]
    tokenizer: Option<PathBuf>,
    /// what to write: 1bit (one file), hf (a model directory of Hugging Face's) or gguf (a file for llama.cpp and bitnet.cpp)
    #[argh(option)]
    format: Option<String>,
    /// how the ternary linears lie. For 1bit: t2 (two bits a weight) or t5 (1.6 bits, where rows are long enough) (default: t5). For hf: packed (two bits a weight) or master (float weights, of a model that has them) (default: packed). For gguf: tq2_0 (2.06 bits), tq1_0 (1.69 bits), i2_s (two bits, bitnet.cpp alone) or f16 (default: tq2_0)
    #[argh(option, long = "type")]
    layout: Option<String>,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored). A directory has the first three, for everything that is not packed; a GGUF file those, q8_0, q6_k and q4_0
    #[argh(option)]
    head: Option<String>,
    /// a map.json of `onebit search`: every matrix gets the width that its chosen map says, or that of --point; for --format 1bit
    #[argh(option)]
    map: Option<PathBuf>,
    /// which map of the front of --map, counted from 0 (default: the chosen one)
    #[argh(option)]
    point: Option<usize>,
    /// leave out the sketch of the head, which finds the likeliest tokens without reading all of the head, and is as large as a quarter of one in f16
    #[argh(switch)]
    no_sketch: bool,
    /// put the weights of down_proj in once more, by columns: decoding then skips those whose input is 0, and the file grows by a quarter to a third of the ternary weights; for models with a ReLU² activation
    #[argh(switch)]
    columns: bool,
    /// the network that a GGUF file names: bitnet (SwiGLU and sub-norms; llama.cpp), bitnet-b1.58 (ReLU² and sub-norms; bitnet.cpp), bitnet-25 (an older name of it) or llama (SwiGLU, no sub-norms); refused if the model is another (default: the one that the model is)
    #[argh(option)]
    graph: Option<String>,
    /// general.name in a GGUF file (default: none)
    #[argh(option)]
    name: Option<String>,
    /// write a C header for firmware beside the file, under its name with .h: sizes, and place, layout and scale of each tensor
    #[argh(switch)]
    emit_c_header: bool,
    /// the file or the directory to write
    #[argh(option)]
    output: Option<PathBuf>,
    /// replace the file if it is there, or write into a directory that is not empty
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

impl Export {
    pub(super) fn run(self) -> Result<()> {
        let path = args::either(self.model.clone(), "--model", self.model_dir.clone(), "--model-dir")?;
        let output = args::required(self.output.clone(), "--output")?;
        let format = args::required(self.format.clone(), "--format")?;
        self.refuse_options_of_others(&format)?;
        match format.as_str() {
            ONE_FILE_EXTENSION => self.one_file(path.as_deref(), &output),
            "hf" => self.directory(path.as_deref(), &output),
            GGUF_EXTENSION => self.gguf(path.as_deref(), &output),
            other => Err(CliError::Usage(format!(
                "--format: expected 1bit, hf or gguf, found {other:?}"
            ))),
        }
    }

    /// Options that would do nothing for this format.
    fn refuse_options_of_others(&self, format: &str) -> Result<()> {
        for (given, option, only) in [
            (self.no_sketch, "--no-sketch", ONE_FILE_EXTENSION),
            (self.columns, "--columns", ONE_FILE_EXTENSION),
            (self.map.is_some(), "--map", ONE_FILE_EXTENSION),
            (self.emit_c_header, "--emit-c-header", ONE_FILE_EXTENSION),
            (self.graph.is_some(), "--graph", GGUF_EXTENSION),
            (self.name.is_some(), "--name", GGUF_EXTENSION),
        ] {
            if given && only != format {
                return Err(CliError::Usage(format!(
                    "{option} is for --format {only}; leave it out"
                )));
            }
        }
        Ok(())
    }

    fn one_file(&self, path: Option<&Path>, output: &Path) -> Result<()> {
        let storage = args::head_type(self.head.as_deref())?;
        if output.extension().is_none_or(|e| e != ONE_FILE_EXTENSION) {
            return Err(CliError::Usage(format!(
                "--output: expected a name that ends in .1bit, found {}",
                output.display()
            )));
        }
        let layout = match self.layout.as_deref() {
            None | Some("t5") => TernaryLayout::Smallest,
            Some("t2") => TernaryLayout::All(Layout::T2),
            Some(other) => return Err(CliError::Usage(format!("--type: expected t2 or t5, found {other:?}"))),
        };
        args::new_file(output, "--output", self.force)?;
        let header = self.emit_c_header.then(|| output.with_extension("h"));
        if let Some(header) = &header {
            args::new_file(header, "--emit-c-header", self.force)?;
        }
        // Before any work: it says how many threads there are.
        let threads = device::place_on_cpu(None)?.threads;
        let subject = self.subject(path)?;
        let config = subject.source().config();
        if let Some(map) = self.map()? {
            let modes = map::read(&map.0, map.1, config)?;
            let file = subject.write_map(subject.source(), output, &modes, header.as_deref())?;
            return self.tell(&subject, output, &file);
        }
        if self.columns {
            check_columns(config)?;
        }
        let options = OneFileOptions {
            layout,
            storage,
            columns: self.columns,
            sketch_above: (!self.no_sketch).then_some(OneFileOptions::SKETCH_ABOVE),
            threads,
        };
        let file = subject.write_one_file(output, &options, header.as_deref())?;
        self.tell(&subject, output, &file)
    }

    /// The file of --map and which of its maps is meant, if it is given.
    fn map(&self) -> Result<Option<(PathBuf, Option<usize>)>> {
        let Some(map) = &self.map else {
            return match self.point {
                Some(_) => Err(CliError::Usage("--point is for --map; give both".into())),
                None => Ok(None),
            };
        };
        for (given, option) in [
            (self.head.is_some(), "--head"),
            (self.layout.is_some(), "--type"),
            (self.columns, "--columns"),
            (self.no_sketch, "--no-sketch"),
            (self.shape.is_some(), "--shape"),
        ] {
            if given {
                return Err(CliError::Usage(format!(
                    "{option}: the map says how everything lies, as small as it can be; leave it out"
                )));
            }
        }
        args::existing_file(map, "--map")?;
        Ok(Some((map.clone(), self.point)))
    }

    /// Says what was written.
    fn tell(&self, subject: &Subject, output: &Path, file: &OneFile) -> Result<()> {
        let bytes = file.file_bytes() as u64;
        if self.json {
            let of = |wanted: &dyn Fn(&str) -> bool| -> usize {
                file.parts()
                    .filter(|(name, _)| wanted(name))
                    .map(|(_, bytes)| bytes)
                    .sum()
            };
            return output::json(&json!({
                "output": output,
                "bytes": bytes,
                "tokenizer": subject.tokenizer.is_some(),
                "sketch_bytes": of(&|name| name.starts_with("onebit.sketch.")),
                "column_bytes": of(&|name| name.ends_with(".columns")),
            }));
        }
        output::line(&format!("{}: {}", output.display(), output::bytes(bytes)))
    }

    fn directory(&self, path: Option<&Path>, output: &Path) -> Result<()> {
        let pack = match self.layout.as_deref() {
            None | Some("packed") => true,
            Some("master") => false,
            Some(other) => {
                return Err(CliError::Usage(format!(
                    "--type: expected packed or master, found {other:?}"
                )));
            }
        };
        let floats = match self.head.as_deref() {
            None => None,
            Some("f32") => Some(HighPrecision::F32),
            Some("f16") => Some(HighPrecision::F16),
            Some("bf16") => Some(HighPrecision::BF16),
            Some(other) => {
                return Err(CliError::Usage(format!(
                    "--head: a directory has f32, f16 or bf16, found {other:?}"
                )));
            }
        };
        convert::new_directory(output, path, "--output", self.force)?;
        let subject = self.subject(path)?;
        if !pack {
            check_master(&subject)?;
        }
        let options = DirectoryOptions {
            pack,
            floats,
            ..Default::default()
        };
        let bytes = subject.write_directory(output, &options)?;
        if self.json {
            return output::json(
                &json!({ "output": output, "bytes": bytes, "tokenizer": subject.tokenizer.is_some() }),
            );
        }
        output::line(&format!("{}: {}", output.display(), output::bytes(bytes)))
    }

    /// What the options name.
    fn subject(&self, path: Option<&Path>) -> Result<Subject> {
        let tokenizer = self.tokenizer.as_deref();
        if let Some(tokenizer) = tokenizer {
            args::existing_file(tokenizer, "--tokenizer")?;
        }
        match (path, &self.shape) {
            (Some(_), Some(_)) => Err(CliError::Usage(
                "--model and --shape both say what to export; give one of them".into(),
            )),
            (Some(_), None) if self.seed.is_some() => {
                Err(CliError::Usage("--seed is for the random weights of --shape".into()))
            }
            (Some(path), None) => Subject::read(path, tokenizer),
            (None, Some(shape)) => {
                let model = RandomModel::new(random::config(shape)?, self.seed.unwrap_or(0));
                Subject::random(model, tokenizer)
            }
            (None, None) => Err(CliError::Usage(
                "required option not provided: --model (or --shape)".into(),
            )),
        }
    }
}

/// Whether the model can have columns.
fn check_columns(config: &ModelConfig) -> Result<()> {
    let refused = |why: &str| Err(CliError::Failed(format!("--columns: {why}; leave it out")));
    if config.feed_forward == FeedForward::SwiGlu {
        return refused(
            "this model's activation is SwiGLU, after which hardly any value is 0, so there is nothing to skip",
        );
    }
    let ternary = |mode| matches!(mode, LinearMode::Ternary | LinearMode::Binary);
    match config
        .layer_modes
        .iter()
        .any(|modes| ternary(modes.get(LinearKind::Down)))
    {
        true => Ok(()),
        false => refused("no down_proj of this model is ternary or binary"),
    }
}

/// Refuses float weights of a model whose weights are packed.
fn check_master(subject: &Subject) -> Result<()> {
    let source = subject.source();
    for spec in source.config().tensors() {
        if source.stored(&spec.name)? == StoredAs::Trits {
            return Err(onebit_model::files::FileError::Packed {
                path: source.path().to_path_buf(),
            }
            .into());
        }
    }
    Ok(())
}
