//! `metrics.jsonl`: one JSON object a step, one more for each validation.
//!
//! Nothing in it depends on the clock, so the files of two equal runs are equal bytes. An interrupted run's file is cut back to
//! the steps of its checkpoint when it is resumed: no line is missing and none is double.

use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::Result;
use crate::error::io_error;
use crate::options::Precision;
use crate::schedule::Phase;
use crate::storage::{Output, Storage};

const ADVICE: &str = "check the space and the permissions there";

/// One quantised weight matrix.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LayerMetrics {
    /// Tensor name without `model.layers.` and `.weight`.
    pub name: String,
    /// Fraction of trits that are 0.
    pub zero: f64,
    /// Fraction of trits that are 1, where it was counted: on the CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plus: Option<f64>,
    /// Fraction of trits that this step changed.
    pub flip: f64,
    /// The scale γ.
    pub scale: f32,
    /// Fraction of weights beyond the clamp, |W| ≥ 1.5 γ.
    pub clip: f64,
}

impl LayerMetrics {
    /// The name of a matrix as metrics have it.
    pub(super) fn short_name(name: &str) -> String {
        name.trim_start_matches("model.layers.")
            .trim_end_matches(".weight")
            .to_string()
    }
}

/// One optimiser step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StepMetrics {
    /// The step, counted from 1 when it is done.
    pub step: u64,
    /// Passes over the data begun, counted from 1.
    pub epoch: u64,
    /// Tokens seen.
    pub tokens: u64,
    /// Phase of the quantisation.
    pub phase: Phase,
    /// Annealing value.
    pub anneal: f32,
    /// Arithmetic of the matrix products: `f32` or `bf16`.
    pub precision: Precision,
    /// Mean negative log-likelihood of the step's tokens in nats, without label smoothing; null if it is not finite.
    pub loss: f64,
    /// What was not finite, if the step was skipped for it: `loss` or `gradient`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub skipped: Option<&'static str>,
    /// Learning rate.
    pub lr: f32,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Quantised matrices, every `log_every` steps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub layers: Vec<LayerMetrics>,
}

/// One validation.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ValidationMetrics {
    /// Steps done.
    pub step: u64,
    /// Mean negative log-likelihood in nats at the annealing value of the step.
    pub val_loss: f64,
    /// `exp(val_loss)`.
    pub val_ppl: f64,
}

/// A return to a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Rollback {
    /// The checkpoint's step.
    pub step: u64,
    /// The step whose loss was too high.
    pub rolled_back_from: u64,
    /// That loss.
    pub spike_loss: f64,
}

/// The open file.
#[derive(Debug)]
pub(crate) struct MetricsFile {
    path: PathBuf,
    /// None on a rank that writes nothing.
    file: Option<BufWriter<Box<dyn Output>>>,
    bytes: u64,
}

impl MetricsFile {
    /// Opens the file of a run that stands at `bytes` of it, cutting what lies behind. Of one that somebody made shorter the whole lines are kept.
    pub(crate) fn open(storage: &dyn Storage, directory: &Path, bytes: u64) -> Result<Self> {
        let path = directory.join("metrics.jsonl");
        let bytes = whole_lines(&path, bytes).map_err(io_error(&path, ADVICE))?;
        let file = storage.append(&path, bytes).map_err(io_error(&path, ADVICE))?;
        let file = Some(BufWriter::new(file));
        Ok(MetricsFile { path, file, bytes })
    }

    /// That of a rank which writes nothing: the file is another's.
    pub(crate) fn of_another(directory: &Path) -> Self {
        MetricsFile {
            path: directory.join("metrics.jsonl"),
            file: None,
            bytes: 0,
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its length.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Appends one line.
    pub(crate) fn append(&mut self, line: &impl Serialize) -> Result<()> {
        let Some(file) = &mut self.file else {
            return Ok(());
        };
        let mut json = serde_json::to_vec(line).map_err(|e| io_error(&self.path, ADVICE)(e.into()))?;
        json.push(b'\n');
        self.bytes += json.len() as u64;
        file.write_all(&json).map_err(io_error(&self.path, ADVICE))
    }

    /// Hands everything to the system, so that a reader sees it.
    pub(crate) fn flush(&mut self) -> Result<()> {
        match &mut self.file {
            Some(file) => file.flush().map_err(io_error(&self.path, ADVICE)),
            None => Ok(()),
        }
    }
}

/// How many of the first `bytes` of a file are there, up to the end of a line if it is shorter.
fn whole_lines(path: &Path, bytes: u64) -> std::io::Result<u64> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() >= bytes {
        return Ok(bytes);
    }
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content
        .iter()
        .rposition(|&byte| byte == b'\n')
        .map_or(0, |at| at as u64 + 1))
}
