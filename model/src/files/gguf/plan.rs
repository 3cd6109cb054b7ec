//! Which tensor of a file is which of a model, and in which form: all that names, types and shapes tell.

use std::collections::{BTreeMap, BTreeSet};

use super::container::{Gguf, TensorInfo};
use super::error::GgufError;
use super::graph::Graph;
use super::keys::{self, Keys};
use super::names;
use super::ternary::{self, Declared};
use super::types::TensorType;
use crate::config::{LinearKind, LinearMode, ModelConfig, TensorKind, TensorSpec, WeightStorage};
use crate::files::StoredAs;

/// How a tensor of the model lies in the file.
#[derive(Clone, Debug)]
pub(super) struct Site {
    /// ggml's name.
    pub theirs: String,
    /// Where it is a query or key projection whose rows are to be put in order: the values of a head.
    pub reorder: Option<usize>,
    /// A scale beside the blocks.
    pub declared: Option<Declared>,
    /// What the weights other than 0 of a float tensor with trits are, up to the sign.
    pub magnitude: f32,
    pub stored: StoredAs,
}

/// Finds every tensor of a configuration in the file.
pub(super) struct Plan<'g, 'n> {
    gguf: &'g Gguf,
    graph: Graph,
    /// Tensors that were not asked for yet.
    unused: BTreeSet<&'g str>,
    /// How many tensors there are of each type that is kept as f16.
    rounded: BTreeMap<&'static str, usize>,
    notes: &'n mut Vec<String>,
}

impl<'g, 'n> Plan<'g, 'n> {
    pub fn new(gguf: &'g Gguf, graph: Graph, notes: &'n mut Vec<String>) -> Self {
        Self {
            gguf,
            graph,
            unused: gguf.tensors().iter().map(|info| info.name.as_str()).collect(),
            rounded: BTreeMap::new(),
            notes,
        }
    }

    /// Where each tensor lies. The modes of the linears in `config` become those that the tensors have.
    pub fn sites(mut self, config: &mut ModelConfig) -> Result<BTreeMap<String, Site>, GgufError> {
        let gguf = self.gguf;
        let exact = Keys { gguf }.f32s(keys::LINEAR_SCALES)?;
        let linears: usize = (0..config.num_hidden_layers)
            .map(|layer| config.linears(layer).count())
            .sum();
        if let Some(found) = exact.as_ref().map(Vec::len).filter(|&n| n != linears) {
            return Err(GgufError::Value {
                key: keys::LINEAR_SCALES.to_string(),
                expected: format!("{linears} values, one for each linear"),
                found: format!("{found} values"),
            });
        }
        let mut exact = exact.into_iter().flatten();
        let mut sites = BTreeMap::new();
        for layer in 0..config.num_hidden_layers {
            let linears: Vec<_> = config.linears(layer).collect();
            for linear in linears {
                let mut site = self.site(&TensorSpec {
                    shape: vec![linear.rows, linear.cols],
                    kind: TensorKind::Linear(linear.mode),
                    name: linear.name.clone(),
                })?;
                let is_key = matches!(linear.kind, LinearKind::Q | LinearKind::K);
                site.reorder = (self.graph.interleaves() && is_key).then_some(config.head_dim);
                let exact = exact.next();
                site.declared = self.declared(layer, linear.kind, exact)?;
                let mode = self.mode(&mut site, exact == Some(0.0))?;
                config.layer_modes[layer].set(linear.kind, mode);
                sites.insert(linear.name, site);
            }
        }
        if config.uses_mode(LinearMode::Ternary) {
            config.storage = WeightStorage::PackedMultiply;
        }
        for spec in config.tensors() {
            if !sites.contains_key(&spec.name) {
                sites.insert(spec.name.clone(), self.site(&spec)?);
            }
        }
        self.leave_aside(config)?;
        for (kind, tensors) in &self.rounded {
            let note = match tensors {
                1 => format!("a tensor is {kind} in the file and f16 here"),
                n => format!("{n} tensors are {kind} in the file and f16 here"),
            };
            self.notes.push(note);
        }
        Ok(sites)
    }

    fn take(&mut self, name: &str) -> Option<&'g TensorInfo> {
        self.unused.remove(name);
        self.gguf.tensor(name)
    }

    /// The tensor of a specification, its shape checked.
    fn site(&mut self, spec: &TensorSpec) -> Result<Site, GgufError> {
        let graph = self.graph.name();
        let missing = |name: String| GgufError::MissingTensor { name, graph };
        let theirs = names::to_ggml(&spec.name).ok_or_else(|| missing(spec.name.clone()))?;
        let info = self.take(&theirs).ok_or_else(|| missing(theirs.clone()))?;
        let expected = match spec.shape.as_slice() {
            [rows, cols] => (*rows, *cols),
            other => (1, other.iter().product()),
        };
        if (info.rows, info.cols) != expected {
            return Err(GgufError::Shape {
                name: theirs,
                expected,
                found: (info.rows, info.cols),
            });
        }
        let usable = match spec.kind {
            TensorKind::Norm => matches!(info.kind, TensorType::F32 | TensorType::F16 | TensorType::Bf16),
            TensorKind::Embedding | TensorKind::Head => !info.kind.is_ternary(),
            TensorKind::Linear(_) => true,
        };
        if !usable {
            let types = match spec.kind {
                TensorKind::Norm => "F32, F16, BF16",
                _ => "F32, F16, BF16, Q8_0, Q6_K, Q4_0",
            };
            return Err(GgufError::TensorUse {
                name: theirs,
                found: info.kind.name(),
                expected: types.to_string(),
            });
        }
        let stored = match info.kind {
            TensorType::F32 => StoredAs::F32,
            TensorType::Bf16 => StoredAs::Bf16,
            kind if kind.is_ternary() => StoredAs::Trits,
            TensorType::F16 => StoredAs::F16,
            kind => {
                *self.rounded.entry(kind.name()).or_default() += 1;
                StoredAs::F16
            }
        };
        Ok(Site {
            theirs,
            reorder: None,
            declared: None,
            magnitude: 0.0,
            stored,
        })
    }

    /// The scale of a linear that stands beside its blocks.
    fn declared(&mut self, layer: usize, kind: LinearKind, exact: Option<f32>) -> Result<Option<Declared>, GgufError> {
        let name = format!("blk.{layer}.{}.scale", names::linear(kind));
        let gguf = self.gguf;
        let factor = match self.graph.has_scale_tensors().then(|| self.take(&name)).flatten() {
            None => None,
            Some(info) if info.kind == TensorType::F32 && info.len() == 1 => {
                let bytes = gguf.data(info).first_chunk::<4>().copied().unwrap_or_default();
                Some(f32::from_le_bytes(bytes))
            }
            Some(info) => {
                return Err(GgufError::TensorUse {
                    name,
                    found: info.kind.name(),
                    expected: "F32 of one value".to_string(),
                });
            }
        };
        // An exact scale of 0 says that the linear is not ternary.
        let wrong = |x: &f32| !(x.is_finite() && (*x > 0.0 || factor.is_none() && *x == 0.0));
        if let Some(found) = factor.or(exact).filter(wrong) {
            return Err(GgufError::Scale {
                name,
                found,
                expected: "a positive finite number".to_string(),
            });
        }
        Ok(match factor {
            Some(factor) => Some(Declared::Factor(factor)),
            None => exact.filter(|&gamma| gamma > 0.0).map(Declared::Exact),
        })
    }

    /// The mode of a linear. Float weights of one magnitude and 0 are ternary, unless the file says otherwise: so llama.cpp's converter writes
    /// BitNet models.
    fn mode(&mut self, site: &mut Site, is_float: bool) -> Result<LinearMode, GgufError> {
        if site.stored == StoredAs::Trits {
            return Ok(LinearMode::Ternary);
        }
        let Some(info) = self.gguf.tensor(&site.theirs).filter(|_| !is_float) else {
            return Ok(LinearMode::F16);
        };
        let found = ternary::magnitude(self.gguf, info);
        self.gguf.give_pages_back();
        match found {
            Some(magnitude) if magnitude > 0.0 || site.declared.is_some() => {
                (site.stored, site.magnitude) = (StoredAs::Trits, magnitude);
                Ok(LinearMode::Ternary)
            }
            None if site.declared.is_some() => Err(GgufError::TensorUse {
                name: site.theirs.clone(),
                found: info.kind.name(),
                expected: "weights of one magnitude and 0, because the file gives them a scale,".to_string(),
            }),
            _ => Ok(LinearMode::F16),
        }
    }

    /// Tensors that say nothing; any other that was not asked for is refused.
    fn leave_aside(&mut self, config: &ModelConfig) -> Result<(), GgufError> {
        // bitnet.cpp takes the embedding as head whatever the file holds.
        if self.graph.sub_norms() && self.graph != Graph::Bitnet && self.unused.remove("output.weight") {
            let note = "output.weight is left aside, as bitnet.cpp leaves it: this graph's head is the embedding";
            self.notes.push(note.to_string());
        }
        if let Some(info) = self.gguf.tensor("rope_freqs.weight") {
            let ones = info.len() * 2 == config.head_dim && ternary::magnitude(self.gguf, info) == Some(1.0);
            if ones {
                self.unused.remove("rope_freqs.weight");
            }
        }
        match self.unused.first() {
            None => Ok(()),
            Some(name) => Err(GgufError::UnknownTensor {
                name: (*name).to_string(),
                more: self.unused.len() - 1,
                graph: self.graph.name(),
            }),
        }
    }
}
