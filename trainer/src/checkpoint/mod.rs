//! Checkpoints: everything that a run needs to go on, byte for byte.
//!
//! ```text
//! checkpoints/step-120/
//!   model.safetensors       master weights, f32, Hugging Face names
//!   optimizer.safetensors   moments, `first.NAME` and `second.NAME`: f32, or i8 and u8 with f32 scales `first_scale.NAME` and `second_scale.NAME`
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

/// A tensor of a checkpoint.
#[derive(Debug)]
pub struct Stored<'a> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// As many values.
    pub values: Values<'a>,
}

/// A tensor to be filled from a checkpoint.
#[derive(Debug)]
pub struct StoredMut<'a> {
    /// Its name.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// As many values.
    pub values: ValuesMut<'a>,
}

/// Values of a [`Stored`] tensor.
#[derive(Debug)]
pub enum Values<'a> {
    /// f32.
    F32(&'a [f32]),
    /// i8.
    I8(&'a [i8]),
    /// u8.
    U8(&'a [u8]),
}

/// Values of a [`StoredMut`] tensor.
#[derive(Debug)]
pub enum ValuesMut<'a> {
    /// f32.
    F32(&'a mut [f32]),
    /// i8.
    I8(&'a mut [i8]),
    /// u8.
    U8(&'a mut [u8]),
}

impl Values<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Values::F32(_) => Dtype::F32,
            Values::I8(_) => Dtype::I8,
            Values::U8(_) => Dtype::U8,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Values::F32(values) => bytemuck::cast_slice(values),
            Values::I8(values) => bytemuck::cast_slice(values),
            Values::U8(values) => values,
        }
    }
}

impl ValuesMut<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            ValuesMut::F32(_) => Dtype::F32,
            ValuesMut::I8(_) => Dtype::I8,
            ValuesMut::U8(_) => Dtype::U8,
        }
    }

    /// Copies little-endian values, as many as there are.
    fn fill(self, bytes: &[u8]) {
        match self {
            ValuesMut::F32(values) => {
                for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(4)) {
                    *value = f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
                }
            }
            ValuesMut::I8(values) => {
                for (value, byte) in values.iter_mut().zip(bytes) {
                    *value = *byte as i8;
                }
            }
            ValuesMut::U8(values) => {
                for (value, byte) in values.iter_mut().zip(bytes) {
                    *value = *byte;
                }
            }
        }
    }
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
    optimizer: &mut Optimizer,
    keep: usize,
) -> Result<PathBuf> {
    let target = root.join(format!("step-{}", state.step));
    let temporary = root.join(format!(".step-{}.tmp", state.step));
    fs::create_dir_all(root).map_err(io_error(root, FULL_DISK))?;
    remove_if_there(&temporary)?;
    fs::create_dir(&temporary).map_err(io_error(&temporary, FULL_DISK))?;

    let mut weights = Vec::with_capacity(specs.len());
    for (spec, tensor) in specs.iter().zip(parameters) {
        weights.push(Stored {
            name: spec.name.clone(),
            shape: tensor.shape().dims().to_vec(),
            values: Values::F32(tensor.f32()?),
        });
    }
    write_tensors(&temporary.join("model.safetensors"), &weights)?;
    write_tensors(&temporary.join("optimizer.safetensors"), &optimizer.state(specs)?)?;
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
    let mut weights = Vec::with_capacity(specs.len());
    for (spec, tensor) in specs.iter().zip(parameters) {
        weights.push(StoredMut {
            name: spec.name.clone(),
            shape: tensor.shape().dims().to_vec(),
            values: ValuesMut::F32(tensor.f32_mut()?),
        });
    }
    read_tensors(path, "model.safetensors", weights)?;
    read_tensors(path, "optimizer.safetensors", optimizer.state_mut(specs)?)
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

fn write_tensors(path: &Path, tensors: &[Stored<'_>]) -> Result<()> {
    let mut views = Vec::with_capacity(tensors.len());
    for Stored { name, shape, values } in tensors {
        let view =
            TensorView::new(values.dtype(), shape.clone(), values.bytes()).map_err(|e| damaged(path, e.to_string()))?;
        views.push((name, view));
    }
    let bytes = safetensors::serialize(views, None).map_err(|e| damaged(path, e.to_string()))?;
    manifest::write_synced(path, &bytes)
}

fn read_tensors(directory: &Path, file: &str, tensors: Vec<StoredMut<'_>>) -> Result<()> {
    let path = directory.join(file);
    let bytes = fs::read(&path).map_err(io_error(&path, "resume from another checkpoint"))?;
    let stored = SafeTensors::deserialize(&bytes).map_err(|e| damaged(directory, format!("{file}: {e}")))?;
    for StoredMut { name, shape, values } in tensors {
        let view = stored
            .tensor(&name)
            .map_err(|e| damaged(directory, format!("{file}: {name}: {e}")))?;
        if view.dtype() != values.dtype() || view.shape() != shape {
            let found = format!(
                "{file}: {name}: expected {:?} {shape:?}, found {:?} {:?}",
                values.dtype(),
                view.dtype(),
                view.shape()
            );
            return Err(damaged(directory, found));
        }
        values.fill(view.data());
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
