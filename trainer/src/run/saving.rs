//! Checkpoints of a run, written by a thread of their own while training goes on.

use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use onebit_engine::Tensor;

use super::cuda::Leaving;
use super::{Event, Mark, Trainer};
use crate::checkpoint::{self, Keep, SaveSchedule, Snapshot, State};
use crate::optimizer::Optimizer;
use crate::storage::Storage;
use crate::{Result, TrainError};

/// Where a run's checkpoints go, and the one that is being written.
#[derive(Debug)]
pub(super) struct Saver {
    storage: Arc<dyn Storage>,
    root: PathBuf,
    pending: Option<JoinHandle<Result<PathBuf>>>,
}

impl Saver {
    pub fn new(storage: Arc<dyn Storage>, root: PathBuf) -> Self {
        Saver {
            storage,
            root,
            pending: None,
        }
    }

    pub fn storage(&self) -> &dyn Storage {
        &*self.storage
    }

    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// Begins to write, after `arrive` has completed what is written; nothing may be under way.
    fn begin(
        &mut self,
        mut snapshot: Snapshot,
        arrive: impl FnOnce(&mut Snapshot) -> Result<()> + Send + 'static,
        keep: Keep,
    ) -> Result<()> {
        let (storage, root) = (self.storage.clone(), self.root.clone());
        let thread = std::thread::Builder::new().name("checkpoint".into()).spawn(move || {
            arrive(&mut snapshot)?;
            snapshot.save(&*storage, &root, keep)
        });
        self.pending = Some(thread.map_err(|e| TrainError::Runtime(format!("a thread for the checkpoint: {e}")))?);
        Ok(())
    }

    /// What became of the checkpoint that was being written, if it is done; with `wait`, if there is one.
    fn outcome(&mut self, wait: bool) -> Option<Result<PathBuf>> {
        let pending = self.pending.take_if(|pending| wait || pending.is_finished())?;
        let panicked = |_| {
            Err(TrainError::Runtime(
                "the thread that wrote the checkpoint panicked".into(),
            ))
        };
        Some(pending.join().unwrap_or_else(panicked))
    }
}

impl Drop for Saver {
    /// The directory is another's as soon as the run lets it go.
    fn drop(&mut self) {
        self.outcome(true);
    }
}

impl Trainer {
    /// Tells what became of the last checkpoint. One that could not be written is told and no reason to stop: the one before it is there.
    pub(super) fn look_at_saves(&mut self, wait: bool, observe: &mut dyn FnMut(Event<'_>)) {
        match self.saver.outcome(wait) {
            Some(Ok(path)) => {
                observe(Event::Saved(&path));
                self.last_checkpoint = Some(path);
            }
            Some(Err(error)) => observe(Event::SaveFailed(&error)),
            None => {}
        }
    }

    /// Begins to save the run as it is. No step may be under way.
    pub(super) fn begin_save(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if !self.world.is_first() {
            return self.give_for_a_save();
        }
        let (state, memory) = self.state_to_save(self.here(), observe)?;
        let leaving = match &mut self.cuda {
            Some(cuda) => cuda.copy(&self.options)?,
            None => None,
        };
        match leaving {
            Some(leaving) => self.save_behind((state, memory), leaving)?,
            None => {
                let snapshot = self.snapshot((state, memory))?;
                self.saver.begin(snapshot, |_| Ok(()), self.keep())?;
            }
        }
        #[cfg(test)]
        if self.in_turn {
            self.look_at_saves(true, observe);
        }
        Ok(())
    }

    /// Saves the run with the state of `mark` and waits for it. The network has the weights of a GPU afterwards.
    ///
    /// # Errors
    /// What became of it.
    pub(super) fn save_now(&mut self, mark: Mark, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if !self.world.is_first() {
            return self.give_for_a_save();
        }
        let state = self.state_to_save(mark, observe)?;
        let snapshot = self.snapshot(state)?;
        self.saver.begin(snapshot, |_| Ok(()), self.keep())?;
        if let Some(saved) = self.saver.outcome(true) {
            let path = saved?;
            observe(Event::Saved(&path));
            self.last_checkpoint = Some(path);
        }
        Ok(())
    }

    /// The state of `mark` for a save that can begin: the one before has ended.
    fn state_to_save(&mut self, mark: Mark, observe: &mut dyn FnMut(Event<'_>)) -> Result<(State, Vec<u8>)> {
        self.look_at_saves(true, observe);
        self.metrics.flush()?;
        self.state(mark)
    }

    /// Begins to save a copy of weights and moments that is still to leave a GPU.
    fn save_behind(&mut self, state: (State, Vec<u8>), leaving: Leaving) -> Result<()> {
        let shapes: Vec<_> = self
            .network
            .parameters()
            .iter()
            .map(|p| (p.device(), p.shape().clone()))
            .collect();
        let kind = self.options.optimizer;
        let snapshot = self.snapshot_of(state, Vec::new(), Optimizer::new(kind, &[], &[]));
        // The thread takes the memory, too: half a gigabyte of new pages takes longer than many steps.
        let arrive = move |snapshot: &mut Snapshot| {
            snapshot.parameters = shapes
                .into_iter()
                .map(|(device, shape)| Tensor::zeros(device, shape))
                .collect();
            snapshot.optimizer = Optimizer::new(kind, &snapshot.specs, &snapshot.parameters);
            leaving.arrive(&mut snapshot.parameters, &mut snapshot.optimizer)
        };
        self.saver.begin(snapshot, arrive, self.keep())
    }

    /// When the run makes checkpoints by itself.
    pub(super) fn schedule(&self) -> SaveSchedule {
        SaveSchedule {
            every: self.options.save_every,
            last_step: self.total_steps,
        }
    }

    pub(super) fn keep(&self) -> Keep {
        Keep {
            last: self.options.keep,
            best: self.options.keep_best,
            schedule: self.schedule(),
        }
    }

    /// The weights and moments as they are. On the CPU the memory is shared until the next step changes it; a GPU is waited for.
    fn snapshot(&mut self, state: (State, Vec<u8>)) -> Result<Snapshot> {
        let optimizer = self.whole_optimizer()?;
        Ok(self.snapshot_of(state, self.network.parameters().to_vec(), optimizer))
    }

    /// Gives rank 0 what it has not.
    fn give_for_a_save(&mut self) -> Result<()> {
        match &self.cuda {
            Some(cuda) if !cuda.is_divided() => Ok(()),
            _ => self.whole_optimizer().map(drop),
        }
    }

    /// The moments of all parameters on rank 0, for a checkpoint, and none on the others; every rank calls it. A GPU's weights are brought to the network.
    fn whole_optimizer(&mut self) -> Result<Optimizer> {
        if let Some(cuda) = &mut self.cuda {
            cuda.download(&mut self.network, &mut self.optimizer)?;
            return Ok(self.optimizer.take());
        }
        let whole = self.optimizer.whole(&self.world)?;
        Ok(whole.unwrap_or_else(|| Optimizer::new(self.options.optimizer, &[], &[])))
    }

    /// With `memory`, what the filters of a stream remember.
    fn snapshot_of(
        &self,
        (state, memory): (State, Vec<u8>),
        parameters: Vec<Tensor>,
        optimizer: Optimizer,
    ) -> Snapshot {
        let mut files = vec![
            ("config.json", self.network.config().to_json().into_bytes()),
            ("tokenizer.json", self.tokenizer.clone()),
            ("generation_config.json", self.generation.to_json().into_bytes()),
        ];
        if !memory.is_empty() {
            files.push((checkpoint::STREAM, memory));
        }
        Snapshot {
            state,
            specs: self.network.specs().to_vec(),
            parameters,
            optimizer,
            files,
            metrics: Some(self.metrics.path().to_path_buf()),
        }
    }
}
