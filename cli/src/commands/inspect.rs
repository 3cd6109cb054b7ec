//! `onebit inspect`: what a file or directory holds.

#[cfg(feature = "tokenizers")]
mod gguf;
mod model;
#[cfg(feature = "train")]
mod training;

use std::path::{Path, PathBuf};

use argh::FromArgs;
use onebit_model::files::{self, ModelKind, Weights};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{CliError, Result, args, bundled, output};

/// Shows what a model (directory, .1bit, .gguf or bit_model.bin), a token file, a checkpoint or a safetensors file holds.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "inspect",
    example = "{command_name} model --tensors",
    note = "For a model: sizes as inference keeps them, bits a weight, the fraction of zeros, and the compression against FP16."
)]
pub struct Inspect {
    /// the file or directory
    #[argh(positional)]
    path: PathBuf,
    /// list every tensor
    #[argh(switch)]
    tensors: bool,
    /// read all of a .1bit file and refuse it if it is not what was exported: checksum, codes, values, columns
    #[argh(switch)]
    verify: bool,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

/// One tensor.
#[derive(Serialize)]
struct TensorLine {
    name: String,
    shape: Vec<usize>,
    storage: &'static str,
    bytes: usize,
    bits_per_weight: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    zero_fraction: Option<f64>,
}

impl TensorLine {
    fn new(name: String, shape: Vec<usize>, storage: &'static str, bytes: usize, zero_fraction: Option<f64>) -> Self {
        let weights: usize = shape.iter().product();
        Self {
            name,
            shape,
            storage,
            bytes,
            bits_per_weight: 8.0 * bytes as f64 / weights.max(1) as f64,
            zero_fraction,
        }
    }
}

impl Inspect {
    pub(super) fn run(self) -> Result<()> {
        let path = &self.path;
        let bundled = bundled::named(path);
        if !path.is_dir() && bundled.is_none() {
            args::existing_file(path, "inspect")?;
        }
        let one_file =
            bundled.is_some() || path.is_file() && path.extension().is_some_and(|e| e == files::ONE_FILE_EXTENSION);
        if self.verify && !one_file {
            return Err(CliError::Usage(format!(
                "--verify is for .1bit files, and {} is none; leave it out",
                path.display()
            )));
        }
        let (facts, tensors) = if path.join("state.json").is_file() {
            checkpoint(path)?
        } else if one_file || path.is_dir() && path.join(files::CONFIG_FILE).is_file() {
            if self.verify {
                bundled.unwrap_or_else(|| Ok(files::OneFile::open(path)?))?.verify()?;
            }
            let (mut facts, tensors) = model::read(path)?;
            if self.verify {
                facts["verified"] = json!(true);
            }
            (facts, tensors)
        } else if let Some(read) = gguf(path) {
            read?
        } else if path.is_file() && matches!(ModelKind::of(path), Ok(ModelKind::Stories)) {
            model::read(path)?
        } else if path.extension().is_some_and(|e| e == "safetensors") {
            let weights = Weights::open_file(path)?;
            let lines = weight_lines(&weights);
            (
                json!({ "kind": "safetensors", "tensors": lines.len(), "bytes": lines.iter().map(|l| l.bytes).sum::<usize>() }),
                lines,
            )
        } else if path.is_file() {
            (tokens(path)?, Vec::new())
        } else {
            let why = "is no model directory (config.json), .1bit or .gguf file, checkpoint (state.json), token file or safetensors file";
            return Err(CliError::Failed(format!(
                "inspect: {} {why}; give one of these",
                path.display()
            )));
        };
        self.print(facts, &tensors)
    }

    fn print(&self, mut facts: Value, tensors: &[TensorLine]) -> Result<()> {
        if self.json {
            if self.tensors {
                facts["tensor_list"] = json!(tensors);
            }
            return output::json(&facts);
        }
        let Value::Object(map) = &facts else { return Ok(()) };
        let rows: Vec<(&str, String)> = map
            .iter()
            .map(|(key, value)| (key.as_str(), shown(key, value)))
            .collect();
        output::table(&rows)?;
        if self.tensors {
            let width = tensors.iter().map(|t| t.name.len()).max().unwrap_or(0);
            for t in tensors {
                let zeros = t
                    .zero_fraction
                    .map_or(String::new(), |z| format!("  {:.1}% zeros", 100.0 * z));
                let shape = t.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
                let size = output::bytes(t.bytes as u64);
                output::line(&format!(
                    "{:width$}  {shape:>14}  {:8} {size:>11}  {:6.3} bits a weight{zeros}",
                    t.name, t.storage, t.bits_per_weight
                ))?;
            }
        }
        Ok(())
    }
}

/// A value for people.
fn shown(key: &str, value: &Value) -> String {
    match value {
        Value::Number(n) if key.ends_with("bytes") => n
            .as_u64()
            .map_or_else(|| n.to_string(), |n| format!("{n} ({})", output::bytes(n))),
        Value::Number(n) if n.is_f64() => format!("{:.4}", n.as_f64().unwrap_or_default()),
        Value::String(text) => text.clone(),
        Value::Null => "unknown".to_string(),
        other => other.to_string(),
    }
}

fn weight_lines(weights: &Weights) -> Vec<TensorLine> {
    let names: Vec<String> = weights.names().map(str::to_string).collect();
    let line = |name: String| {
        let view = weights.get(&name)?;
        Some(TensorLine::new(
            name,
            view.shape.to_vec(),
            dtype_name(view.dtype),
            view.bytes.len(),
            None,
        ))
    };
    names.into_iter().filter_map(line).collect()
}

fn dtype_name(dtype: files::Dtype) -> &'static str {
    match dtype {
        files::Dtype::F32 => "f32",
        files::Dtype::F16 => "f16",
        files::Dtype::BF16 => "bf16",
        files::Dtype::U8 => "u8",
        files::Dtype::I8 => "i8",
        _ => "other",
    }
}

/// What a file of llama.cpp's or bitnet.cpp's holds, if this is one.
#[cfg(feature = "tokenizers")]
fn gguf(path: &Path) -> Option<Result<(Value, Vec<TensorLine>)>> {
    let is_one = path.is_file() && matches!(ModelKind::of(path), Ok(ModelKind::Gguf));
    is_one.then(|| gguf::read(path))
}

/// Nothing: this build does not know such files.
#[cfg(not(feature = "tokenizers"))]
fn gguf(_path: &Path) -> Option<Result<(Value, Vec<TensorLine>)>> {
    None
}

#[cfg(feature = "train")]
use training::{checkpoint, tokens};

#[cfg(not(feature = "train"))]
fn checkpoint(path: &Path) -> Result<(Value, Vec<TensorLine>)> {
    Err(super::no_trainer(&format!(
        "inspect: {} is a checkpoint",
        path.display()
    )))
}

#[cfg(not(feature = "train"))]
fn tokens(path: &Path) -> Result<Value> {
    Err(super::no_trainer(&format!(
        "inspect: {} is no model and no safetensors file, and whether it is a token file cannot be told",
        path.display()
    )))
}
