//! Checkpoints: everything that a run needs to go on, byte for byte.
//!
//! ```text
//! checkpoints/step-120/
//!   model.safetensors       master weights, f32, Hugging Face names
//!   optimizer.safetensors   moments, f32, `first.NAME` and `second.NAME`
//!   state.json              step, options, data, length of metrics.jsonl
//!   manifest.json           length and BLAKE3 of each file above, written last
//! ```
//!
//! A checkpoint is written to a temporary directory, every file and the directory are synced, and the directory is renamed: it is there whole or
//! not at all. [`latest`] takes the newest whose manifest holds and says which ones it passed over. The random numbers of a
//! run are counter-based, a function of seed and step, and so is the position in the data: the step is all the state they have.

mod manifest;
#[cfg(test)]
mod tests;

use std::fs;
use std::path::{Path, PathBuf};

use onebit_engine::Tensor;
use onebit_model::config::TensorSpec;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde::{Deserialize, Serialize};

use crate::error::io_error;
use crate::optimizer::Optimizer;
use crate::options::TrainOptions;
use crate::{Result, TrainError};

/// The files that the manifest names.
const FILES: [&str; 3] = ["model.safetensors", "optimizer.safetensors", "state.json"];

const FULL_DISK: &str = "check the space and the permissions there";

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
}

/// A checkpoint that was found whole.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its directory.
    pub path: PathBuf,
    /// Its state.
    pub state: State,
    /// Newer ones that were passed over, and why.
    pub skipped: Vec<String>,
}

/// Writes the checkpoint of `state.step` under `root` and removes all but the newest `keep`. Returns its directory.
///
/// # Errors
/// [`TrainError::Io`]; an earlier checkpoint is then untouched.
pub fn save(
    root: &Path,
    state: &State,
    specs: &[TensorSpec],
    parameters: &[Tensor],
    optimizer: &Optimizer,
    keep: usize,
) -> Result<PathBuf> {
    let target = root.join(format!("step-{}", state.step));
    let temporary = root.join(format!(".step-{}.tmp", state.step));
    fs::create_dir_all(root).map_err(io_error(root, FULL_DISK))?;
    remove_if_there(&temporary)?;
    fs::create_dir(&temporary).map_err(io_error(&temporary, FULL_DISK))?;

    let weights = specs.iter().map(|s| s.name.clone()).zip(parameters);
    write_tensors(&temporary.join("model.safetensors"), weights)?;
    write_tensors(&temporary.join("optimizer.safetensors"), optimizer.state(specs))?;
    let json = serde_json::to_vec_pretty(state).map_err(|e| damaged(&temporary, e.to_string()))?;
    manifest::write_synced(&temporary.join("state.json"), &json)?;
    manifest::write(&temporary, &FILES)?;
    manifest::sync_directory(&temporary)?;

    remove_if_there(&target)?;
    fs::rename(&temporary, &target).map_err(io_error(&target, FULL_DISK))?;
    manifest::sync_directory(root)?;
    for (_, old) in list(root)?.into_iter().skip(keep.max(1)) {
        fs::remove_dir_all(&old).map_err(io_error(&old, "remove it by hand"))?;
    }
    Ok(target)
}

/// The newest whole checkpoint under `root`, or `None` if there is none at all.
///
/// # Errors
/// [`TrainError::Checkpoint`] if there are checkpoints but none is whole.
pub fn latest(root: &Path) -> Result<Option<Found>> {
    let mut skipped = Vec::new();
    let all = list(root)?;
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
    manifest::check(path, &FILES)?;
    let file = path.join("state.json");
    let bytes = fs::read(&file).map_err(io_error(&file, "resume from another checkpoint"))?;
    serde_json::from_slice(&bytes).map_err(|e| damaged(path, format!("state.json: {e}")))
}

/// Fills `parameters` and `optimizer` from the checkpoint at `path`.
///
/// # Errors
/// [`TrainError::Checkpoint`] if a tensor is missing or of another size.
pub fn restore(path: &Path, specs: &[TensorSpec], parameters: &mut [Tensor], optimizer: &mut Optimizer) -> Result<()> {
    let weights = specs.iter().map(|s| s.name.clone()).zip(parameters);
    read_tensors(path, "model.safetensors", weights)?;
    read_tensors(path, "optimizer.safetensors", optimizer.state_mut(specs))
}

/// Checkpoints under `root`, newest first.
fn list(root: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(io_error(root, "check the permissions")(e)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(io_error(root, "check the permissions"))?;
        let step = entry
            .file_name()
            .to_str()
            .and_then(|n| n.strip_prefix("step-")?.parse().ok());
        found.extend(step.map(|step| (step, entry.path())));
    }
    found.sort_by_key(|(step, _)| std::cmp::Reverse(*step));
    Ok(found)
}

fn write_tensors<'a>(path: &Path, tensors: impl Iterator<Item = (String, &'a Tensor)>) -> Result<()> {
    let mut views = Vec::new();
    for (name, tensor) in tensors {
        let bytes = bytemuck::cast_slice(tensor.f32()?);
        let view = TensorView::new(Dtype::F32, tensor.shape().dims().to_vec(), bytes)
            .map_err(|e| damaged(path, e.to_string()))?;
        views.push((name, view));
    }
    let bytes = safetensors::serialize(views, None).map_err(|e| damaged(path, e.to_string()))?;
    manifest::write_synced(path, &bytes)
}

fn read_tensors<'a>(
    directory: &Path,
    file: &str,
    tensors: impl Iterator<Item = (String, &'a mut Tensor)>,
) -> Result<()> {
    let path = directory.join(file);
    let bytes = fs::read(&path).map_err(io_error(&path, "resume from another checkpoint"))?;
    let stored = SafeTensors::deserialize(&bytes).map_err(|e| damaged(directory, format!("{file}: {e}")))?;
    for (name, tensor) in tensors {
        let view = stored
            .tensor(&name)
            .map_err(|e| damaged(directory, format!("{file}: {name}: {e}")))?;
        if view.dtype() != Dtype::F32 || view.shape() != tensor.shape().dims() {
            let found = format!(
                "{file}: {name}: expected F32 {}, found {:?} {:?}",
                tensor.shape(),
                view.dtype(),
                view.shape()
            );
            return Err(damaged(directory, found));
        }
        for (value, bytes) in tensor.f32_mut()?.iter_mut().zip(view.data().chunks_exact(4)) {
            *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(io_error(path, "remove it by hand")(e)),
        _ => Ok(()),
    }
}

fn damaged(path: &Path, why: String) -> TrainError {
    TrainError::Checkpoint { path: path.into(), why }
}
