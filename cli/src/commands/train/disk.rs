//! What room a run takes on the disk, and whether it is there.

use std::path::Path;

use onebit_trainer::TrainOptions;
use onebit_trainer::storage::{self, Storage};

use super::memory::Memory;
use crate::{CliError, Result, output};

/// The room that a run takes, and what is free.
pub(super) struct Disk {
    /// One checkpoint.
    pub checkpoint: u64,
    /// All that lie there at the same time, and the model.
    pub needed: u64,
    pub free: Option<u64>,
}

impl Disk {
    /// That of a run with `options` in `directory`, which need not be there yet.
    pub fn new(directory: &Path, memory: &Memory, options: &TrainOptions) -> Result<Self> {
        let checkpoint = memory.estimate.weights + memory.estimate.optimizer;
        // The one being written is there beside those that are kept.
        let checkpoints = options.keep as u64 + 1 + u64::from(options.keep_best);
        let existing = directory
            .ancestors()
            .find(|path| path.exists())
            .unwrap_or(Path::new("."));
        let free = storage::Disk
            .free_space(existing)
            .map_err(|e| CliError::io(existing, "look at", &e, "choose another directory"))?;
        Ok(Disk {
            checkpoint,
            needed: checkpoints * checkpoint + memory.estimate.weights,
            free,
        })
    }

    /// Whether all of it is there, as far as that is known; of a run that is resumed some is taken already.
    pub fn fits(&self) -> bool {
        self.free.is_none_or(|free| self.needed <= free)
    }

    /// Refuses a run that could not save itself once.
    pub fn refuse_if_too_small(&self) -> Result<()> {
        match self.free {
            Some(free) if free < self.checkpoint => Err(CliError::Failed(format!(
                "--output-dir: a checkpoint takes {} and {} are free there; make room, or choose another disk",
                output::bytes(self.checkpoint),
                output::bytes(free)
            ))),
            _ => Ok(()),
        }
    }
}
