//! The loop of a run.

use std::sync::atomic::{AtomicBool, Ordering};

use onebit_model::files::{Extras, save_master};

use super::setbacks::Verdict;
use super::{Arrival, Event, Outcome, Trainer};
use crate::Result;

impl Trainer {
    /// Trains to the end, or until `stop` is set: then a checkpoint is written first. When the run ends, the model directory is complete. Of several ranks all stop after
    /// the step at which one was asked to; only rank 0 tells `observe`.
    ///
    /// # Errors
    /// [`NotFinite`](crate::TrainError::NotFinite) after too many steps in a row whose loss or gradient was not finite, with a checkpoint of the state before them; [`Diverged`](crate::TrainError::Diverged);
    /// a disk that is full at the end; a rank that was lost.
    pub fn run(&mut self, stop: &AtomicBool, observe: &mut dyn FnMut(Event<'_>)) -> Result<Outcome> {
        let is_first = self.world.is_first();
        let observe: &mut dyn FnMut(Event<'_>) = if is_first { observe } else { &mut |_| () };
        // Ranks stop together, after a step, so none of them stops waiting for its data.
        let never = AtomicBool::new(false);
        while self.step < self.total_steps && !self.ended {
            let waits_until = if self.world.is_single() { stop } else { &never };
            let arrival = self.data(waits_until, observe)?;
            if arrival == Arrival::Never {
                self.end_early(observe)?;
                break;
            }
            self.asked.here = stop.load(Ordering::Relaxed);
            if self.stops() {
                self.settle(observe)?;
                if self.goes_on() {
                    self.save_now(self.here(), observe)?;
                    return Ok(Outcome::Interrupted);
                }
            }
            self.look_at_saves(false, observe);
            // On a thread of the pool, where starting a parallel operation does not wake anyone who is awake.
            if self.goes_on()
                && let Some(metrics) = rayon::scope(|_| self.step())?
            {
                self.tell(&metrics, observe)?;
            }
            let last = self.step == self.total_steps;
            let due = |every: u64| every > 0 && self.step.is_multiple_of(every);
            let (validate, save) = (due(self.options.eval_every) || last, self.schedule().has(self.step));
            if validate || save {
                self.settle(observe)?;
            }
            match std::mem::replace(&mut self.verdict, Verdict::GoOn) {
                Verdict::GoOn => {}
                Verdict::Stop { step, what } => return Err(self.stopped(step, what, observe)?),
                Verdict::GoBack { step, loss, to } => {
                    self.go_back((step, loss), &to, observe)?;
                    continue;
                }
            }
            if validate {
                self.validate_now(observe)?;
            }
            self.metrics.flush()?;
            if last {
                self.save_now(self.here(), observe)?;
            } else if save {
                self.begin_save(observe)?;
            }
        }
        if is_first {
            self.write_model()?;
        }
        Ok(Outcome::Finished)
    }

    /// Waits for steps that are under way on a GPU.
    pub(super) fn settle(&mut self, observe: &mut dyn FnMut(Event<'_>)) -> Result<()> {
        while let Some(metrics) = self.collect()? {
            self.tell(&metrics, observe)?;
        }
        Ok(())
    }

    /// Writes the model directory: configuration, master weights, tokenizer, sampling defaults.
    fn write_model(&self) -> Result<()> {
        let extras = Extras {
            tokenizer: Some(&self.tokenizer),
            generation: Some(&self.generation),
        };
        save_master(
            &self.output_dir,
            self.network.config(),
            &self.network.named_tensors()?,
            extras,
        )?;
        Ok(())
    }
}
