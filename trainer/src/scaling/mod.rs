//! What training on N GPUs would hold, send and take: a plan from the numbers that a run on one GPU allocates and was seen to take. Nothing here needs a GPU.
//!
//! Every rank has a whole model's forward and backward and its own micro-batches (data parallelism). What it shares is how gradients become one, and who keeps what:
//!
//! ```text
//! --shard      weights (f32)             moments   gradients are      then every rank sends
//! none         whole                     whole     all-reduced        nothing
//! optimizer    whole                     1/N       reduce-scattered   its f32 weights
//! parameters   matrices 1/N, rest whole  1/N       reduce-scattered   its trits (2 bits), full matrices as bf16, the rest as f32
//! ```
//! *Matrices* are the linears of the blocks, the *rest* is embedding, head and norms, which every rank has whole in f32. Gradients are whole on every rank: that is what limits `parameters`.
//! With `parameters` there is the packed arena beside the weights, a quarter byte for each element of the matrices. Shares are of *buckets* (a block's matrices; the rest) in pieces
//! of 4096 elements. Memory is what such a rank allocates.
//!
//! # A step
//!
//! ```text
//! step     = compute + reduce (what the backward does not hide) + norm + update + gather
//! compute  = tokens / rate − update of one GPU         the measured step of one GPU without its update
//! reduce   : bucket i is ready when the backward has done its block, is sent when the one before it has been, and the backward has ended before the last has: the rest
//! norm     = a gather of 8 bytes                        sharded
//! update   = bytes of norm, optimiser and quantiser / bandwidth of memory       the optimiser's and half of the quantiser's divided by N where sharded
//! gather   = a gather for each bucket, nothing hidden
//! ```
//! A collective takes `max(floor, start + hops + volume / bandwidth)` ([`fabric`]). Inside a node floor, start and bandwidth are fitted to times measured on two H200;
//! everything between nodes is assumed.
//!
//! **What it leaves out**: that collectives take multiprocessors and memory bandwidth from the backward they run beside; that the slowest of N ranks sets the time; the text's arrival; the memory
//! of NCCL and of recordings. Its efficiencies are upper limits.

pub mod fabric;
mod memory;
mod rates;
mod step;
#[cfg(test)]
mod tests;

use onebit_model::config::{LinearMode, ModelConfig};
use onebit_model::network::cuda::Layout;
use serde::Serialize;

use crate::options::{OptimizerKind, Sharding, TrainOptions};
use crate::schedule::Phase;
use crate::{Result, TrainError};

pub use fabric::Fabric;
pub use memory::RankMemory;
pub use rates::{Rate, Source, rate_of};
pub use step::{StepTime, Traffic};

/// A run on several GPUs: every one has the micro-batches of `options`.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The model.
    pub config: &'a ModelConfig,
    /// Batch, optimiser, gradients.
    pub options: &'a TrainOptions,
    /// Whose steps are timed: weights are sent as trits in the hard one alone.
    pub phase: Phase,
    /// Tokens a second of one GPU.
    pub rate: Rate,
}

/// What a rank of a run holds, sends and takes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    /// Ranks.
    pub gpus: usize,
    /// What they divide.
    pub shard: Sharding,
    /// Bytes on each GPU.
    pub memory: RankMemory,
    /// Bytes that each sends in a step.
    pub traffic: Traffic,
    /// Seconds of a step.
    pub step: StepTime,
    /// Of all ranks.
    pub tokens_per_second: f64,
    /// Of N times the tokens a second of one GPU.
    pub efficiency: f64,
    /// Where the rate of one GPU is from.
    pub rate: Source,
}

/// The plan of one rank of `gpus`.
///
/// # Errors
/// No GPU, none in a node, a model that the kernels have no form for, or that cannot be divided so: `--optimizer muon`, whose matrices are whole, and with `parameters` matrices of int8 or
/// int4, or of a number of elements that 4096 does not divide.
pub fn plan(run: &Run<'_>, fabric: &Fabric, gpus: usize, shard: Sharding) -> Result<Plan> {
    if gpus == 0 {
        return Err(refused("gpus", "expected at least 1, found 0".into()));
    }
    if fabric.per_node == 0 {
        return Err(refused("gpus-per-node", "expected at least 1, found 0".into()));
    }
    let parts = Parts::new(run.config)?;
    parts.check(run.options, shard)?;
    let memory = memory::of_rank(run, gpus, shard)?;
    let traffic = step::traffic(run, &parts, gpus, shard);
    let step = step::time(run, &parts, fabric, gpus, shard);
    let tokens_per_second = gpus as f64 * run.options.tokens_per_step() as f64 / step.total;
    Ok(Plan {
        gpus,
        shard,
        memory,
        traffic,
        step,
        tokens_per_second,
        efficiency: tokens_per_second / (gpus as f64 * run.rate.tokens_per_second),
        rate: run.rate.source,
    })
}

fn refused(option: &'static str, why: String) -> TrainError {
    TrainError::Option { option, why }
}

/// Elements that have one owner together.
const PIECE: usize = 4096;

/// The matrices of a block.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Elements that are sent as trits in the hard phase.
    trits: usize,
    /// Elements of matrices that stay in full precision.
    full: usize,
}

impl Bucket {
    fn elements(&self) -> usize {
        self.trits + self.full
    }
}

/// A model as ranks divide it.
struct Parts {
    blocks: Vec<Bucket>,
    /// Embedding, head and norms, with what lies between them.
    rest: usize,
    /// The first matrix that cannot be divided into pieces or sent as trits.
    odd: Option<String>,
}

impl Parts {
    fn new(config: &ModelConfig) -> Result<Self> {
        let layout = Layout::new(config, &config.tensors())?;
        let mut odd = None;
        let blocks = (0..config.num_hidden_layers).map(|layer| {
            let mut bucket = Bucket::default();
            for linear in config.linears(layer) {
                let elements = linear.rows * linear.cols;
                let steps_of_rows = matches!(linear.mode, LinearMode::Int8 | LinearMode::Int4);
                if steps_of_rows || !elements.is_multiple_of(PIECE) {
                    odd.get_or_insert(linear.name.clone());
                }
                match linear.mode {
                    LinearMode::F16 => bucket.full += elements,
                    _ => bucket.trits += elements,
                }
            }
            bucket
        });
        Ok(Parts {
            blocks: blocks.collect(),
            rest: layout.matrices,
            odd,
        })
    }

    /// Elements of all matrices.
    fn matrices(&self) -> usize {
        self.blocks.iter().map(Bucket::elements).sum()
    }

    /// Those of them that become trits.
    fn trits(&self) -> usize {
        self.blocks.iter().map(|b| b.trits).sum()
    }

    fn check(&self, options: &TrainOptions, shard: Sharding) -> Result<()> {
        if shard != Sharding::None && options.optimizer == OptimizerKind::Muon {
            let why = "muon needs whole matrices, which --shard divides; use adamw or adamw8bit, or --shard none";
            return Err(refused("optimizer", why.into()));
        }
        match (&self.odd, shard) {
            (Some(name), Sharding::Parameters) => Err(refused(
                "shard",
                format!(
                    "parameters needs ternary, binary or full matrices of whole pieces of {PIECE} elements, and {name} is none; use --shard optimizer"
                ),
            )),
            _ => Ok(()),
        }
    }
}
