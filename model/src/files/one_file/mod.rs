//! `*.1bit`: a whole model in one file, run from the mapped file as it lies.
//!
//! The container is safetensors, so any reader of that format lists and opens it. Tensors lie as the runtime keeps them, in the order
//! in which a forward pass reads them, each at a multiple of 64 bytes of the file; opening converts nothing, copies nothing and reads no
//! weight.
//!
//! | tensor | type and shape | what |
//! |---|---|---|
//! | `onebit.scales` | F32 `[n]` | γ of each ternary or binary linear, in the order of the forward pass |
//! | `….layernorm.weight`, … | F32 `[n]` | norms |
//! | `….X_proj.weight.t2`, `….weight.t5` | U8 `[⌈rows/4⌉, bytes of a group]` | a ternary or binary linear in that layout |
//! | `….down_proj.weight.columns` | U8 `[cols, 64 · ⌈rows/256⌉]` | the same weights once more, [by columns](onebit_kernels_cpu::ternary_columns), of a model whose activation is ReLU²; each or none |
//! | `….X_proj.weight.i8`, `….weight.steps` | I8 `[rows, cols]`, F32 `[rows]` | a linear in mode `int8` or `int4` |
//! | `….X_proj.weight` | F16, BF16 or F32 `[rows, cols]` | a linear in mode `f16` |
//! | `model.embed_tokens.weight`, `lm_head.weight` | F16, BF16 or F32 `[vocab, hidden]` | embedding, and head where it is not tied; or as int8 under `….weight.i8` and `….weight.steps`; or as int4, below |
//! | `….weight.i4`, `….weight.steps` | U8 `[vocab, bytes of a row]`, F16 `[vocab, steps of a row]` | embedding or head as [int4](onebit_kernels_cpu::int4_gemv): 64 bytes and four steps for each 128 columns |
//! | `onebit.sketch.planeN`, `onebit.sketch.figuresN` | U8 `[⌈vocab/4⌉, bytes of a group]`, F32 `[vocab, 3]` | the [sketch of the head](crate::runtime::HeadSketch), its planes 1 and 2; all four or none |
//! | `onebit.tokenizer.json`, `onebit.tokenizer.packed` | U8 `[n]` | the tokenizer; and [the same](crate::tokenizer::Tokenizer::pack) ready to be mapped |
//! | `onebit.padding.N` | U8 `[n]`, zeros | up to the next multiple of 64, because the format allows no holes |
//!
//! The small texts are entries of `__metadata__`, where every tool for the format shows them: `format` (`1bit`), `version`, `config` and
//! `generation_config` (the JSON of a model directory), `chat_template`, `bos_token`, `eos_token`, and `checksum`. The tokenizer is a
//! tensor because it is large and, packed, binary: it is mapped and looked up in, never parsed whole.
//!
//! **What is checked when.** Opening checks the header, every name, type, shape and position, and the scales: all that the safety and
//! the meaning of the model rest on, and a few kilobytes. It does not read the weights, for that is what it is for: the kernels are safe
//! whatever the codes are (`kernels-cpu/src/t2`, `t5`), so a damaged weight is a wrong answer and no fault. Of a sketch the figures are read, twelve bytes a
//! row and plane, and of an int4 head the steps. Of columns the length is checked, and any bytes are columns: code 3, which no weight has, counts as 2 on every path, and columns that are not those
//! of the rows are a wrong answer, for single tokens alone. [`OneFile::verify`] reads all of it: the checksum, which covers header and data, every code, every float; and
//! it makes the sketch and the columns once more.
//!
//! A name or an entry that this version does not know is refused, so that a file of a later version is never run without a part that it
//! needs. A further optional part is a line in `PARTS` and in [`Parts`].

mod c_header;
mod parts;
mod plan;
mod read;
mod source;
mod verify;
mod write;

#[cfg(test)]
mod tests;

pub use read::OneFile;
pub use write::{OneFileOptions, Parts, TernaryLayout, save_one_file};

/// The extension of such files.
pub const ONE_FILE_EXTENSION: &str = "1bit";

/// Every tensor begins at a multiple of this many bytes of the file: a cache line, and the widest register.
const ALIGNMENT: usize = 64;
/// `format` in `__metadata__`.
const FORMAT: &str = "1bit";
/// `version` in `__metadata__`.
const VERSION: &str = "1";
/// The entries that `__metadata__` may have.
const ENTRIES: [&str; 8] = [
    "format",
    "version",
    "config",
    "generation_config",
    "chat_template",
    "bos_token",
    "eos_token",
    "checksum",
];
/// γ of every ternary and binary linear.
const SCALES: &str = "onebit.scales";
/// Follows the name of a linear whose weights lie there by columns.
const COLUMNS: &str = ".columns";
const TOKENIZER_JSON: &str = "onebit.tokenizer.json";
const TOKENIZER_PACKED: &str = "onebit.tokenizer.packed";
/// The planes of the head's sketch, and their figures.
const SKETCH: [(&str, &str); 2] = [
    ("onebit.sketch.plane1", "onebit.sketch.figures1"),
    ("onebit.sketch.plane2", "onebit.sketch.figures2"),
];
/// The tensors that a file may have beside those of its model.
const PARTS: [&str; 2] = [TOKENIZER_JSON, TOKENIZER_PACKED];
/// The names of tensors that only fill up.
const PADDING: &str = "onebit.padding.";
/// Characters of a checksum: blake3 in hexadecimal. The checksum is made with zeros in its own place.
const CHECKSUM_LEN: usize = 64;
