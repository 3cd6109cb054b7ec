//! `onebit export`: a model as one file.

use std::path::{Path, PathBuf};

use argh::FromArgs;
use onebit_kernels_cpu::{Isa, ternary::Layout};
use onebit_model::chat::ChatTemplate;
use onebit_model::config::FeedForward;
use onebit_model::files::{ONE_FILE_EXTENSION, Parts, save_one_file};
use onebit_model::runtime::{FloatStorage, PackedModel, Pool, WeightBytes};
use onebit_model::tokenizer::Tokenizer;
use serde_json::json;

use crate::model::ModelDirectory;
use crate::progress::Progress;
use crate::{CliError, Result, args, device, output, random};

/// Writes a model as one .1bit file, from which it runs without being converted or copied.
#[derive(FromArgs, Debug)]
#[argh(
    subcommand,
    name = "export",
    example = "{command_name} --model model --format 1bit --output model.1bit",
    example = "{command_name} --shape 0.7b --tokenizer tokenizer.json --format 1bit --output random.1bit",
    note = "The file holds the weights as inference keeps them, a sketch of a large head, on request the columns of down_proj, the configuration, the tokenizer, the sampling settings and the chat template. It is a safetensors container. `onebit inspect F.1bit --verify` reads all of it and compares its checksum."
)]
pub struct Export {
    /// the model directory, or a .1bit file (which is verified first)
    #[argh(option)]
    model: Option<PathBuf>,
    /// the same as --model
    #[argh(option)]
    model_dir: Option<PathBuf>,
    /// random weights of this shape instead of a model, to measure with: 25m, 125m, 350m, 0.7b, 1b3 or 2b4t
    #[argh(option)]
    shape: Option<String>,
    /// seed of the random weights (default: 0)
    #[argh(option)]
    seed: Option<u64>,
    /// tokenizer.json to put in (default: the model's)
    #[argh(option)]
    tokenizer: Option<PathBuf>,
    /// what to write: 1bit
    #[argh(option)]
    format: Option<String>,
    /// layout of the ternary linears: t2 (two bits a weight) or t5 (1.6 bits, where rows are long enough) (default: t5)
    #[argh(option, long = "type")]
    layout: Option<String>,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// leave out the sketch of the head, which finds the likeliest tokens without reading all of the head, and is as large as a quarter of one in f16
    #[argh(switch)]
    no_sketch: bool,
    /// put the weights of down_proj in once more, by columns: decoding then skips those whose input is 0, and the file grows by a quarter to a third of the ternary weights; for models with a ReLU² activation
    #[argh(switch)]
    columns: bool,
    /// the file to write
    #[argh(option)]
    output: Option<PathBuf>,
    /// replace the file if it is there
    #[argh(switch)]
    force: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// Bytes from which on a head is worth a sketch.
const SKETCHED_HEAD: usize = 2 << 20;

/// What is to be exported.
struct Subject {
    model: PackedModel,
    tokenizer: Option<Tokenizer>,
    chat_template: Option<ChatTemplate>,
    directory: Option<ModelDirectory>,
}

impl Export {
    pub(super) fn run(self) -> Result<()> {
        let path = args::either(self.model, "--model", self.model_dir, "--model-dir")?;
        let output = args::required(self.output, "--output")?;
        match args::required(self.format, "--format")?.as_str() {
            ONE_FILE_EXTENSION => {}
            other => return Err(CliError::Usage(format!("--format: expected 1bit, found {other:?}"))),
        }
        if output.extension().is_none_or(|e| e != ONE_FILE_EXTENSION) {
            return Err(CliError::Usage(format!(
                "--output: expected a name that ends in .1bit, by which the other commands know such a file, found {}",
                output.display()
            )));
        }
        let layout = match self.layout.as_deref() {
            None | Some("t5") => Layout::T5,
            Some("t2") => Layout::T2,
            Some(other) => return Err(CliError::Usage(format!("--type: expected t2 or t5, found {other:?}"))),
        };
        let head = args::head_type(self.head.as_deref())?;
        args::new_file(&output, "--output", self.force)?;
        // Before any work: it says how many threads there are.
        let threads = device::place(None, None)?.threads;
        if let Some(tokenizer) = &self.tokenizer {
            args::existing_file(tokenizer, "--tokenizer")?;
        }
        let mut subject = match (path, self.shape) {
            (Some(_), Some(_)) => {
                return Err(CliError::Usage(
                    "--model and --shape both say what to export; give one of them".into(),
                ));
            }
            (Some(_), None) if self.seed.is_some() => {
                return Err(CliError::Usage("--seed is for the random weights of --shape".into()));
            }
            (Some(path), None) => read(&path, self.tokenizer.is_none(), head)?,
            (None, Some(shape)) => Subject {
                model: random::model(random::config(&shape)?, self.seed.unwrap_or(0), head)?,
                tokenizer: None,
                chat_template: None,
                directory: None,
            },
            (None, None) => {
                return Err(CliError::Usage(
                    "required option not provided: --model (or --shape)".into(),
                ));
            }
        };
        if let Some(path) = &self.tokenizer {
            subject.tokenizer = Some(Tokenizer::from_file(path)?);
        }
        subject.model = match self.columns {
            true => with_columns(subject.model)?,
            // On some CPUs a model from a directory has them.
            false => subject.model.without_columns(),
        };
        write(
            &output,
            subject,
            layout,
            (!self.no_sketch).then_some(threads),
            self.json,
        )
    }
}

/// The model with columns, or why it can have none.
fn with_columns(model: PackedModel) -> Result<PackedModel> {
    let refused = |why: &str| Err(CliError::Failed(format!("--columns: {why}; leave it out")));
    if model.config().feed_forward == FeedForward::SwiGlu {
        return refused(
            "this model's activation is SwiGLU, after which hardly any value is 0, so there is nothing to skip",
        );
    }
    let model = model.with_columns();
    match model.bytes().columns {
        0 => refused("no down_proj of this model is ternary or binary"),
        _ => Ok(model),
    }
}

fn read(path: &Path, with_tokenizer: bool, head: FloatStorage) -> Result<Subject> {
    let directory = ModelDirectory::open(path)?;
    if let Some(file) = directory.file() {
        file.verify()?;
    }
    let wanted = with_tokenizer && directory.has_tokenizer();
    Ok(Subject {
        tokenizer: wanted.then(|| directory.tokenizer()).transpose()?,
        chat_template: Some(directory.chat_template()?).filter(|template| !template.is_default()),
        model: directory.load(head)?,
        directory: Some(directory),
    })
}

/// Writes the file, the sketch of a large head made by so many threads.
fn write(path: &Path, subject: Subject, layout: Layout, sketch_by: Option<usize>, as_json: bool) -> Result<()> {
    let Subject {
        model,
        tokenizer,
        chat_template,
        directory,
    } = subject;
    let rows = model.config().vocab_size;
    if let Some(tokenizer) = &tokenizer
        && tokenizer.vocab_size() > rows
    {
        return Err(CliError::Failed(format!(
            "--tokenizer: it has ids up to {}, and the model has {rows}; give the model's own tokenizer",
            tokenizer.vocab_size() - 1
        )));
    }
    let mut model = match layout {
        Layout::T2 => model.with_layout(Layout::T2),
        Layout::T5 => model.smallest(),
    };
    match sketch_by {
        None => model = model.without_sketch(),
        Some(threads) if model.sketch().is_none() && model.head().values.bytes() > SKETCHED_HEAD => {
            model.sketch_head(&Pool::new(threads)?, Isa::best());
        }
        Some(_) => {}
    }
    let packed = tokenizer.as_ref().and_then(Tokenizer::pack);
    let generation = directory.map(|directory| directory.generation);
    let parts = Parts {
        tokenizer: tokenizer.as_ref().map(Tokenizer::json),
        packed_tokenizer: packed.as_deref(),
        generation: generation
            .as_ref()
            .filter(|generation| **generation != Default::default()),
        chat_template: chat_template.as_ref(),
    };
    // In thousandths: the number of bytes is known only to the writer.
    let progress = Progress::new("exporting", 1000);
    save_one_file(path, &model, &parts, &|done, total| {
        progress.set(1000 * done / total.max(1), String::new);
    })?;
    drop(progress);
    let bytes = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
    if as_json {
        let tokenizer = tokenizer.is_some();
        let WeightBytes { sketch, columns, .. } = model.bytes();
        return output::json(
            &json!({ "output": path, "bytes": bytes, "tokenizer": tokenizer, "sketch_bytes": sketch, "column_bytes": columns }),
        );
    }
    output::line(&format!("{}: {}", path.display(), output::bytes(bytes)))
}
