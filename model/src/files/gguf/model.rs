//! A GGUF file as a [source](ModelSource) of tensors.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytemuck::Pod;
use half::{bf16, f16};

use super::blocks::{q4_0, q6_k, q8_0};
use super::container::{Gguf, TensorInfo};
use super::error::GgufError;
use super::graph::Graph;
use super::keys::{self, Keys};
use super::plan::{Plan, Site};
use super::rows::in_our_order;
use super::ternary;
use super::types::TensorType;
use super::{config, vocabulary};
use crate::config::ModelConfig;
use crate::files::{FileError, GenerationConfig, ModelSource, StoredAs};
use crate::runtime::{FloatValues, SharedBytes, TensorSource, Values};
use crate::tokenizer::Tokenizer;

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
        let mut notes: Vec<String> = vocabulary::note(Keys { gguf: &gguf })?.into_iter().collect();
        let sites = Plan::new(&gguf, graph, &mut notes).sites(&mut config)?;
        vocabulary::check(Keys { gguf: &gguf }, config.vocab_size)?;
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
        let cols = info.cols;
        let refused = |source| FileError::Gguf {
            path: self.path.clone(),
            source: Box::new(source),
        };
        if site.stored == StoredAs::Trits {
            let (trits, scale) = ternary::read(&self.gguf, info, site.magnitude, site.declared).map_err(refused)?;
            let values = match site.reorder {
                Some(head_dim) => in_our_order(&trits, cols, head_dim),
                None => trits,
            };
            return Ok(TensorSource::Trits { values, scale });
        }
        let values = floats(&self.gguf, info).map_err(refused)?;
        Ok(TensorSource::Float(match (site.reorder, values) {
            (None, values) => values,
            (Some(head_dim), FloatValues::F32(v)) => FloatValues::F32(in_our_order(&v, cols, head_dim).into()),
            (Some(head_dim), FloatValues::F16(v)) => FloatValues::F16(in_our_order(&v, cols, head_dim).into()),
            (Some(head_dim), FloatValues::Bf16(v)) => FloatValues::Bf16(in_our_order(&v, cols, head_dim).into()),
            (Some(_), values) => values,
        }))
    }
}

/// The values of a tensor that is not ternary: in place where they lie as this machine reads them, blocks as f16.
fn floats(gguf: &Gguf, info: &TensorInfo) -> Result<FloatValues, GgufError> {
    let shared = gguf.shared();
    let place = info.place.clone();
    Ok(match info.kind {
        TensorType::F32 => FloatValues::F32(in_place(shared, place, f32::from_le_bytes)),
        TensorType::F16 => FloatValues::F16(in_place(shared, place, f16::from_le_bytes)),
        TensorType::Bf16 => FloatValues::Bf16(in_place(shared, place, bf16::from_le_bytes)),
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
            for piece in gguf.data(info).chunks(bytes << 8) {
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

/// The values in `place`: a view, or a copy where this machine has the other byte order or they do not lie as it needs them.
fn in_place<T: Pod, const N: usize>(bytes: &SharedBytes, place: Range<usize>, read: fn([u8; N]) -> T) -> Values<T> {
    let copy = || {
        let values = bytes.bytes().get(place.clone()).unwrap_or(&[]).as_chunks::<N>().0;
        values.iter().map(|b| read(*b)).collect()
    };
    bytes.view(place.clone()).unwrap_or_else(copy)
}
