//! Options that are one of a few.

use serde::{Deserialize, Serialize};

use onebit_engine::Device;
use onebit_engine::ops::matmul::Arithmetic;

/// The optimiser of the linear layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OptimizerKind {
    /// AdamW for everything.
    AdamW,
    /// AdamW for everything, with moments in 8 bits: a quarter of their memory, and almost the same losses.
    AdamW8bit,
    /// Muon for the blocks' matrices, AdamW for norms, embedding and head.
    Muon,
}

impl OptimizerKind {
    /// Lower-case name, as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            OptimizerKind::AdamW => "adamw",
            OptimizerKind::AdamW8bit => "adamw8bit",
            OptimizerKind::Muon => "muon",
        }
    }
}

impl std::str::FromStr for OptimizerKind {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        [OptimizerKind::AdamW, OptimizerKind::AdamW8bit, OptimizerKind::Muon]
            .into_iter()
            .find(|kind| kind.name() == s)
            .ok_or_else(|| format!("expected adamw, adamw8bit or muon, found {s:?}"))
    }
}

/// What ranks divide among them instead of each having the whole. The bytes of a run are the same either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharding {
    /// Nothing: every rank has weights and moments.
    #[default]
    None,
    /// The optimiser's moments (ZeRO-1, Rajbhandari et al. 2020): each rank updates a part of the weights and sends it to the others.
    Optimizer,
    /// And, on GPUs, the master weights of the blocks' matrices: ranks send one another what the products read, trits of 2 bits in the hard phase.
    Parameters,
}

impl Sharding {
    /// All of them, the one that divides least first.
    pub const ALL: [Sharding; 3] = [Sharding::None, Sharding::Optimizer, Sharding::Parameters];

    /// Name as on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Sharding::None => "none",
            Sharding::Optimizer => "optimizer",
            Sharding::Parameters => "parameters",
        }
    }
}

impl std::str::FromStr for Sharding {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        Sharding::ALL
            .into_iter()
            .find(|sharding| sharding.name() == s)
            .ok_or_else(|| format!("expected none, optimizer or parameters, found {s:?}"))
    }
}

/// What the factors of training's matrix products are rounded to. The forward of the hard phase, validation and evaluation are exact either
/// way, and sums, weights, moments and everything element by element are f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 where the CPU multiplies it faster than f32, else f32. A run decides once: its checkpoints and metrics hold the choice.
    Auto,
    /// Not rounded.
    F32,
    /// bf16; the same bytes on every CPU, but slower than f32 where the CPU has no instruction for it.
    Bf16,
}

impl Precision {
    /// The choice that `Auto` stands for on `device`.
    pub fn resolved(self, device: Device) -> Self {
        match self {
            Precision::Auto if Arithmetic::bf16_is_fast(device) => Precision::Bf16,
            Precision::Auto => Precision::F32,
            chosen => chosen,
        }
    }

    /// The arithmetic of products on `device`.
    pub fn arithmetic(self, device: Device) -> Arithmetic {
        match self.resolved(device) {
            Precision::Bf16 => Arithmetic::Bf16,
            _ => Arithmetic::F32,
        }
    }

    /// Lower-case name, as in metrics and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::Auto => "auto",
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }

    /// What runs used before there was a choice.
    pub(super) fn of_older_runs() -> Self {
        Precision::F32
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(s: &str) -> std::result::Result<Self, String> {
        [Precision::Auto, Precision::F32, Precision::Bf16]
            .into_iter()
            .find(|p| p.name() == s)
            .ok_or_else(|| format!("expected auto, f32 or bf16, found {s:?}"))
    }
}
