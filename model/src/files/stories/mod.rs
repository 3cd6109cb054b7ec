//! Models of bitllama2.c (`bit_model.bin`), such as the BitNet b1.58 models that were trained on TinyStories with it.
//!
//! ```text
//! 256 bytes      u32 magic, i32 version = 1, i32 dim, hidden, layers, heads, kv heads, vocab, context, u8 tied = 1, zeros
//! f32 [dim]      weight of the last norm
//! f32 [vocab, dim]  embedding, and head
//! q, k, v, o, w1 (gate), w2 (down), w3 (up), each for all layers: f32 γ, and the trits row by row, four to a byte
//! ```
//!
//! The first trit of a byte is in its HIGHEST two bits, in two's complement: `00` is 0, `01` is +1, `11` is −1, and `10` stands for nothing. Everything
//! is little-endian.
//!
//! **The network in our terms.** Each linear divides its input by its length and by `√n`, without a weight: `x / ‖x‖ / √n`. That is RMSNorm with
//! the weight 1/n in every place, so the norms before q, k, v, before gate and up, before `o_proj` and before `down_proj` (the sub-norms) hold that
//! constant. It adds nothing to the mean square, and the last norm 1e-5; the one `rms_norm_eps` of our configuration is as good as nothing, because
//! the mean squares of the inputs of `o_proj` are of the size of 1e-5, and those of the last norm far above. RoPE turns neighbouring pairs there, and
//! the halves of a head here: the rows of q and k are put in that order.

mod source;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{FileError, MappedFile};
use crate::config::{FeedForward, LayerModes, LinearKind, LinearMode, ModelConfig, TensorKind, WeightStorage};

/// The first four bytes.
pub(super) const MAGIC: [u8; 4] = 0x616b_3432_u32.to_le_bytes();
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 256;
/// See the module's front page.
const EPS: f32 = 1e-16;
/// The matrices in the order of the file.
const ORDER: [LinearKind; 7] = [
    LinearKind::Q,
    LinearKind::K,
    LinearKind::V,
    LinearKind::O,
    LinearKind::Gate,
    LinearKind::Down,
    LinearKind::Up,
];

/// Where a tensor lies.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// So many f32 values from this byte on.
    Floats { start: usize, len: usize },
    /// A norm whose every weight is 1/n.
    Constant { n: usize },
    /// γ, and `[rows, cols]` trits; q and k have rows of so many heads, to be put in another order.
    Trits {
        start: usize,
        rows: usize,
        cols: usize,
        rotated_heads: Option<usize>,
    },
}

/// A model of bitllama2.c, its header read and its length checked.
#[derive(Debug)]
pub struct StoriesModel {
    path: PathBuf,
    config: ModelConfig,
    notes: Vec<String>,
    map: MappedFile,
    places: BTreeMap<String, Place>,
}

impl StoriesModel {
    /// Maps a file.
    ///
    /// # Errors
    /// [`FileError::Io`]; [`FileError::Stories`] for another kind of file, sizes that make no model, or a length that is not theirs.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let map = MappedFile::open(path).map_err(|source| FileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        })?;
        let refuse = |problem: String| FileError::Stories {
            path: path.to_path_buf(),
            problem,
        };
        let config = read_header(map.bytes()).map_err(refuse)?;
        let places = places(&config, map.bytes().len() as u64).map_err(refuse)?;
        let notes = Vec::from([
            "bitllama2.c: each linear's norm has no weight and here the weight 1/n; rms_norm_eps is 1e-16 throughout, which the last norm has as 1e-5"
                .to_string(),
        ]);
        Ok(Self {
            path: path.to_path_buf(),
            config,
            notes,
            map,
            places,
        })
    }
}

fn read_header(bytes: &[u8]) -> Result<ModelConfig, String> {
    let Some(header) = bytes.get(..HEADER_BYTES as usize) else {
        return Err(format!(
            "expected a header of {HEADER_BYTES} bytes, found {} bytes",
            bytes.len()
        ));
    };
    let word = |i: usize| {
        header
            .as_chunks::<4>()
            .0
            .get(i)
            .map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    if word(0).to_le_bytes() != MAGIC {
        return Err(format!(
            "expected the magic number {MAGIC:02x?}, found {:02x?}",
            word(0).to_le_bytes()
        ));
    }
    if word(1) != VERSION {
        return Err(format!("expected version {VERSION}, found {}", word(1)));
    }
    // Above the largest i32, and so above every limit of a configuration, where the file's number is negative.
    let [dim, hidden, layers, heads, kv_heads, vocab, context] = [2, 3, 4, 5, 6, 7, 8].map(|i| word(i) as usize);
    if header.get(36) != Some(&1) {
        return Err("expected a head that is the embedding (1 in byte 36), found one of its own".to_string());
    }
    if heads == 0 || !dim.is_multiple_of(heads) {
        return Err(format!("{heads} heads do not divide the width {dim}"));
    }
    let mut config = ModelConfig {
        vocab_size: vocab,
        hidden_size: dim,
        intermediate_size: hidden,
        num_hidden_layers: layers,
        num_attention_heads: heads,
        num_key_value_heads: kv_heads,
        head_dim: dim / heads,
        max_position_embeddings: context,
        rms_norm_eps: EPS,
        rope_theta: 10_000.0,
        feed_forward: FeedForward::SwiGlu,
        tie_word_embeddings: true,
        sub_norms: true,
        qk_norm: false,
        residual_scaling: false,
        final_logit_softcapping: None,
        layer_modes: Vec::new(),
        embedding_mode: LinearMode::F16,
        head_mode: LinearMode::F16,
        bos_token_id: Some(1),
        // The token that begins a story also ends the one before it.
        eos_token_ids: vec![1, 2],
        initializer_range: 0.02,
        storage: WeightStorage::PackedMultiply,
    };
    if layers > crate::config::limits::LAYERS {
        return Err(format!("{layers} layers, more than {}", crate::config::limits::LAYERS));
    }
    config.layer_modes = vec![LayerModes::uniform(LinearMode::Ternary); layers];
    config.validate().map_err(|error| error.to_string())?;
    Ok(config)
}

/// Where each tensor of the configuration lies, in a file of exactly the right length.
fn places(config: &ModelConfig, length: u64) -> Result<BTreeMap<String, Place>, String> {
    let mut places = BTreeMap::new();
    let mut at = HEADER_BYTES;
    // A valid configuration's products fit in 64 bits, and what does not fit in memory is longer than the file.
    let mut take = |bytes: u64| {
        let start = at;
        at = at.saturating_add(bytes);
        match at <= length {
            true => Ok(start as usize),
            false => Err(format!("expected {at} bytes and more, found {length}")),
        }
    };
    let norm = config.hidden_size;
    let floats = |start, len| Place::Floats { start, len };
    let start = take(4 * norm as u64)?;
    places.insert("model.norm.weight".to_string(), floats(start, norm));
    let values = config.vocab_size as u64 * config.hidden_size as u64;
    let start = take(4 * values)?;
    places.insert("model.embed_tokens.weight".to_string(), floats(start, values as usize));
    for kind in ORDER {
        let (rows, cols) = config.linear_size(kind);
        let trits = rows as u64 * cols as u64;
        if !trits.is_multiple_of(4) {
            return Err(format!("a matrix of {rows} × {cols} weights does not fill its bytes"));
        }
        let rotated_heads = match kind {
            LinearKind::Q => Some(config.num_attention_heads),
            LinearKind::K => Some(config.num_key_value_heads),
            _ => None,
        };
        for layer in 0..config.num_hidden_layers {
            let start = take(4 + trits / 4)?;
            let place = Place::Trits {
                start,
                rows,
                cols,
                rotated_heads,
            };
            places.insert(format!("model.layers.{layer}.{}.weight", kind.module()), place);
        }
    }
    if at != length {
        return Err(format!("expected {at} bytes, found {length}"));
    }
    for spec in config.tensors() {
        if let (TensorKind::Norm, Some(&n)) = (spec.kind, spec.shape.first()) {
            places.entry(spec.name).or_insert(Place::Constant { n });
        }
    }
    Ok(places)
}
