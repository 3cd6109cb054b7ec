//! `onebit bench`: tokens a second, beside the limits of the machine measured in the same run; and what they would be on many GPUs.

mod infer;
pub(crate) mod report;
#[cfg(feature = "train")]
mod scaling;
#[cfg(feature = "train")]
mod train;

use std::path::PathBuf;

use argh::FromArgs;
use onebit_model::config::ModelConfig;
use onebit_model::runtime::Pool;

use self::infer::streams::Streams;
use self::report::{Machine, Report};
use crate::model::ModelDirectory;
use crate::{CliError, Result, args, device, output, random};

/// Measures tokens a second of decoding, prefill or training, or plans training on many GPUs.
#[derive(FromArgs, argh::ArgsInfo, Debug)]
#[argh(
    subcommand,
    name = "bench",
    example = "{command_name} decode --shape 0.7b --json",
    example = "{command_name} decode --shape 2b4t --streams 64 --device cuda",
    example = "{command_name} train --shape 25m --phase warmup",
    example = "{command_name} train --shape 125m --batch-size 32 --seq-len 1024 --gpus 2",
    example = "{command_name} scaling --shape 8b --gpus 1,8,64 --recompute --optimizer adamw8bit --gradients bf16",
    note = "Without --model the weights are random trits of the given shape. bandwidth_gb_s is what all threads read from memory in the same run; peak_ops is the peak of int8 dot products (decode, prefill) or of f32 fused multiply-adds (train). Both are the median of measurements that take turns with what is timed; the peak of prefill is sustained for as long as what it takes turns with. barrier_ns is what a phase of the forward pass costs beside its work. Decoding is greedy; bytes_per_token counts what was read: of the head with the shortcut, of weights that are not multiplied by 0, and of the cache; with --streams weights and head count once a step. A token counts two operations for each weight of the blocks and of the head (prefill: of the blocks), six in training, whose tokens are those of all ranks. In training gemm_ops is the rate of the f32 matrix product of 1024 cubed, run between the steps; the median of each counts. On a GPU bandwidth_gb_s is what a copy in its memory reads and writes, peak_ops the rate of a large product of bf16, and decoding goes on without the host; a head of floats of 64 MB or more is read as a sketch of bytes, and itself only where that leaves a choice.",
    note = "scaling runs nothing: memory of each GPU is what a run on one would allocate, less what ranks divide; a step is that of one H200, measured or estimated or --rate, with collectives as measured on two of a host and assumed between hosts. docs/scaling.md has the model and what it leaves out."
)]
pub struct Bench {
    /// what to measure: decode, prefill or train; or scaling, which is simulated
    #[argh(positional)]
    what: String,
    /// 25m, 125m, 350m, 0.7b, 1b3, 2b4t or 8b; of scaling any preset or config.json (default: 25m)
    #[argh(option)]
    shape: Option<String>,
    /// a model (directory, .1bit or .gguf file) instead of a shape
    #[argh(option)]
    model: Option<PathBuf>,
    /// tokens to decode (default: 128), of the prompt (default: 512) or of a training step (default: 1024, in sequences of 256)
    #[argh(option)]
    tokens: Option<usize>,
    /// sequences of a training step (default: as many as --tokens holds; scaling: 1)
    #[argh(option)]
    batch_size: Option<usize>,
    /// tokens of a training sequence (default: 256; scaling: 2048, or the context if that is shorter)
    #[argh(option)]
    seq_len: Option<usize>,
    /// training on a GPU: keep only the input of each block and compute blocks again for their gradients
    #[argh(switch)]
    recompute: bool,
    /// of training: adamw, adamw8bit or muon (default: adamw)
    #[argh(option)]
    optimizer: Option<String>,
    /// training on a GPU: gradients of the blocks' matrices as f32 or bf16 (default: f32)
    #[argh(option)]
    gradients: Option<String>,
    /// phase of training: warmup (full precision) or hard (default: hard)
    #[argh(option)]
    phase: Option<String>,
    /// arithmetic of training: auto, f32 or bf16 (default: auto)
    #[argh(option)]
    precision: Option<String>,
    /// decode with every logit computed, as on a GPU, and not by the shortcut to the largest
    #[argh(switch)]
    exact_head: bool,
    /// decode so many sequences side by side, a token of each a step, as a server does
    #[argh(option)]
    streams: Option<usize>,
    /// seed of the random weights and ids (default: 0)
    #[argh(option, default = "0")]
    seed: u64,
    /// type of embedding and head: f32, f16, bf16, int8 (a byte a value, a step a row; a little less exact) or int4 (half a byte, a step for 32 columns; less exact) (default: as stored)
    #[argh(option)]
    head: Option<String>,
    /// how keys and values are kept: f32, f16 or int8; smaller types make long contexts cheaper and a little less exact (decode and prefill; default: f32)
    #[argh(option)]
    kv_type: Option<String>,
    /// auto (a GPU that is found and can run the model, else the CPU), cpu, cuda or cuda:N (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads of the CPU (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// training: ranks, each with a GPU of this machine and with so many tokens (default: 1); of scaling: how many GPUs, one number or several (default: 1,2,8,64)
    #[argh(option)]
    gpus: Option<String>,
    /// of scaling: GPUs of a host (default: 8)
    #[argh(option)]
    gpus_per_node: Option<usize>,
    /// what ranks divide: none, optimizer (moments) or parameters (moments and weights) (default: none; of scaling: each)
    #[argh(option)]
    shard: Option<String>,
    /// of scaling: tokens a second of one GPU (default: as measured on an H200, or an estimate)
    #[argh(option)]
    rate: Option<f64>,
    /// print the result as JSON; of scaling one object a line
    #[argh(switch)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Decode,
    Prefill,
    #[cfg(feature = "train")]
    Train,
    #[cfg(feature = "train")]
    Scaling,
}

impl What {
    /// Whether no training is measured.
    fn infers(self) -> bool {
        matches!(self, What::Decode | What::Prefill)
    }

    /// Whether nothing is measured.
    fn simulates(self) -> bool {
        #[cfg(feature = "train")]
        return self == What::Scaling;
        #[cfg(not(feature = "train"))]
        false
    }
}

impl Bench {
    pub(super) fn run(self) -> Result<()> {
        let what = match self.what.as_str() {
            "decode" => What::Decode,
            "prefill" => What::Prefill,
            #[cfg(feature = "train")]
            "train" => What::Train,
            #[cfg(feature = "train")]
            "scaling" => What::Scaling,
            #[cfg(not(feature = "train"))]
            "train" => return Err(super::no_trainer("bench train")),
            #[cfg(not(feature = "train"))]
            "scaling" => return Err(super::no_trainer("bench scaling")),
            other => {
                return Err(CliError::Usage(format!(
                    "bench: expected decode, prefill, train or scaling, found {other:?}"
                )));
            }
        };
        let kv = args::kv_type(self.kv_type.as_deref())?;
        let head = args::head_type(self.head.as_deref())?;
        if !what.infers() && (self.kv_type.is_some() || self.head.is_some()) {
            return Err(CliError::Usage(
                "--kv-type and --head are for bench decode and prefill".into(),
            ));
        }
        if what != What::Decode && self.exact_head {
            return Err(CliError::Usage("--exact-head is for bench decode".into()));
        }
        if what != What::Decode && self.streams.is_some() {
            return Err(CliError::Usage("--streams is for bench decode".into()));
        }
        if self.streams == Some(0) {
            return Err(CliError::Usage("--streams: expected at least 1, found 0".into()));
        }
        if self.tokens == Some(0) {
            return Err(CliError::Usage("--tokens: expected at least 1, found 0".into()));
        }
        if what.infers() && (self.batch_size.is_some() || self.seq_len.is_some() || self.recompute) {
            return Err(CliError::Usage(
                "--batch-size, --seq-len and --recompute are for bench train".into(),
            ));
        }
        if self.batch_size == Some(0) || self.seq_len == Some(0) {
            return Err(CliError::Usage(
                "--batch-size and --seq-len: expected at least 1, found 0".into(),
            ));
        }
        if self.batch_size.is_some() && self.tokens.is_some() {
            return Err(CliError::Usage(
                "--tokens and --batch-size both say how much a step is; give one of them".into(),
            ));
        }
        let given = [&self.phase, &self.precision, &self.optimizer, &self.gradients];
        if what.infers() && given.iter().any(|option| option.is_some()) {
            return Err(CliError::Usage(
                "--phase, --precision, --optimizer and --gradients are for bench train".into(),
            ));
        }
        #[cfg(feature = "train")]
        let trains = what == What::Train;
        #[cfg(not(feature = "train"))]
        let trains = false;
        self.check_scaling(what.simulates(), trains)?;
        #[cfg(feature = "train")]
        if what.simulates() {
            return self.scaling();
        }
        #[cfg(feature = "train")]
        let training = self.training()?;
        let (name, config, directory) = self.subject()?;
        let tokens = self.tokens.unwrap_or(match what {
            What::Decode => 128
                .min(config.max_position_embeddings.saturating_sub(infer::WARM))
                .max(1),
            What::Prefill => 512.min(config.max_position_embeddings),
            #[cfg(feature = "train")]
            What::Train => match self.batch_size {
                Some(batch) => batch * self.seq_len.unwrap_or(train::SEQUENCE),
                None => 1024,
            },
            #[cfg(feature = "train")]
            What::Scaling => 0,
        });
        let room = config.max_position_embeddings;
        let more = if what == What::Decode { infer::WARM } else { 0 };
        if what.infers() && tokens + more > room {
            return Err(CliError::Usage(format!(
                "--tokens: {tokens} and {more} that are not timed do not fit in the model's context of {room}"
            )));
        }
        #[cfg(feature = "train")]
        if what == What::Train {
            let Some(ranks) = self.ranks()? else { return Ok(()) };
            let device = ranks.device.as_deref().or(self.device.as_deref());
            let place = device::place(device, self.threads)?;
            let machine = Machine::new(place.clone())?;
            let (phase, options) = training;
            let step = (tokens, self.seq_len);
            let timed = train::measure(&config, step, phase, options, (&place, &ranks.world))?;
            ranks.world.link().finish()?;
            return match ranks.world.is_first() {
                true => self.tell(name, config.parameter_count(), timed, &machine),
                false => Ok(()),
            };
        }
        let mut place = device::place(self.device.as_deref(), self.threads)?;
        let make = |on_gpu: bool| match &directory {
            Some(directory) => directory.load(head),
            None => random::model(config.clone(), self.seed, head, !on_gpu),
        };
        let chosen = place.gpu.is_some();
        let mut model = make(chosen)?;
        let streams = self.streams.map(|sequences| Streams {
            sequences,
            tokens,
            kv,
            seed: self.seed,
            exact: self.exact_head,
        });
        let on_gpu = match &streams {
            Some(streams) => place.upload_batch(&model, &streams.options(), streams.sequences)?,
            None => place.upload(&model, tokens + more, kv)?,
        };
        if chosen && on_gpu.is_none() {
            model = make(false)?;
        }
        let machine = Machine::new(place.clone())?;
        let timed = match (on_gpu, &place.gpu, what) {
            #[cfg(feature = "cuda")]
            (Some(model), Some(gpu), What::Decode) => match streams {
                Some(streams) => streams.on_gpu(&model, gpu)?,
                None => infer::cuda::decode(gpu, &model, tokens, kv, self.seed)?,
            },
            #[cfg(feature = "cuda")]
            (Some(model), Some(gpu), _) => infer::cuda::prefill(gpu, &model, tokens, kv, self.seed)?,
            (_, _, What::Decode) => {
                // Many streams have a shortcut of their own.
                if !self.exact_head && streams.is_none() {
                    let pool = Pool::new(place.threads)?;
                    onebit_model::generation::add_sketch(&mut model, &pool, place.isa);
                }
                match streams {
                    Some(streams) => streams.on_cpu(&model, &machine)?,
                    None => infer::decode(&model, tokens, kv, &machine, self.seed, !self.exact_head)?,
                }
            }
            _ => infer::prefill(&model, tokens, kv, &machine, self.seed)?,
        };
        self.tell(name, config.parameter_count(), timed, &machine)
    }

    /// Refuses the options of the other measurements here, and those of this one there.
    fn check_scaling(&self, scaling: bool, training: bool) -> Result<()> {
        if !scaling && (self.gpus_per_node.is_some() || self.rate.is_some()) {
            return Err(CliError::Usage(
                "--gpus-per-node and --rate are for bench scaling".into(),
            ));
        }
        if !scaling && !training && (self.gpus.is_some() || self.shard.is_some()) {
            return Err(CliError::Usage(
                "--gpus and --shard are for bench train and bench scaling".into(),
            ));
        }
        let measured = self.model.is_some() || self.device.is_some() || self.threads.is_some();
        if scaling && (measured || self.precision.is_some() || self.tokens.is_some()) {
            return Err(CliError::Usage(
                "bench scaling measures nothing: --model, --device, --threads, --precision and --tokens are for the others; a step is --batch-size and --seq-len".into(),
            ));
        }
        Ok(())
    }

    fn tell(self, name: String, parameters: u64, timed: report::Timed, machine: &Machine) -> Result<()> {
        let report = Report::new(self.what, name, parameters, timed, machine);
        if self.json {
            output::json(&report)
        } else {
            report.print()
        }
    }

    /// What is measured: its name, its configuration and, for a real model, its directory.
    fn subject(&self) -> Result<(String, ModelConfig, Option<ModelDirectory>)> {
        match (&self.shape, &self.model) {
            (Some(_), Some(_)) => Err(CliError::Usage(
                "--shape and --model both say what to measure; give one of them".into(),
            )),
            (None, Some(path)) => {
                let directory = ModelDirectory::open(path)?;
                Ok((path.display().to_string(), directory.config(), Some(directory)))
            }
            (shape, None) => {
                let name = shape.as_deref().unwrap_or("25m");
                Ok((name.to_string(), random::config(name)?, None))
            }
        }
    }
}
