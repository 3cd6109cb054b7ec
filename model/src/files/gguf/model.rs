//! A GGUF file as a [source](ModelSource) of tensors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use half::f16;

use super::blocks::{q4_0, q6_k, q8_0};
use super::container::{Gguf, TensorInfo};
use super::error::GgufError;
use super::graph::Graph;
use super::keys::{self, Keys};
use super::ternary::{self, Declared};
use super::types::TensorType;
use super::{config, names, vocabulary};
use crate::config::{LinearKind, LinearMode, ModelConfig, TensorKind, TensorSpec, WeightStorage};
use crate::files::{FileError, GenerationConfig, ModelSource, StoredAs};
use crate::runtime::{FloatValues, TensorSource};
use crate::tokenizer::Tokenizer;

/// How a tensor of the model lies in the file.
#[derive(Clone, Debug)]
struct Site {
    spec: TensorSpec,
    /// ggml's name.
    theirs: String,
    /// Where it is a query or key projection whose rows are to be put in order: the values of a head.
    reorder: Option<usize>,
    /// A scale beside the blocks.
    declared: Option<Declared>,
    stored: StoredAs,
}

/// A model in a GGUF file, its structure and all of its keys checked. See the [front page](super) for what is read.
#[derive(Debug)]
pub struct GgufModel {
    path: PathBuf,
    gguf: Gguf,
    graph: Graph,
    config: ModelConfig,
    notes: Vec<String>,
    sites: BTreeMap<String, Site>,
    generation: Option<GenerationConfig>,
}

impl GgufModel {
    /// Opens a file.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Gguf`] with everything that a file may be refused for.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let gguf = Gguf::open(path)?;
        Self::new(path, gguf).map_err(|source| FileError::Gguf {
            path: path.to_path_buf(),
            source: Box::new(source),
        })
    }

    /// The model in a file that is already in memory; `label` stands for its path in messages.
    ///
    /// # Errors
    /// A [`GgufError`].
    pub fn from_bytes(bytes: Vec<u8>, label: &str) -> Result<Self, GgufError> {
        Self::new(Path::new(label), Gguf::from_bytes(bytes)?)
    }

    fn new(path: &Path, gguf: Gguf) -> Result<Self, GgufError> {
        let (graph, mut config) = config::read(&gguf)?;
        let mut notes = Vec::new();
        let sites = Plan {
            gguf: &gguf,
            graph,
            unused: gguf.tensors().iter().map(|info| info.name.as_str()).collect(),
            notes: &mut notes,
        }
        .sites(&mut config)?;
        let generation = match (Keys { gguf: &gguf }).text(keys::GENERATION)? {
            Some(text) => {
                let refused = |e: FileError| GgufError::Generation(e.to_string());
                Some(GenerationConfig::from_json(text).map_err(refused)?)
            }
            None => None,
        };
        gguf.give_pages_back();
        Ok(Self {
            path: path.to_path_buf(),
            gguf,
            graph,
            config,
            notes,
            sites,
            generation,
        })
    }

    /// The container.
    pub const fn container(&self) -> &Gguf {
        &self.gguf
    }

    /// What `general.architecture` names.
    pub const fn graph(&self) -> Graph {
        self.graph
    }

    /// Recommended sampling settings, where the file has them.
    pub const fn generation(&self) -> Option<&GenerationConfig> {
        self.generation.as_ref()
    }

    /// The chat template, where the file has one.
    pub fn chat_template(&self) -> Option<&str> {
        Keys { gguf: &self.gguf }.text(vocabulary::CHAT_TEMPLATE).ok().flatten()
    }

    /// Whether the file has a tokenizer.
    pub fn has_tokenizer(&self) -> bool {
        vocabulary::exists(Keys { gguf: &self.gguf })
    }

    /// The tokenizer, where the file has one.
    ///
    /// # Errors
    /// [`FileError::Gguf`] if its keys contradict each other or name a scheme that is not known.
    pub fn tokenizer(&self) -> Result<Option<Tokenizer>, FileError> {
        vocabulary::read(Keys { gguf: &self.gguf }).map_err(|source| FileError::Gguf {
            path: self.path.clone(),
            source: Box::new(source),
        })
    }

    fn site(&self, name: &str) -> Result<(&Site, &TensorInfo), FileError> {
        let site = self.sites.get(name);
        site.and_then(|site| Some((site, self.gguf.tensor(&site.theirs)?)))
            .ok_or_else(|| FileError::MissingTensor {
                path: self.path.clone(),
                name: name.to_string(),
                suggestion: None,
            })
    }
}

impl ModelSource for GgufModel {
    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn notes(&self) -> &[String] {
        &self.notes
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        Ok(self.site(name)?.0.stored)
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let (site, info) = self.site(name)?;
        // Those of the tensor before this one.
        self.gguf.give_pages_back();
        let (rows, cols) = (info.rows, info.cols);
        let refused = |source| FileError::Gguf {
            path: self.path.clone(),
            source: Box::new(source),
        };
        if site.stored == StoredAs::Trits {
            let (trits, scale) = ternary::read(&self.gguf, info, site.declared).map_err(refused)?;
            let values = match site.reorder {
                Some(head_dim) => in_order(&trits, rows, cols, head_dim),
                None => trits,
            };
            return Ok(TensorSource::Trits { values, scale });
        }
        let values = floats(&self.gguf, info).map_err(refused)?;
        Ok(TensorSource::Float(match (site.reorder, values) {
            (None, values) => values,
            (Some(head_dim), FloatValues::F32(v)) => FloatValues::F32(in_order(&v, rows, cols, head_dim).into()),
            (Some(head_dim), FloatValues::F16(v)) => FloatValues::F16(in_order(&v, rows, cols, head_dim).into()),
            (Some(head_dim), FloatValues::Bf16(v)) => FloatValues::Bf16(in_order(&v, rows, cols, head_dim).into()),
            (Some(_), values) => values,
        }))
    }
}

/// The rows of a matrix in our order.
fn in_order<T: Copy>(values: &[T], rows: usize, cols: usize, head_dim: usize) -> Vec<T> {
    let mut out = Vec::with_capacity(values.len());
    for row in 0..rows {
        let at = Graph::row_in_file(head_dim, row) * cols;
        out.extend_from_slice(&values[at..at + cols]);
    }
    out
}

/// The values of a tensor that is not ternary: in place where they lie as this machine reads them, blocks as f16.
fn floats(gguf: &Gguf, info: &TensorInfo) -> Result<FloatValues, GgufError> {
    let shared = gguf.shared();
    let place = info.place.clone();
    let data = gguf.data(info);
    let halves = || data.as_chunks::<2>().0.iter();
    Ok(match info.kind {
        TensorType::F32 => FloatValues::F32(shared.view(place).unwrap_or_else(|| {
            let words = data.as_chunks::<4>().0.iter();
            words.map(|b| f32::from_le_bytes(*b)).collect()
        })),
        TensorType::F16 => FloatValues::F16(
            shared
                .view(place)
                .unwrap_or_else(|| halves().map(|b| f16::from_le_bytes(*b)).collect()),
        ),
        TensorType::Bf16 => FloatValues::Bf16(
            shared
                .view(place)
                .unwrap_or_else(|| halves().map(|b| half::bf16::from_le_bytes(*b)).collect()),
        ),
        kind => {
            let (decode, bytes): (fn(&[u8], &mut Vec<f32>), usize) = match kind {
                TensorType::Q4_0 => (q4_0::decode, q4_0::BYTES),
                TensorType::Q8_0 => (q8_0::decode, q8_0::BYTES),
                TensorType::Q6K => (q6_k::decode, q6_k::BYTES),
                _ => {
                    return Err(GgufError::TensorUse {
                        name: info.name.clone(),
                        found: kind.name(),
                        expected: "float values".to_string(),
                    });
                }
            };
            let (mut out, mut block) = (Vec::with_capacity(info.len()), Vec::new());
            // A piece at a time, so that the f32 are never there all at once.
            for piece in data.chunks(bytes << 8) {
                block.clear();
                decode(piece, &mut block);
                out.extend(block.iter().map(|&v| f16::from_f32(v)));
            }
            if let Some(at) = out.iter().position(|v| !v.is_finite()) {
                return Err(GgufError::NotFinite {
                    name: info.name.clone(),
                    at,
                    found: out[at].to_f32(),
                });
            }
            FloatValues::F16(out.into())
        }
    })
}

/// Finds every tensor of a configuration in the file.
struct Plan<'g, 'n> {
    gguf: &'g Gguf,
    graph: Graph,
    unused: BTreeSet<&'g str>,
    notes: &'n mut Vec<String>,
}

impl<'g> Plan<'g, '_> {
    /// Where each tensor lies. The modes of the linears in `config` become those that the tensors have.
    fn sites(mut self, config: &mut ModelConfig) -> Result<BTreeMap<String, Site>, GgufError> {
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
                let spec = TensorSpec {
                    shape: vec![linear.rows, linear.cols],
                    kind: TensorKind::Linear(linear.mode),
                    name: linear.name,
                };
                let mut site = self.site(spec)?;
                let is_key = matches!(linear.kind, LinearKind::Q | LinearKind::K);
                site.reorder = (self.graph.interleaves() && is_key).then_some(config.head_dim);
                site.declared = self.declared(layer, linear.kind, exact.next())?;
                let mode = self.mode(&mut site)?;
                config.layer_modes[layer].set(linear.kind, mode);
                sites.insert(site.spec.name.clone(), site);
            }
        }
        if config.uses_mode(LinearMode::Ternary) {
            config.storage = WeightStorage::PackedMultiply;
        }
        for spec in config.tensors() {
            if !sites.contains_key(&spec.name) {
                let site = self.site(spec)?;
                sites.insert(site.spec.name.clone(), site);
            }
        }
        self.leave_aside(config)?;
        Ok(sites)
    }

    fn take(&mut self, name: &str) -> Option<&'g TensorInfo> {
        self.unused.remove(name);
        self.gguf.tensor(name)
    }

    /// The tensor of a specification, its shape checked.
    fn site(&mut self, spec: TensorSpec) -> Result<Site, GgufError> {
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
                let note = format!("{theirs} is {} in the file and f16 here", kind.name());
                self.notes.push(note);
                StoredAs::F16
            }
        };
        Ok(Site {
            spec,
            theirs,
            reorder: None,
            declared: None,
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
        if let Some(found) = factor.or(exact).filter(|x| !(x.is_finite() && *x >= 0.0)) {
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

    /// The mode of a linear. Float weights of one magnitude and 0 are ternary: so llama.cpp's converter writes BitNet models.
    fn mode(&mut self, site: &mut Site) -> Result<LinearMode, GgufError> {
        let Some(info) = self.gguf.tensor(&site.theirs) else {
            return Ok(LinearMode::F16);
        };
        let ternary = match (site.stored, site.declared) {
            (StoredAs::Trits, _) => true,
            (_, declared) => match ternary::magnitude(self.gguf, info) {
                Some(magnitude) => magnitude > 0.0 || declared.is_some(),
                None if declared.is_some() => {
                    return Err(GgufError::TensorUse {
                        name: site.theirs.clone(),
                        found: info.kind.name(),
                        expected: "weights of one magnitude and 0, because the file gives them a scale,".to_string(),
                    });
                }
                None => false,
            },
        };
        self.gguf.give_pages_back();
        if ternary {
            site.stored = StoredAs::Trits;
            Ok(LinearMode::Ternary)
        } else {
            site.spec.kind = TensorKind::Linear(LinearMode::F16);
            Ok(LinearMode::F16)
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
