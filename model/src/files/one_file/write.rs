//! From a packed model to a file.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use bytemuck::cast_slice;
use onebit_kernels_cpu::{int4_gemv, t2};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::{
    ALIGNMENT, CHECKSUM_LEN, COLUMNS, FORMAT, PADDING, SCALES, SKETCH, TOKENIZER_JSON, TOKENIZER_PACKED, VERSION,
};
use crate::chat::ChatTemplate;
use crate::files::atomic::replace_file;
use crate::files::{FileError, GenerationConfig, PartProblem};
use crate::runtime::{FloatMatrix, FloatValues, Linear, PackedModel, RowFigures, Values};

/// Bytes that are written between two reports of the progress.
const PIECE: usize = 8 << 20;

/// What goes into the file beside the model; each may be left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// The bytes of `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// The same as [`Tokenizer::pack`](crate::tokenizer::Tokenizer::pack) gives it.
    pub packed_tokenizer: Option<&'a [u8]>,
    /// Recommended sampling settings.
    pub generation: Option<&'a GenerationConfig>,
    /// The chat template, with the tokens that it may name.
    pub chat_template: Option<&'a ChatTemplate>,
}

/// A tensor to be written.
struct Tensor<'a> {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: &'a [u8],
}

/// The tensors in the order of the file, each ended at a multiple of [`ALIGNMENT`].
struct Tensors<'a> {
    list: Vec<Tensor<'a>>,
    bytes: usize,
    padded: usize,
}

impl<'a> Tensors<'a> {
    fn put(&mut self, name: String, dtype: Dtype, shape: Vec<usize>, bytes: &'a [u8]) {
        static ZEROS: [u8; ALIGNMENT] = [0; ALIGNMENT];
        self.bytes += bytes.len();
        self.list.push(Tensor {
            name,
            dtype,
            shape,
            bytes,
        });
        let missing = self.bytes.next_multiple_of(ALIGNMENT) - self.bytes;
        if missing > 0 {
            self.padded += 1;
            let name = format!("{PADDING}{}", self.padded);
            self.put(name, Dtype::U8, vec![missing], &ZEROS[..missing]);
        }
    }

    fn put_bytes(&mut self, name: &str, bytes: Option<&'a [u8]>) {
        if let Some(bytes) = bytes {
            self.put(name.to_string(), Dtype::U8, vec![bytes.len()], bytes);
        }
    }

    fn put_f32(&mut self, name: String, values: &'a [f32]) {
        self.put(name, Dtype::F32, vec![values.len()], cast_slice(values));
    }

    fn put_matrix(&mut self, name: String, matrix: &'a FloatMatrix) {
        let (dtype, bytes) = match &matrix.values {
            FloatValues::F32(values) => (Dtype::F32, cast_slice(values)),
            FloatValues::F16(values) => (Dtype::F16, cast_slice(values)),
            FloatValues::Bf16(values) => (Dtype::BF16, cast_slice(values)),
            FloatValues::Int8 { values, steps } => return self.put_int8(name, matrix.rows, matrix.cols, values, steps),
            FloatValues::Int4 { codes, steps, cols } => {
                let shape = |each| vec![matrix.rows, each];
                self.put(
                    format!("{name}.i4"),
                    Dtype::U8,
                    shape(int4_gemv::row_bytes(*cols)),
                    codes,
                );
                let each = int4_gemv::row_steps(*cols);
                return self.put(format!("{name}.steps"), Dtype::F16, shape(each), cast_slice(steps));
            }
        };
        self.put(name, dtype, vec![matrix.rows, matrix.cols], bytes);
    }

    fn put_int8(&mut self, name: String, rows: usize, cols: usize, values: &'a [i8], steps: &'a [f32]) {
        self.put(format!("{name}.i8"), Dtype::I8, vec![rows, cols], cast_slice(values));
        self.put_f32(format!("{name}.steps"), steps);
    }

    fn put_linear(&mut self, name: String, linear: &'a Linear) {
        match linear {
            Linear::Ternary {
                rows,
                cols,
                layout,
                packed,
                columns,
                ..
            } => {
                let (rows_name, group) = (format!("{name}.{}", layout.name()), layout.group_bytes(*cols));
                self.put(rows_name, Dtype::U8, vec![packed.len() / group.max(1), group], packed);
                debug_assert_eq!(packed.len(), layout.bytes(*rows, *cols));
                if let Some(columns) = columns {
                    let bytes: &[u8] = cast_slice(columns);
                    let shape = vec![*cols, bytes.len() / (*cols).max(1)];
                    self.put(format!("{name}{COLUMNS}"), Dtype::U8, shape, bytes);
                }
            }
            Linear::Int8 {
                rows,
                cols,
                values,
                steps,
            } => self.put_int8(name, *rows, *cols, values, steps),
            Linear::Float(matrix) => self.put_matrix(name, matrix),
        }
    }
}

/// γ of each ternary or binary linear, in order.
fn scales(model: &PackedModel) -> Vec<f32> {
    let linears = model.blocks().iter().flat_map(|block| block.linears());
    let scale = |linear: &Linear| match linear {
        Linear::Ternary { scale, .. } => Some(*scale),
        _ => None,
    };
    linears.filter_map(scale).collect()
}

fn tensors<'a>(model: &'a PackedModel, scales: &'a [f32], parts: &Parts<'a>) -> Tensors<'a> {
    let mut all = Tensors {
        list: Vec::new(),
        bytes: 0,
        padded: 0,
    };
    all.put_f32(SCALES.to_string(), scales);
    // The small and the seldom read first, so that a pass over the model goes through the rest of the file from end to end.
    all.put_bytes(TOKENIZER_PACKED, parts.packed_tokenizer);
    all.put_bytes(TOKENIZER_JSON, parts.tokenizer);
    for (layer, block) in model.blocks().iter().enumerate() {
        let norms: [(&str, Option<&Values<f32>>); 6] = [
            ("input_layernorm", Some(&block.input_norm)),
            ("self_attn.q_norm", block.q_norm.as_ref()),
            ("self_attn.k_norm", block.k_norm.as_ref()),
            ("self_attn.attn_sub_norm", block.attn_sub_norm.as_ref()),
            ("post_attention_layernorm", Some(&block.post_attention_norm)),
            ("mlp.ffn_sub_norm", block.ffn_sub_norm.as_ref()),
        ];
        for (name, norm) in norms {
            if let Some(norm) = norm {
                all.put_f32(format!("model.layers.{layer}.{name}.weight"), norm);
            }
        }
        for (shape, linear) in model.config().linears(layer).zip(block.linears()) {
            all.put_linear(shape.name, linear);
        }
    }
    all.put_f32("model.norm.weight".to_string(), model.norm());
    all.put_matrix("model.embed_tokens.weight".to_string(), model.embedding());
    if !model.config().tie_word_embeddings {
        all.put_matrix("lm_head.weight".to_string(), model.head());
    }
    if let Some(sketch) = model.sketch() {
        let rows = model.head().rows;
        for ((plane, figures), names) in sketch.parts().zip(SKETCH) {
            let groups = rows.div_ceil(t2::GROUP_ROWS);
            all.put(
                names.0.to_string(),
                Dtype::U8,
                vec![groups, plane.len() / groups],
                plane,
            );
            let shape = vec![rows, RowFigures::LEN];
            all.put(names.1.to_string(), Dtype::F32, shape, cast_slice(figures));
        }
    }
    all
}

/// Header length and header, the checksum all zeros; and where in it the checksum goes.
fn header(model: &PackedModel, parts: &Parts<'_>, tensors: &Tensors<'_>) -> (Vec<u8>, usize) {
    let mut metadata = Map::new();
    let mut entry = |key: &str, text: &str| metadata.insert(key.to_string(), Value::from(text));
    let zeros = "0".repeat(CHECKSUM_LEN);
    entry("format", FORMAT);
    entry("version", VERSION);
    // Before any text that is not ours, so that the first run of zeros is the checksum's place.
    entry("checksum", &zeros);
    entry("config", &model.config().to_json());
    if let Some(generation) = parts.generation {
        entry("generation_config", &generation.to_json());
    }
    if let Some(template) = parts.chat_template {
        entry("chat_template", template.text());
        entry("bos_token", template.bos_token());
        entry("eos_token", template.eos_token());
    }
    let mut root = Map::new();
    root.insert("__metadata__".to_string(), Value::Object(metadata));
    let mut start = 0;
    for tensor in &tensors.list {
        let end = start + tensor.bytes.len();
        let dtype = serde_json::to_value(tensor.dtype).unwrap_or_default();
        let info = json!({ "dtype": dtype, "shape": tensor.shape, "data_offsets": [start, end] });
        root.insert(tensor.name.clone(), info);
        start = end;
    }
    let mut text = Value::Object(root).to_string();
    // The format allows spaces after the header.
    let length = (8 + text.len()).next_multiple_of(ALIGNMENT) - 8;
    text.extend(std::iter::repeat_n(' ', length - text.len()));
    let place = 8 + text.find(&zeros).unwrap_or_default();
    let mut bytes = (length as u64).to_le_bytes().to_vec();
    bytes.extend(text.as_bytes());
    (bytes, place)
}

/// Writes a model as one file under a temporary name that is renamed once it is on disk. The same model and parts give the same bytes. What the model
/// has beside its weights is written too: the sketch of the head, and columns, which a model that was loaded from a directory has on some CPUs
/// ([`PackedModel::with_columns`], [`PackedModel::without_columns`]).
/// `progress(done, total)` is told in bytes, each counted twice: for the checksum, and as written.
///
/// # Errors
/// [`FileError::Io`]; [`FileError::Part`] on a machine with the other byte order.
pub fn save_one_file(
    path: &Path,
    model: &PackedModel,
    parts: &Parts<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), FileError> {
    if cfg!(target_endian = "big") {
        return Err(FileError::Part {
            path: path.to_path_buf(),
            part: "every tensor".to_string(),
            problem: PartProblem::NotInPlace,
        });
    }
    let scales = scales(model);
    let tensors = tensors(model, &scales, parts);
    let (mut header, place) = header(model, parts, &tensors);
    let total = 2 * (header.len() + tensors.bytes) as u64;
    let mut done = 0;
    let mut told = |bytes: usize| {
        done += bytes as u64;
        progress(done, total);
    };
    let pieces = || tensors.list.iter().flat_map(|tensor| tensor.bytes.chunks(PIECE));
    let mut hasher = blake3::Hasher::new();
    hasher.update(&header);
    for piece in pieces() {
        hasher.update(piece);
        told(piece.len());
    }
    let checksum = hasher.finalize().to_hex();
    header[place..place + CHECKSUM_LEN].copy_from_slice(checksum.as_bytes());
    replace_file(path, |temporary| {
        let io = |source| FileError::Io {
            action: "write",
            path: path.to_path_buf(),
            source,
        };
        let mut file = BufWriter::new(File::create(temporary).map_err(io)?);
        file.write_all(&header).map_err(io)?;
        for piece in pieces() {
            file.write_all(piece).map_err(io)?;
            told(piece.len());
        }
        file.flush().map_err(io)
    })
}
