//! A run from what the command line says: as one process, as what starts ranks, or as a rank; planned or made; and what came of it.

use std::path::PathBuf;
use std::time::Instant;

use onebit_trainer::TrainOptions;
use onebit_trainer::options::Precision;
use onebit_trainer::run::{Event, Outcome, TrainData, Trainer};
use onebit_trainer::schedule::Phase;
use serde::Serialize;

use super::disk::Disk;
use super::prepare::Prepared;
use super::ranks::Part;
use super::{Memory, Ranks, Shards, Train, dry_run, local};
use crate::device::Placement;
use crate::watch::tensorboard::EventFile;
use crate::watch::{Told, Watching, Wish};
use crate::{CliError, Result, args, device, interrupt, output, plot};

/// The result.
#[derive(Serialize)]
struct Trained {
    output_dir: PathBuf,
    steps: u64,
    tokens: u64,
    loss: Option<f64>,
    val_loss: Option<f64>,
    val_ppl: Option<f64>,
    phase: Option<Phase>,
    seconds: f64,
    tok_s: f64,
}

impl Train {
    pub(in crate::commands) fn run(self) -> Result<()> {
        self.run_on(None)
    }

    /// Trains, on a stream of shards instead of a token file if there is one, and says what came of it.
    pub(in crate::commands) fn run_on(self, shards: Option<&Shards>) -> Result<()> {
        match self.part()? {
            Part::Single => self.run_as(&Ranks::single(), shards),
            Part::Starts(gpus) => {
                // A plan needs no GPUs.
                if self.dry_run {
                    return self.plan_for(gpus, shards);
                }
                local::check(gpus, self.device.as_deref())?;
                local::run(gpus)
            }
            Part::Rank(place) if self.dry_run && place.rank > 0 => Ok(()),
            Part::Rank(place) if self.dry_run => self.plan_for(place.size, shards),
            Part::Rank(place) => {
                local::stop_with_parent();
                let ranks = self.meet(&place)?;
                let run = self.clone();
                self.together(&ranks, || run.run_as(&ranks, shards))
            }
        }
    }

    /// Plans a run of so many ranks.
    fn plan_for(self, size: usize, shards: Option<&Shards>) -> Result<()> {
        self.finished(None, (&Ranks::single(), size), shards).map(drop)
    }

    fn run_as(self, ranks: &Ranks, shards: Option<&Shards>) -> Result<()> {
        let json = self.json;
        match self.finished(None, (ranks, ranks.world.size()), shards)? {
            Some((result, curves)) if !json => result.print(&curves),
            Some((result, _)) => output::json(&result),
            None => Ok(()),
        }
    }

    /// Trains, on `place` if that was chosen already, as one of `world` ranks, and says what came of it; nothing after a dry run, and nothing on ranks but the first.
    fn finished(
        mut self,
        place: Option<&Placement>,
        (ranks, world): (&Ranks, usize),
        shards: Option<&Shards>,
    ) -> Result<Option<(Trained, plot::Run)>> {
        self.data = args::either(self.data.take(), "--data", self.data_dir.take(), "--data-dir")?;
        self.val = args::either(self.val.take(), "--val", self.val_data_dir.take(), "--val-data-dir")?;
        let Prepared {
            config,
            options,
            data,
            validation,
            tokenizer,
            teachers,
            own_teachers,
        } = self.prepare(shards.is_some())?;
        let options = TrainOptions { world, ..options };
        let place = match place {
            Some(place) => place.clone(),
            None => device::place(ranks.device.as_deref().or(self.device.as_deref()), self.threads)?,
        };
        options.validate_device(place.gpu.is_some())?;
        let taught: Vec<_> = teachers.iter().map(|teacher| teacher.1.clone()).collect();
        let memory = Memory::new((&config, &taught), &options, &place)?;
        let disk = match &self.output_dir {
            Some(directory) => Some(Disk::new(directory, &memory, &options)?),
            None => None,
        };
        if self.dry_run {
            let precision = match (&place.gpu, options.precision) {
                (Some(_), Precision::Auto) => Precision::Bf16,
                (_, chosen) => chosen.resolved(place.device()),
            };
            let options = TrainOptions { precision, ..options };
            // A stream has no epochs: how long it is nobody knows.
            let windows = data.as_ref().map_or(Ok(0), |data| data.windows(&options))?;
            let teacher_steps = own_teachers.map_or(0, |own| own.steps);
            let trained_teachers = own_teachers.map_or(0, |own| own.count);
            let plan = dry_run::Plan {
                windows,
                tokens: data.map(|data| data.file.len()),
                validation: validation.map(|tokens| tokens.file.len()),
                vocab_size: tokenizer.vocab_size(),
                seconds: dry_run::seconds((&config, &taught), &options, teacher_steps, &place, windows)?,
                teacher_steps,
                trained_teachers,
            };
            dry_run::print(&config, &options, (&memory, disk.as_ref()), &plan, self.json)?;
            // As the run itself would refuse it.
            memory.refuse_if_too_large((&config, &taught), &options, &place)?;
            disk.map_or(Ok(()), |disk| disk.refuse_if_too_small())?;
            return Ok(None);
        }
        memory.refuse_if_too_large((&config, &taught), &options, &place)?;
        if let Some(disk) = &disk {
            disk.refuse_if_too_small()?;
        }
        if place.gpu.is_some() {
            memory.tell();
        }
        let output_dir = args::required(self.output_dir.clone(), "--output-dir")?;
        if ranks.world.is_first() {
            self.prepare_directory(&output_dir)?;
            if let Some(directory) = &self.tensorboard {
                EventFile::check(directory, self.resume, self.force)?;
            }
        }
        if let Some(own) = own_teachers {
            for (i, run) in (1..).zip(self.of_teachers(own, &output_dir)) {
                let (count, steps) = (own.count, own.steps);
                output::note(&format!(
                    "teacher {i} of {count} first, in full precision, {steps} steps"
                ));
                run.finished(Some(&place), (ranks, world), None)?;
            }
            // A run that was interrupted before it had begun to learn from its teachers begins now.
            self.resume &= output_dir.join("checkpoints").is_dir();
        }
        let data = match (data, shards) {
            (Some(data), _) => data.file.into(),
            (None, Some(shards)) => TrainData::Stream(shards.open(&tokenizer, &options, &ranks.world)?),
            (None, None) => return Err(CliError::Usage("required option not provided: --data".into())),
        };
        let inputs = self.inputs(
            (config, &teachers),
            options,
            data,
            validation,
            tokenizer,
            (place, ranks.world.clone()),
            &output_dir,
        )?;
        let done = self.train(inputs, &output_dir, shards)?;
        // The model is on the disk when any rank goes on, as to the next that it teaches.
        ranks.world.link().all_gather(&[])?;
        Ok(done)
    }

    fn train(
        &self,
        inputs: onebit_trainer::run::RunInputs,
        output_dir: &std::path::Path,
        shards: Option<&Shards>,
    ) -> Result<Option<(Trained, plot::Run)>> {
        let is_first = inputs.world.is_first();
        let tokens_per_step = inputs.options.tokens_per_step();
        let told = Told::of(&inputs);
        let mut trainer = Trainer::new(inputs, self.resume, &mut |event| match event {
            Event::Resumed { path, step, skipped } => {
                skipped
                    .iter()
                    .for_each(|why| output::note(&format!("note: passed over: {why}")));
                output::note(&format!("resumed from {} at step {step}", path.display()));
            }
            Event::Regrouped {
                from,
                to,
                accumulation_steps,
            } => output::note(&format!(
                "note: the checkpoint is of {from} ranks and now there are {to}: each takes {accumulation_steps} micro-batches of a step"
            )),
            _ => {}
        })?;
        output::note(&format!("precision: {}", trainer.precision().name()));
        let (first, total) = (trainer.steps_done(), trainer.total_steps());
        let wish = Wish {
            resume: self.resume,
            force: self.force,
            tensorboard: self.tensorboard.clone(),
            tui: self.tui,
            samples: self.samples,
        };
        let mut watching = Watching::begin(&wish, &trainer, told, output_dir)?;
        if let Some(shards) = shards {
            shards.tell_beside(&watching.progress);
        }
        let start = Instant::now();
        let outcome = trainer.run(interrupt::poll(), &mut |event| watching.event(event));
        watching.end();
        let (last, validated, saved) = (watching.last, watching.validated, watching.saved.take());
        drop(watching);
        let outcome = outcome?;
        let seconds = start.elapsed().as_secs_f64();
        let steps = trainer.steps_done();
        if outcome == Outcome::Interrupted {
            let place = saved.map_or_else(String::new, |path| format!(", saved in {}", path.display()));
            return Err(CliError::Interrupted(format!(
                "interrupted at step {steps} of {total}{place}; go on with --resume"
            )));
        }
        if !is_first {
            return Ok(None);
        }
        let curves = plot::Run::read(output_dir)?;
        let pictures = [
            (
                "curves.svg",
                Some(plot::draw(std::slice::from_ref(&curves), plot::Theme::Auto)?),
            ),
            ("layers.svg", plot::draw_layers(&curves, plot::Theme::Auto)?),
        ];
        for (name, picture) in pictures {
            let (path, Some(picture)) = (output_dir.join(name), picture) else {
                continue;
            };
            std::fs::write(&path, picture)
                .map_err(|e| CliError::io(&path, "write", &e, "check the space and the permissions there"))?;
        }
        let tokens = (steps - first) * tokens_per_step;
        let result = Trained {
            output_dir: output_dir.to_path_buf(),
            steps,
            tokens: steps * tokens_per_step,
            loss: last.map(|(loss, _)| loss),
            val_loss: validated.map(|(loss, _)| loss),
            val_ppl: validated.map(|(_, ppl)| ppl),
            phase: last.map(|(_, phase)| phase),
            seconds,
            tok_s: tokens as f64 / seconds.max(1e-9),
        };
        Ok(Some((result, curves)))
    }
}

impl Trained {
    fn print(&self, curves: &plot::Run) -> Result<()> {
        output::note(&plot::curve(curves));
        let mut rows = vec![
            ("model", self.output_dir.display().to_string()),
            ("steps", self.steps.to_string()),
        ];
        rows.extend(
            self.loss
                .map(|loss| ("loss", format!("{loss:.4} nats a token, in training"))),
        );
        rows.extend(
            self.val_loss
                .zip(self.val_ppl)
                .map(|(loss, ppl)| ("validation", format!("{loss:.4} nats a token, perplexity {ppl:.3}"))),
        );
        rows.push((
            "time",
            format!("{}, {:.0} tok/s", output::seconds(self.seconds), self.tok_s),
        ));
        rows.push(("curves", self.output_dir.join("curves.svg").display().to_string()));
        output::table(&rows)
    }
}
