//! `onebit train`: a training run.

mod disk;
mod dry_run;
mod local;
mod memory;
mod prepare;
mod ranks;
mod shards;
mod teacher;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use argh::FromArgs;
use onebit_trainer::TrainOptions;
use onebit_trainer::options::Precision;
use onebit_trainer::run::{Event, Outcome, TrainData, Trainer};
use onebit_trainer::schedule::Phase;
use serde::Serialize;

use crate::device::Placement;
use crate::progress::Progress;
use crate::{CliError, Result, args, device, interrupt, output, plot};
use disk::Disk;
pub(super) use memory::Memory;
use prepare::Prepared;
use ranks::Part;
pub(super) use ranks::{Ranks, ranks_on_gpus};
pub(super) use shards::Shards;

/// Trains a model on a token file: full precision, then annealing, then ternary.
#[derive(FromArgs, Clone, Debug)]
#[argh(
    subcommand,
    name = "train",
    example = "{command_name} --config wikitext2-cpu --data train.tokens --val valid.tokens --tokenizer tokenizer.json --output-dir model",
    note = "Where a default is the preset's, `--dry-run` shows it. Presets: quickstart, shakespeare-tiny, wikitext2-cpu, wikitext2-production, wikitext2-25m, wikitext2-35m, stories-3m, stories-mcu, 25m, 125m, 350m, 0.7b, 1b3, 2b4t, 8b, 0.3b-stack, 0.7b-stack, 1.3b-stack, 8b-gcp.",
    note = "Several GPUs: --gpus 2 starts two ranks on this machine; torchrun, srun and mpirun start them on several, each with a GPU of its own. A step then has the micro-batches of all ranks. Ranks of other machines need a secret: the same random text in ONEBIT_SECRET, or --secret-file. If one is lost, all end within a minute; --resume goes on, also with another number of ranks.",
    note = "The output directory becomes a model directory, with metrics.jsonl, curves.svg, layers.svg and checkpoints beside the weights. Ctrl-C saves a checkpoint and ends with status 130; --resume with the same options goes on from it, byte for byte."
)]
pub struct Train {
    /// preset, config.json or model directory (not with --init-from)
    #[argh(option)]
    config: Option<String>,
    /// token file to train on
    #[argh(option)]
    data: Option<PathBuf>,
    /// the same as --data
    #[argh(option)]
    data_dir: Option<PathBuf>,
    /// token file to validate on (default: none)
    #[argh(option)]
    val: Option<PathBuf>,
    /// the same as --val
    #[argh(option)]
    val_data_dir: Option<PathBuf>,
    /// the tokenizer.json that made the token files
    #[argh(option)]
    tokenizer: PathBuf,
    /// where the run and its model go
    #[argh(option)]
    output_dir: Option<PathBuf>,
    /// go on from the newest whole checkpoint in --output-dir
    #[argh(switch)]
    resume: bool,
    /// first weights: normal, or mimetic for attention that begins as matching and copying (default: the preset's; not with --init-from)
    #[argh(option)]
    init: Option<String>,
    /// soft-cap of a new model's logits: C * tanh(logits / C), such as 30 (default: as the configuration says; not with --init-from)
    #[argh(option)]
    logit_softcap: Option<f32>,
    /// begin with the weights of this model directory, which must hold floats
    #[argh(option)]
    init_from: Option<PathBuf>,
    /// check everything that a run needs, print what it would be and take, and stop
    #[argh(switch)]
    dry_run: bool,
    /// sequences of a micro-batch (default: the preset's)
    #[argh(option)]
    batch_size: Option<usize>,
    /// tokens of a sequence (default: the preset's)
    #[argh(option)]
    seq_len: Option<usize>,
    /// micro-batches of an optimiser step, of each rank if there are several (default: the preset's)
    #[argh(option)]
    accumulation_steps: Option<usize>,
    /// optimiser steps; 0 for as many as --max-epochs takes (default: the preset's)
    #[argh(option)]
    max_steps: Option<u64>,
    /// passes over the data; 0 for no limit (default: 0)
    #[argh(option)]
    max_epochs: Option<u64>,
    /// peak learning rate (default: the preset's)
    #[argh(option)]
    lr: Option<f32>,
    /// learning rate at the end (default: the preset's)
    #[argh(option)]
    lr_min: Option<f32>,
    /// steps of linear warm-up (default: the preset's)
    #[argh(option)]
    lr_warmup_steps: Option<u64>,
    /// cosine, linear, wsd, two-stage or none (default: cosine)
    #[argh(option)]
    lr_decay: Option<String>,
    /// adamw, adamw8bit for moments in a quarter of the memory, or muon for the blocks' matrices (default: the preset's)
    #[argh(option)]
    optimizer: Option<String>,
    /// what gradients of the blocks' matrices are rounded to: f32, or on a GPU bf16 for half the memory (default: f32)
    #[argh(option)]
    gradients: Option<String>,
    /// arithmetic of the matrix products: f32, bf16, or auto for bf16 where the CPU is faster with it (default: auto)
    #[argh(option)]
    precision: Option<String>,
    /// decoupled weight decay of the linears (default: the preset's)
    #[argh(option)]
    weight_decay: Option<f32>,
    /// the part of the run for which weight decay lasts, from 0 to 1 (default: 1; BitNet's two stages: 0.5)
    #[argh(option)]
    weight_decay_until: Option<f32>,
    /// largest global gradient norm; 0 for any (default: the preset's)
    #[argh(option)]
    grad_clip_max_norm: Option<f32>,
    /// label smoothing of the minimised loss (default: the preset's)
    #[argh(option)]
    label_smoothing: Option<f32>,
    /// factor of the squared log-sum-exp in the minimised loss, such as 1e-4 (default: 0)
    #[argh(option)]
    z_loss: Option<f32>,
    /// a model directory whose probabilities are learned beside the text, again for each of several (default: none)
    #[argh(option)]
    teacher: Vec<PathBuf>,
    /// the teachers' share of what is learned, above 0 and at most 1 (default: the preset's, else 0.5)
    #[argh(option)]
    teacher_weight: Option<f32>,
    /// train a teacher first, the preset's or else the same model in full precision, for so many steps, in the folder teacher of --output-dir; 0 for none (default: the preset's)
    #[argh(option)]
    teacher_steps: Option<u64>,
    /// teachers that are trained first, from seeds that follow --seed, in the folders teacher-1, teacher-2 and so on if there are several (default: the preset's, else 1)
    #[argh(option)]
    teacher_count: Option<usize>,
    /// dropout on residual branches, and on the embedded tokens unless --input-dropout says otherwise (default: the preset's)
    #[argh(option)]
    dropout: Option<f32>,
    /// dropout on the embedded tokens (default: as --dropout, or the preset's)
    #[argh(option)]
    input_dropout: Option<f32>,
    /// dropout of attention's probabilities, behind the softmax (default: 0)
    #[argh(option)]
    attention_dropout: Option<f32>,
    /// dropout on the input of the head (default: the preset's)
    #[argh(option)]
    output_dropout: Option<f32>,
    /// dropout of whole words: each is gone everywhere in a micro-batch with this probability (default: the preset's)
    #[argh(option)]
    word_dropout: Option<f32>,
    /// probability that a sequence passes by a branch of the last block; less for the blocks before it (default: 0)
    #[argh(option)]
    stochastic_depth: Option<f32>,
    /// what the linears become: ternary, binary, or none for the same model in full precision, without phases (default: as the configuration says)
    #[argh(option)]
    quant: Option<String>,
    /// steps in full precision (default: the preset's; its share of --max-steps if that is given)
    #[argh(option)]
    quant_warmup_steps: Option<u64>,
    /// steps from full precision to ternary (default: as --quant-warmup-steps)
    #[argh(option)]
    quant_anneal_steps: Option<u64>,
    /// steps between checkpoints; 0 for one at the end (default: the preset's)
    #[argh(option)]
    save_every: Option<u64>,
    /// checkpoints kept (default: 2)
    #[argh(option)]
    keep: Option<usize>,
    /// keep the checkpoint with the lowest validation loss on ternary weights besides
    #[argh(switch)]
    keep_best: bool,
    /// steps in a row with a loss or gradient that is not finite after which the run stops; those before are skipped (default: 3)
    #[argh(option)]
    max_skipped_steps: Option<u64>,
    /// go back to the newest checkpoint, and on with other data, after three losses so many standard deviations above the mean (default: 0, never)
    #[argh(option)]
    spike_guard: Option<f32>,
    /// steps between validations; 0 for one at the end (default: the preset's)
    #[argh(option)]
    eval_every: Option<u64>,
    /// validation windows of one validation; 0 for all (default: 64)
    #[argh(option)]
    eval_windows: Option<usize>,
    /// begin every window at a document, not anywhere: for short documents that do not belong together
    #[argh(switch)]
    align_documents: bool,
    /// steps between layer metrics (default: 10)
    #[argh(option)]
    log_every: Option<u64>,
    /// seed of weights, data order and dropout (default: 42)
    #[argh(option)]
    seed: Option<u64>,
    /// keep only the input of each block and compute blocks again for their gradients: less memory on a GPU, a third more work
    #[argh(switch)]
    recompute: bool,
    /// train on so many GPUs of this machine, each with micro-batches of its own (default: 1, or as a launcher says)
    #[argh(option)]
    gpus: Option<usize>,
    /// what ranks divide among them instead of all having it: none, optimizer for the moments, or on GPUs parameters for the master weights of the blocks as well (default: none)
    #[argh(option)]
    shard: Option<String>,
    /// how long ranks wait for one another at the beginning, in seconds (default: 600)
    #[argh(option)]
    rendezvous_timeout: Option<u64>,
    /// a file with the secret of the ranks (default: ONEBIT_SECRET; not needed on one machine)
    #[argh(option)]
    secret_file: Option<PathBuf>,
    /// replace what an earlier run left in --output-dir
    #[argh(switch)]
    force: bool,
    /// auto, cpu, cuda or cuda:N (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}

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
    pub(super) fn run(self) -> Result<()> {
        self.run_on(None)
    }

    /// Trains, on a stream of shards instead of a token file if there is one, and says what came of it.
    pub(super) fn run_on(self, shards: Option<&Shards>) -> Result<()> {
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
        let progress = Arc::new(Progress::new("training", total - first));
        if let Some(shards) = shards {
            shards.tell_beside(&progress);
        }
        let start = Instant::now();
        let (mut last, mut validated, mut saved) = (None, None, None);
        let outcome = trainer.run(interrupt::poll(), &mut |event| match event {
            Event::Step(m) => {
                let done = m.step - first;
                progress.set(done, || {
                    let speed = (done * tokens_per_step) as f64 / start.elapsed().as_secs_f64();
                    format!(
                        "step {}/{total} loss {:.4} {} lr {:.2e} {speed:.0} tok/s",
                        m.step,
                        m.loss,
                        m.phase.name(),
                        m.lr
                    )
                });
                match m.skipped {
                    Some(what) => progress.note(&format!(
                        "step {}: the {what} is not finite; the step is skipped",
                        m.step
                    )),
                    None => last = Some((m.loss, m.phase)),
                }
            }
            Event::Validated(m) => {
                progress.note(&format!(
                    "step {}: validation loss {:.4}, perplexity {:.3}",
                    m.step, m.val_loss, m.val_ppl
                ));
                validated = Some((m.val_loss, m.val_ppl));
            }
            Event::Saved(path) => saved = Some(path.to_path_buf()),
            Event::SaveFailed(error) => progress.note(&format!("no checkpoint was written; training goes on: {error}")),
            Event::RolledBack(back) => progress.note(&format!(
                "step {}: the loss is {:.4}; back to step {}, and on with other data",
                back.rolled_back_from, back.spike_loss, back.step
            )),
            Event::Resumed { .. } | Event::Regrouped { .. } => {}
        })?;
        drop(progress);
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
            ("curves.svg", Some(plot::draw(std::slice::from_ref(&curves))?)),
            ("layers.svg", plot::draw_layers(&curves)?),
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
