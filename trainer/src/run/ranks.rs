//! A rank's part of a run: what is summed over all, what is agreed on, and what rank 0 reads for the others.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::step::Accumulated;
use super::{Event, StreamState, Trainer};
use crate::checkpoint::{self, Found};
use crate::options::TrainOptions;
use crate::parallel::agree::Fingerprint;
use crate::parallel::{ParallelError, in_buckets};
use crate::{Result, TrainError};

/// What a rank says of its part of a step.
#[derive(Debug, Serialize, Deserialize)]
struct Word {
    /// Bits of its losses, in the order of its micro-batches.
    losses: Vec<u64>,
    /// The first micro-batch whose loss is not finite.
    bad: Option<u64>,
    /// It is asked to stop.
    stop: bool,
}

/// Micro-batches of a step on each of `now.world` ranks, for a run whose checkpoint has the options `before`: as it had, or as they are divided among another number.
///
/// # Errors
/// [`TrainError::Option`] with the numbers of ranks that would do.
pub(super) fn accumulation(before: &TrainOptions, now: &TrainOptions) -> Result<usize> {
    let all = before.micro_batches_per_step();
    if all == now.micro_batches_per_step() {
        return Ok(now.accumulation_steps);
    }
    if before.world == 1 && now.world == 1 {
        let option = "accumulation-steps";
        let why = format!("the run has {all} micro-batches a step; pass {all}, or start in another directory");
        return Err(TrainError::Option { option, why });
    }
    if !all.is_multiple_of(now.world) {
        let fitting: Vec<_> = (1..=all)
            .filter(|n| all.is_multiple_of(*n))
            .map(|n| n.to_string())
            .collect();
        let why = format!(
            "the run has {all} micro-batches a step, which {} ranks cannot share alike; go on with {}",
            now.world,
            fitting.join(", ")
        );
        return Err(TrainError::Option { option: "gpus", why });
    }
    Ok(all / now.world)
}

impl Trainer {
    /// Whether the run stops here, as all ranks have agreed on.
    pub(super) fn stops(&self) -> bool {
        if self.world.is_single() {
            self.asked.here
        } else {
            self.asked.anywhere
        }
    }

    /// Tells of a number of ranks that is another than it was.
    pub(super) fn tell_of_ranks(&self, before: &TrainOptions, observe: &mut dyn FnMut(Event<'_>)) {
        if before.world != self.options.world {
            observe(Event::Regrouped {
                from: before.world,
                to: self.options.world,
                accumulation_steps: self.options.accumulation_steps,
            });
        }
    }

    /// Checks that all ranks are about to make the same run, from the same weights.
    pub(super) fn agree(&self, on_gpu: bool) -> Result<()> {
        if self.world.is_single() {
            return Ok(());
        }
        if !on_gpu && self.world.collective().is_none() {
            let why = "several ranks on CPUs need MPI; build with --features mpi and start them by mpirun, or use GPUs (--device cuda)";
            return Err(TrainError::Option {
                option: "device",
                why: why.into(),
            });
        }
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex().as_str()[..16].to_string();
        let mut weights = blake3::Hasher::new();
        for parameter in self.network.parameters() {
            weights.update(bytemuck::cast_slice(parameter.f32()?));
        }
        let validation = match &self.validation {
            Some(tokens) => super::batch::data_identity(tokens)?,
            None => "none".into(),
        };
        Fingerprint::new()
            .with("the version of onebit", env!("CARGO_PKG_VERSION"))
            .with("the kind of device", if on_gpu { "GPU" } else { "CPU" })
            .with("the model's configuration", self.network.config().to_json())
            .with_options(&self.options)?
            .with("the training data", self.source.identity()?)
            .with("the validation data", validation)
            .with("the hash of the tokenizer", hash(&self.tokenizer))
            .with("the number of steps", self.total_steps)
            .with("the step to go on from", self.step)
            .with("the hash of the weights", &weights.finalize().to_hex().as_str()[..16])
            .agree(&self.world)
    }

    /// What the micro-batches of all ranks gave, from those of this one: the same on every rank.
    pub(super) fn over_ranks(&mut self, own: Accumulated) -> Result<Accumulated> {
        if self.world.is_single() {
            return Ok(own);
        }
        self.world.link().check()?;
        let (losses, bad) = match &own {
            Accumulated::Gradients(losses, _) => (losses.iter().map(|loss| loss.to_bits()).collect(), None),
            Accumulated::BadLoss { index } => (Vec::new(), Some(*index)),
        };
        let words = self.world.gather(&Word {
            losses,
            bad,
            stop: self.asked.here,
        })?;
        self.asked.anywhere |= words.iter().any(|word| word.stop);
        if let Some(index) = words.iter().filter_map(|word| word.bad).min() {
            return Ok(Accumulated::BadLoss { index });
        }
        let Accumulated::Gradients(own, mut gradients) = own else {
            return Ok(own);
        };
        // In the order of micro-batches, which go round the ranks.
        let mut losses = Vec::with_capacity(own.len() * words.len());
        for i in 0..own.len() {
            for (rank, word) in words.iter().enumerate() {
                let bits = word.losses.get(i).ok_or_else(|| ParallelError::Protocol {
                    rank,
                    what: format!("{} losses where {} were expected", word.losses.len(), own.len()),
                })?;
                losses.push(f64::from_bits(*bits));
            }
        }
        let collective = self.world.collective().ok_or_else(|| ParallelError::Protocol {
            rank: self.world.rank(),
            what: "gradients, and there is nothing to sum them with".into(),
        })?;
        let mut parts = Vec::with_capacity(gradients.len());
        for gradient in &mut gradients {
            parts.push(gradient.f32_mut()?);
        }
        in_buckets(&mut parts, |bucket| collective.all_reduce(bucket))?;
        Ok(Accumulated::Gradients(losses, gradients))
    }

    /// The first of the places where ranks met a number that is not finite, by micro-batch, with its rank.
    pub(super) fn first_place(&self, own: Option<String>, index: Option<u64>) -> Result<Option<String>> {
        let places = self.world.gather(&(index, own))?;
        let found = places
            .into_iter()
            .enumerate()
            .filter_map(|(rank, (index, place))| Some((index.unwrap_or(u64::MAX), rank, place?)))
            .min();
        Ok(found.map(|(_, rank, place)| match self.world.is_single() {
            true => place,
            false => format!("{place} on rank {rank}"),
        }))
    }

    /// Weights and moments of the checkpoint that rank 0 has at `path`. A rank that sees the same one, as in a directory that all share, reads it itself; if any does not,
    /// rank 0 reads it for all.
    pub(super) fn read_tensors(&mut self, path: &Path) -> Result<()> {
        // A copy, because the parameters are borrowed to be changed.
        let specs = self.network.specs().to_vec();
        let here = match path.file_name() {
            Some(name) => self.saver.root().join(name),
            None => path.to_path_buf(),
        };
        let manifest = checkpoint::manifest_hash(&here);
        let of_first = self.world.decide(|| Ok(manifest.clone()))?;
        let sees = self.world.gather(&(manifest == of_first))?;
        let parameters = self.network.parameters_mut();
        if sees.iter().all(|sees| *sees) {
            return checkpoint::restore(&here, &specs, parameters, &mut self.optimizer);
        }
        let mut whole = None;
        if self.world.is_first() {
            let all = whole.insert(self.optimizer.undivided());
            checkpoint::restore(path, &specs, parameters, all)
                .inspect_err(|e| self.world.link().fail(&e.to_string()))?;
        }
        let mut weights = Vec::with_capacity(parameters.len());
        for parameter in parameters.iter_mut() {
            weights.push(parameter.f32_mut()?);
        }
        in_buckets(&mut weights, |bucket| {
            self.world.spread(bytemuck::cast_slice_mut(bucket), 0)
        })?;
        self.optimizer.receive(&self.world, whole)
    }

    /// What the checkpoint has of a stream, as rank 0 reads it.
    pub(super) fn stream_state(&self, found: &Found) -> Result<Option<StreamState>> {
        let memory = self.world.decide_bytes(|| {
            let state = checkpoint::stream_state(&found.path, &found.state)?;
            Ok(state.map_or_else(Vec::new, |state| state.memory))
        })?;
        let cursor = found.state.stream.clone();
        Ok(cursor.map(|cursor| StreamState { cursor, memory }))
    }
}
