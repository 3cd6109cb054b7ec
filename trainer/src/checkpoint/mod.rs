//! Checkpoints: everything that a run needs to go on, byte for byte.
//!
//! ```text
//! checkpoints/step-120/
//!   model.safetensors       master weights, f32, Hugging Face names
//!   optimizer.safetensors   moments, `first.NAME` and `second.NAME`: f32, or i8 and u8 with f32 scales `first_scale.NAME` and `second_scale.NAME`
//!   state.json              step, options, data, guards, length of metrics.jsonl
//!   stream.bin              what the filters of a stream remember, if they do
//!   config.json, tokenizer.json, generation_config.json   which make it a model directory: it can be run, scored and exported
//!   manifest.json           length and BLAKE3 of each file above, written last
//! ```
//!
//! **Whole or not at all.** A checkpoint is written to a directory of another name, every file is synced, then the manifest, then the directory; so is `metrics.jsonl`, of
//! which the state names a length; then the directory is renamed and its parent synced. Old checkpoints are renamed before they are removed. So
//! whatever ends the program, [`latest`] finds the newest that was there before, or the new one; it takes the newest whose manifest holds, and says which ones it
//! passed over and why.
//!
//! **While training goes on.** A [`Snapshot`] shares the memory of the weights and moments that it was made of ([`Tensor`]s are copied when one of two owners writes), and
//! [`Snapshot::save`] may run on another thread.
//!
//! The random numbers of a run are counter-based, a function of seed and step, and so is the position in the data but for what a rollback left out: the state has no
//! more than that. A run on a stream has its cursor besides.

mod keep;
mod manifest;
mod tensors;
#[cfg(test)]
mod tests;

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use onebit_engine::Tensor;
use onebit_model::config::TensorSpec;
use onebit_model::files::open_regular;
use serde::{Deserialize, Serialize};

pub use keep::{Keep, SaveSchedule};
pub use manifest::{Entry, Manifest, parse_manifest};
pub use tensors::{Stored, StoredMut, Values, ValuesMut};

use crate::error::io_error;
use crate::optimizer::Optimizer;
use crate::options::TrainOptions;
use crate::run::{GuardState, StreamState};
use crate::storage::Storage;
use crate::{Result, TrainError};

const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const STATE: &str = "state.json";
/// What the filters of a stream remember.
pub(crate) const STREAM: &str = "stream.bin";

/// The files that a manifest names, and whether a resume needs them.
const FILES: [(&str, bool); 7] = [
    (MODEL, true),
    (OPTIMIZER, true),
    (STATE, true),
    (STREAM, false),
    ("config.json", false),
    ("tokenizer.json", false),
    ("generation_config.json", false),
];

const FULL_DISK: &str = "check the space and the permissions there";
/// No state is longer.
const LARGEST_STATE: u64 = 16 << 20;

/// What a checkpoint says beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Optimiser steps done.
    pub step: u64,
    /// Steps of the whole run.
    pub total_steps: u64,
    /// Options of the run.
    pub options: TrainOptions,
    /// The model's `config.json`.
    pub config: String,
    /// Identity of the training data, as its header states it.
    pub data: String,
    /// Bytes of `metrics.jsonl` that belong to the steps done.
    pub metrics_bytes: u64,
    /// What the guards of the run remember.
    #[serde(default)]
    pub guard: GuardState,
    /// Validation loss at this step, if it was measured on ternary weights: what the best checkpoint is chosen by.
    #[serde(default)]
    pub val_loss: Option<f64>,
    /// Of a run on a stream: where the windows behind these steps begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<serde_json::Value>,
    /// Whether the stream ended with this step, before the steps of the run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub ended: bool,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// A checkpoint that was found whole.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Found {
    /// Its directory.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
    /// Newer ones that were passed over, and why.
    pub skipped: Vec<String>,
}

/// A run at one of its steps.
#[derive(Debug)]
pub struct Snapshot {
    /// What is said beside tensors.
    pub state: State,
    /// Names and shapes.
    pub specs: Vec<TensorSpec>,
    /// Master weights.
    pub parameters: Vec<Tensor>,
    /// Moments.
    pub optimizer: Optimizer,
    /// Further files of a model directory, by name.
    pub files: Vec<(&'static str, Vec<u8>)>,
    /// `metrics.jsonl`, whose first `state.metrics_bytes` bytes are there.
    pub metrics: Option<PathBuf>,
}

impl Snapshot {
    /// Bytes that it takes on the disk, but for some thousand.
    ///
    /// # Errors
    /// None in practice: tensors are f32.
    pub fn bytes(&mut self) -> Result<u64> {
        let moments = tensors::bytes(&self.optimizer.state(&self.specs)?);
        let weights: usize = self.parameters.iter().map(Tensor::len).sum();
        let files: usize = self.files.iter().map(|(_, content)| content.len()).sum();
        Ok(moments + 4 * weights as u64 + files as u64)
    }

    /// Writes it under `root` and removes what `keep` leaves out. Returns its directory. If the checkpoint of this step is there and whole, it stays as it is.
    ///
    /// # Errors
    /// [`TrainError::NoSpace`] before anything is written; [`TrainError::Io`]. Earlier checkpoints are then untouched.
    pub fn save(&mut self, storage: &dyn Storage, root: &Path, keep: Keep) -> Result<PathBuf> {
        let step = self.state.step;
        let target = root.join(format!("step-{step}"));
        let failed = |path: &Path| io_error(path.to_path_buf(), FULL_DISK);
        // A run that was interrupted before its first step, or twice at the same one.
        if read_state(&target).is_ok_and(|state| state == self.state) {
            prune(storage, root, step, keep)?;
            return Ok(target);
        }
        storage.create_directory(root).map_err(failed(root))?;
        self.check_space(storage, root)?;
        clean(storage, root)?;
        let temporary = root.join(format!(".step-{step}.tmp"));
        storage.create_directory(&temporary).map_err(failed(&temporary))?;
        self.write(storage, &temporary)?;
        if let Some(metrics) = &self.metrics {
            storage.sync_file(metrics).map_err(failed(metrics))?;
        }
        if fs::symlink_metadata(&target).is_ok() {
            // It is not whole, or of another run.
            discard(storage, root, &target)?;
        }
        storage.rename(&temporary, &target).map_err(failed(&target))?;
        storage.sync_directory(root).map_err(failed(root))?;
        prune(storage, root, step, keep)?;
        Ok(target)
    }

    fn check_space(&mut self, storage: &dyn Storage, root: &Path) -> Result<()> {
        // A block of each file, and what else writes there meanwhile.
        const MARGIN: u64 = 1 << 20;
        let needed = self.bytes()? + MARGIN;
        match storage.free_space(root).map_err(io_error(root, FULL_DISK))? {
            Some(free) if free < needed => Err(TrainError::NoSpace {
                path: root.into(),
                needed,
                free,
            }),
            _ => Ok(()),
        }
    }

    fn write(&mut self, storage: &dyn Storage, directory: &Path) -> Result<()> {
        let mut weights = Vec::with_capacity(self.specs.len());
        for (spec, tensor) in self.specs.iter().zip(&self.parameters) {
            weights.push(Stored {
                name: spec.name.clone(),
                shape: tensor.shape().dims().to_vec(),
                values: Values::F32(tensor.f32()?),
            });
        }
        let mut files = manifest::Writer::new(storage, directory);
        files.file(MODEL, |path, mut to| tensors::write_tensors(path, &mut to, weights))?;
        let moments = self.optimizer.state(&self.specs)?;
        files.file(OPTIMIZER, |path, mut to| tensors::write_tensors(path, &mut to, moments))?;
        let json = serde_json::to_vec_pretty(&self.state).map_err(|e| damaged(directory, e.to_string()))?;
        files.bytes(STATE, &json)?;
        for (name, content) in &self.files {
            files.bytes(name, content)?;
        }
        files.finish()?;
        storage
            .sync_directory(directory)
            .map_err(io_error(directory, FULL_DISK))
    }
}

/// Removes a checkpoint: by another name first, so that what is half removed is no checkpoint.
fn discard(storage: &dyn Storage, root: &Path, path: &Path) -> Result<()> {
    let by_hand = |path: &Path| io_error(path.to_path_buf(), "remove it by hand");
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let old = root.join(format!(".{name}.old"));
    storage.remove_directory(&old).map_err(by_hand(&old))?;
    storage.rename(path, &old).map_err(by_hand(path))?;
    storage.remove_directory(&old).map_err(by_hand(&old))
}

/// Removes what need not be kept now that there is a checkpoint of `step`.
fn prune(storage: &dyn Storage, root: &Path, step: u64, keep: Keep) -> Result<()> {
    superfluous(root, step, keep)?
        .iter()
        .try_for_each(|old| discard(storage, root, old))
}

/// Removes the checkpoints of steps behind `step`, for a run that has gone back to it.
///
/// # Errors
/// [`TrainError::Io`].
pub fn discard_after(storage: &dyn Storage, root: &Path, step: u64) -> Result<()> {
    for (_, later) in list(root)?.into_iter().filter(|(of, _)| *of > step) {
        discard(storage, root, &later)?;
    }
    storage.sync_directory(root).map_err(io_error(root, FULL_DISK))
}

/// The checkpoints under `root` that need not be kept now that there is one of `step`. Those of later steps do not count: a run that is at `step` passed them over.
fn superfluous(root: &Path, step: u64, keep: Keep) -> Result<Vec<PathBuf>> {
    let mut all = list(root)?;
    all.retain(|(of, _)| *of <= step);
    let loss = |path: &Path| parse_state_of(path).ok().and_then(|state| state.val_loss);
    let best = all
        .iter()
        .filter(|_| keep.best)
        .filter_map(|(_, path)| Some((loss(path)?, path)))
        .filter(|(loss, _)| loss.is_finite())
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, path)| path.clone());
    let newest = all.first().map(|(of, _)| *of);
    let mut left = keep.last.max(1);
    all.retain(|(of, path)| {
        let kept = keep.schedule.has(*of) && left > 0;
        left -= usize::from(kept);
        !kept && Some(*of) != newest && Some(path) != best.as_ref()
    });
    Ok(all.into_iter().map(|(_, path)| path).collect())
}

/// Ends what an interrupted save of `step` left to do under `root`: removes what it replaced.
///
/// # Errors
/// [`TrainError::Io`].
pub fn tidy(storage: &dyn Storage, root: &Path, step: u64, keep: Keep) -> Result<()> {
    clean(storage, root)?;
    prune(storage, root, step, keep)
}

/// Removes what interrupted saves left under `root`.
///
/// # Errors
/// [`TrainError::Io`].
fn clean(storage: &dyn Storage, root: &Path) -> Result<()> {
    for path in entries(root)? {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(".step-") && (name.ends_with(".tmp") || name.ends_with(".old")) {
            storage
                .remove_directory(&path)
                .map_err(io_error(&path, "remove it by hand"))?;
        }
    }
    Ok(())
}

/// The newest whole checkpoint under `root`, or `None` if there is none at all.
///
/// # Errors
/// [`TrainError::Checkpoint`] if there are checkpoints but none is whole.
pub fn latest(root: &Path) -> Result<Option<Found>> {
    latest_of(root, |_| true)
}

/// The newest whole checkpoint under `root` of a step that is `wanted`, or `None` if there is none at all.
///
/// # Errors
/// As [`latest`].
pub fn latest_of(root: &Path, wanted: impl Fn(u64) -> bool) -> Result<Option<Found>> {
    let mut skipped = Vec::new();
    let mut all = list(root)?;
    all.retain(|(step, _)| wanted(*step));
    for (_, path) in &all {
        match read_state(path) {
            Ok(state) => {
                return Ok(Some(Found {
                    path: path.clone(),
                    state,
                    skipped,
                }));
            }
            Err(error) => skipped.push(error.to_string()),
        }
    }
    if all.is_empty() {
        Ok(None)
    } else {
        Err(damaged(root, format!("none is whole: {}", skipped.join("; "))))
    }
}

/// The state of the checkpoint at `path`, after its manifest was checked.
///
/// # Errors
/// [`TrainError::Checkpoint`] with what does not hold.
pub fn read_state(path: &Path) -> Result<State> {
    manifest::check(path)?;
    parse_state_of(path)
}

fn parse_state_of(path: &Path) -> Result<State> {
    let file = path.join(STATE);
    let mut text = Vec::new();
    open_regular(&file)
        .and_then(|file| file.take(LARGEST_STATE).read_to_end(&mut text))
        .map_err(io_error(&file, "resume from another checkpoint"))?;
    parse_state(&text).map_err(|why| damaged(path, format!("{STATE}: {why}")))
}

/// What the checkpoint at `path` with this state has of a stream, if the run was on one.
///
/// # Errors
/// [`TrainError::Io`].
pub fn stream_state(path: &Path, state: &State) -> Result<Option<StreamState>> {
    let Some(cursor) = state.stream.clone() else {
        return Ok(None);
    };
    let (file, mut memory) = (path.join(STREAM), Vec::new());
    // One whose filters remember nothing has no such file; that one that the manifest names is whole was looked at.
    if fs::symlink_metadata(&file).is_ok() {
        open_regular(&file)
            .and_then(|mut file| file.read_to_end(&mut memory))
            .map_err(io_error(&file, "resume from another checkpoint"))?;
    }
    Ok(Some(StreamState { cursor, memory }))
}

/// A state from its text.
///
/// # Errors
/// What is wrong with it.
pub fn parse_state(text: &[u8]) -> std::result::Result<State, String> {
    serde_json::from_slice(text).map_err(|e| e.to_string())
}

/// A hash of the manifest of the checkpoint at `path`: what tells one checkpoint from another. None if there is none to be read.
pub fn manifest_hash(path: &Path) -> Option<String> {
    let mut text = Vec::new();
    let file = open_regular(&path.join(manifest::NAME)).ok()?;
    file.take(LARGEST_STATE).read_to_end(&mut text).ok()?;
    Some(blake3::hash(&text).to_hex().to_string())
}

/// Fills `parameters` and `optimizer` from the checkpoint at `path`.
///
/// # Errors
/// [`TrainError::Checkpoint`] if a tensor is missing or of another size.
pub fn restore(path: &Path, specs: &[TensorSpec], parameters: &mut [Tensor], optimizer: &mut Optimizer) -> Result<()> {
    let mut weights = Vec::with_capacity(specs.len());
    for (spec, tensor) in specs.iter().zip(parameters) {
        weights.push(StoredMut {
            name: spec.name.clone(),
            shape: tensor.shape().dims().to_vec(),
            values: ValuesMut::F32(tensor.f32_mut()?),
        });
    }
    tensors::read_tensors(path, MODEL, weights)?;
    tensors::read_tensors(path, OPTIMIZER, optimizer.state_mut(specs)?)
}

/// Checkpoints under `root`, newest first.
fn list(root: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let step = |path: &Path| path.file_name()?.to_str()?.strip_prefix("step-")?.parse().ok();
    let mut found: Vec<(u64, PathBuf)> = entries(root)?
        .into_iter()
        .filter_map(|path| Some((step(&path)?, path)))
        .collect();
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>> {
    let denied = || io_error(directory, "check the permissions");
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(denied()(e)),
    };
    entries.map(|entry| Ok(entry.map_err(denied())?.path())).collect()
}

fn damaged(path: &Path, why: String) -> TrainError {
    TrainError::Checkpoint { path: path.into(), why }
}
