//! What a file holds, as a C header for firmware that runs it out of flash.
//!
//! A microcontroller has no use for a JSON parser: where each tensor lies, how it is laid out and what γ it is multiplied by are constants of
//! the build. The header is C99, names nothing outside of itself and `stdint.h`, and needs the file beside it at an address that is a multiple of
//! its alignment.

use std::fmt::Write;

use safetensors::Dtype;

use super::{ALIGNMENT, COLUMNS, OneFile, PADDING};
use crate::config::{FeedForward, TensorSpec};
use crate::files::FileError;

/// How a tensor lies, its name in C, and what it is.
const LAYOUTS: [(&str, &str); 10] = [
    ("F32", "IEEE single precision, row by row"),
    ("F16", "IEEE half precision, row by row"),
    ("BF16", "the upper half of a single, row by row"),
    ("I8", "bytes in two's complement, row by row"),
    ("I4", "half bytes: 64 bytes hold 128 columns of a row"),
    (
        "T2",
        "trits at 2 bits: 64 bytes hold 256 columns of a row, 4 rows take turns",
    ),
    (
        "T5",
        "trits at 1.6 bits: 64 bytes hold 320 columns of a row, 4 rows take turns",
    ),
    ("COLUMNS", "trits at 2 bits, column by column: 64 bytes hold 256 rows"),
    ("BYTES", "bytes without a shape"),
    (
        "B1",
        "signs at 1 bit: 16 bytes hold 128 columns of a row, 4 rows take turns",
    ),
];

impl OneFile {
    /// The header of this file: sizes of the model, the checksum, and a table of all tensors. The same file gives the same text.
    ///
    /// # Errors
    /// As [`model`](Self::model), which is asked whether the file is one.
    pub fn c_header(&self) -> Result<String, FileError> {
        self.model()?;
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_header(&mut text);
        Ok(text)
    }

    fn write_header(&self, out: &mut String) -> std::fmt::Result {
        let config = self.config();
        out.push_str(
            "/* Where everything lies in the .1bit file of this name, made together with it.\n\
             \x20* Bytes are little-endian. Offsets count from the file's first byte, which must lie at a multiple of ONEBIT_ALIGNMENT. */\n\
             #ifndef ONEBIT_MODEL_H\n#define ONEBIT_MODEL_H\n\n#include <stdint.h>\n\n",
        );
        let mut number =
            |name: &str, value: usize, what: &str| writeln!(out, "#define ONEBIT_{name} {value}u /* {what} */");
        number("FILE_BYTES", self.file_bytes(), "bytes of the file")?;
        number("ALIGNMENT", ALIGNMENT, "every tensor begins at a multiple of this")?;
        number("VOCAB_SIZE", config.vocab_size, "token ids")?;
        number("HIDDEN_SIZE", config.hidden_size, "width of the residual stream")?;
        number(
            "INTERMEDIATE_SIZE",
            config.intermediate_size,
            "width of the feed-forward",
        )?;
        number("LAYERS", config.num_hidden_layers, "blocks")?;
        number("HEADS", config.num_attention_heads, "query heads")?;
        number("KV_HEADS", config.num_key_value_heads, "key and value heads")?;
        number("HEAD_DIM", config.head_dim, "values of a head")?;
        number("CONTEXT", config.max_position_embeddings, "most tokens of a sequence")?;
        let gate = match config.feed_forward {
            FeedForward::Relu2Gated => 0,
            FeedForward::SwiGlu => 1,
            FeedForward::Relu2 => 2,
        };
        number(
            "FEED_FORWARD",
            gate,
            "0: relu(gate)^2 * up, 1: silu(gate) * up, 2: relu(up)^2",
        )?;
        let mut flag = |name: &str, on: bool, what: &str| number(name, usize::from(on), what);
        flag(
            "TIED_HEAD",
            config.tie_word_embeddings,
            "whether the head is the embedding",
        )?;
        flag(
            "SUB_NORMS",
            config.sub_norms,
            "whether there is a norm before o_proj and down_proj",
        )?;
        flag("QK_NORM", config.qk_norm, "whether each query and key head has a norm")?;
        flag(
            "RESIDUAL_SCALING",
            config.residual_scaling,
            "whether each branch is divided by the square root of 2",
        )?;
        writeln!(out, "#define ONEBIT_RMS_NORM_EPS {:e}f", config.rms_norm_eps)?;
        writeln!(out, "#define ONEBIT_ROPE_THETA {:e}", config.rope_theta)?;
        if let Some(cap) = config.final_logit_softcapping {
            let what = "logits are this times tanh(logits / this)";
            writeln!(out, "#define ONEBIT_FINAL_LOGIT_SOFTCAPPING {cap:e}f /* {what} */")?;
        }
        let checksum = self.image.weights.metadata().get("checksum").map_or("", String::as_str);
        writeln!(
            out,
            "#define ONEBIT_CHECKSUM \"{checksum}\" /* blake3 of the file with zeros in its place */\n"
        )?;

        out.push_str("enum onebit_layout {\n");
        for (at, (name, what)) in LAYOUTS.into_iter().enumerate() {
            writeln!(out, "    ONEBIT_{name} = {at}, /* {what} */")?;
        }
        out.push_str(
            "};\n\nstruct onebit_tensor {\n    const char *name;\n    uint64_t offset; /* from the file's first byte */\n    uint64_t bytes;\n    \
             uint32_t rows; /* of the matrix, without padding; 1 for a vector */\n    uint32_t cols;\n    enum onebit_layout layout;\n    \
             float scale; /* what the sums of a ternary or binary matrix are multiplied by; otherwise 0 */\n};\n\n",
        );
        self.write_table(out)?;
        out.push_str("\n#endif\n");
        Ok(())
    }

    fn write_table(&self, out: &mut String) -> std::fmt::Result {
        let specs = self.config().tensors();
        let mut tensors: Vec<_> = self
            .image
            .weights
            .names()
            .filter(|name| !name.starts_with(PADDING))
            .collect();
        tensors.sort_by_key(|name| self.image.weights.place(name).map(|(_, range)| range.start));
        for (at, name) in tensors.iter().enumerate() {
            let constant: String = { name.chars() }
                .map(|c| {
                    if c.is_ascii_alphanumeric() {
                        c.to_ascii_uppercase()
                    } else {
                        '_'
                    }
                })
                .collect();
            writeln!(out, "#define ONEBIT_TENSOR_{constant} {at}u")?;
        }
        writeln!(out, "#define ONEBIT_TENSORS {}u\n", tensors.len())?;
        writeln!(
            out,
            "static const struct onebit_tensor onebit_tensors[ONEBIT_TENSORS] = {{"
        )?;
        for name in tensors {
            let (Some(view), Some((_, range))) = (self.image.weights.get(name), self.image.weights.place(name)) else {
                continue;
            };
            let (rows, cols, layout) = shape(&specs, name, view.dtype, view.shape);
            let scale = match layout {
                "T2" | "T5" | "B1" | "COLUMNS" => self.scale_of(weight_of(name).0).unwrap_or_default(),
                _ => 0.0,
            };
            let (start, bytes) = (range.start, view.bytes.len());
            writeln!(
                out,
                "    {{\"{name}\", {start}u, {bytes}u, {rows}u, {cols}u, ONEBIT_{layout}, {scale:e}f}},"
            )?;
        }
        out.push_str("};\n");
        Ok(())
    }
}

/// The name of the weight that a tensor belongs to, and what follows it.
fn weight_of(name: &str) -> (&str, &str) {
    match name.find(".weight.") {
        Some(at) => name.split_at(at + ".weight".len()),
        None => (name, ""),
    }
}

/// Rows and columns of a tensor, without padding, and its layout.
fn shape(specs: &[TensorSpec], name: &str, dtype: Dtype, stored: &[usize]) -> (usize, usize, &'static str) {
    let (weight, suffix) = weight_of(name);
    let spec = specs.iter().find(|spec| spec.name == weight);
    let of = |shape: &[usize]| match *shape {
        [rows, cols] => (rows, cols),
        _ => (1, shape.iter().product()),
    };
    let whole = spec.map_or_else(|| of(stored), |spec| of(&spec.shape));
    let plain = match dtype {
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::BF16 => "BF16",
        Dtype::I8 => "I8",
        _ => "BYTES",
    };
    let (shape, layout) = match suffix {
        ".t2" => (whole, "T2"),
        ".t5" => (whole, "T5"),
        ".b1" => (whole, "B1"),
        ".i8" => (whole, "I8"),
        ".i4" => (whole, "I4"),
        COLUMNS => (whole, "COLUMNS"),
        _ => (of(stored), plain),
    };
    (shape.0, shape.1, layout)
}
