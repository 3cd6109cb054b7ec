//! What steps that went wrong lead to: the run stops at its last good state, or goes back to a checkpoint. The rules are in [`guard`].

use onebit_engine::ops::elementwise::all_finite;

use super::metrics::{MetricsFile, Rollback, StepMetrics};
use super::{Event, Mark, Trainer, guard};
use crate::checkpoint::{self, Found};
use crate::{Result, TrainError};

/// What a run does after a step. Steps are counted from 1.
#[derive(Debug)]
pub(super) enum Verdict {
    GoOn,
    /// Step `step` was the last of too many that were not finite.
    Stop {
        step: u64,
        what: &'static str,
    },
    /// The loss of step `step` ended a spike, and there is a checkpoint to go back to.
    GoBack {
        step: u64,
        loss: f64,
        to: Box<Found>,
    },
}

impl Trainer {
    pub(super) fn goes_on(&self) -> bool {
        matches!(self.verdict, Verdict::GoOn)
    }

    /// Writes the metrics of a step and decides what follows from them.
    pub(super) fn tell(&mut self, metrics: &StepMetrics, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        if !self.goes_on() {
            // A step that a GPU had begun already.
            return Ok(());
        }
        self.metrics.append(metrics)?;
        observe(Event::Step(metrics));
        let (step, loss) = (metrics.step, metrics.loss);
        if let Some(what) = metrics.skipped {
            self.guard.skipped += 1;
            self.guard.skipped_in_a_row += 1;
            if self.guard.skipped_in_a_row >= self.options.max_skipped {
                self.verdict = Verdict::Stop { step, what };
            }
            return Ok(());
        }
        self.guard.skipped_in_a_row = 0;
        let deviations = f64::from(self.options.spike_guard);
        if deviations > 0.0 && self.guard.losses.is_spike(metrics.phase, loss, deviations) {
            match self.way_back(observe)? {
                Some(to) => self.verdict = Verdict::GoBack { step, loss, to },
                // Nothing to go back to: this is how high losses are from here on.
                None => self.guard.losses = guard::LossTrend::default(),
            }
        }
        self.good = Mark {
            step,
            metrics_bytes: self.metrics.bytes(),
            guard: self.guard.clone(),
            val_loss: None,
        };
        // Nothing before the state that a run can stop at is looked at again.
        self.source.forget(self.first_window(step));
        Ok(())
    }

    /// The newest checkpoint that a run goes back to. One that an interruption made is none: the run that was not interrupted does not have it.
    fn way_back(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<Option<Box<Found>>> {
        self.look_at_saves(true, observe);
        let schedule = self.schedule();
        let root = self.saver.root();
        let found = self
            .world
            .decide(|| Ok(checkpoint::latest_of(root, |step| schedule.has(step)).ok().flatten()));
        Ok(found?.map(Box::new))
    }

    /// Saves the state before the steps that were not finite, and says what they met.
    pub(super) fn stopped(
        &mut self,
        step: u64,
        what: &'static str,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<TrainError> {
        if let Some(cuda) = &mut self.cuda {
            cuda.drain()?;
        }
        let place = self.bad_place(step - 1)?;
        self.step = self.good.step;
        if let Some(cuda) = &mut self.cuda {
            cuda.download(&mut self.network, &mut self.optimizer)?;
        }
        // Rank 0 has them all.
        let are_finite = self.world.decide(|| {
            let mut are_finite = true;
            for parameter in self.network.parameters() {
                are_finite &= all_finite(parameter)?;
            }
            Ok(are_finite)
        })?;
        // Weights that are no numbers themselves are nothing to go on from.
        if are_finite {
            self.save_now(self.good.clone(), observe)?;
        }
        let checkpoint = self.world.decide(|| {
            Ok(match &self.last_checkpoint {
                Some(path) => path.display().to_string(),
                None => "none yet (see --save-every)".into(),
            })
        })?;
        Ok(TrainError::NotFinite {
            step,
            what,
            place,
            skipped: self.options.max_skipped - 1,
            checkpoint,
        })
    }

    /// Goes back to checkpoint `to`, from step `from` with its loss, and on with the data behind that step's.
    pub(super) fn go_back(
        &mut self,
        (from, loss): (u64, f64),
        to: &Found,
        observe: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        // The graphs and arrays of the GPU are made anew.
        let gpu = match self.cuda.take() {
            Some(mut cuda) => {
                cuda.drain()?;
                Some(cuda.gpu().clone())
            }
            None => None,
        };
        // They tell of metrics that will not be there any more.
        if self.world.is_first() {
            checkpoint::discard_after(self.saver.storage(), self.saver.root(), to.state.step)?;
        }
        let before = self.guard.clone();
        self.restore(&to.path, &to.state)?;
        self.rollbacks = match self.rollbacks {
            (step, times) if step == self.step => (step, times + 1),
            _ => (self.step, 1),
        };
        if self.rollbacks.1 > guard::MOST_ROLLBACKS {
            return Err(TrainError::Diverged {
                step: from,
                loss,
                times: guard::MOST_ROLLBACKS,
                checkpoint: to.path.display().to_string(),
            });
        }
        self.guard.rollbacks = before.rollbacks + 1;
        self.guard.data_offset = before.data_offset + (from - self.step) * self.options.micro_batches_per_step() as u64;
        if self.world.is_first() {
            // What is not written yet would be written behind the cut, where it no longer belongs.
            self.metrics.flush()?;
            self.metrics = MetricsFile::open(self.saver.storage(), &self.output_dir, to.state.metrics_bytes)?;
        }
        let rollback = Rollback {
            step: self.step,
            rolled_back_from: from,
            spike_loss: loss,
        };
        self.metrics.append(&rollback)?;
        self.good.guard = self.guard.clone();
        self.good.metrics_bytes = self.metrics.bytes();
        observe(Event::RolledBack(&rollback));
        gpu.map_or(Ok(()), |gpu| self.place_on(&gpu))
    }
}
