//! What a file will hold, known before the first value is read.

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{int4_gemv, t2, ternary_columns};
use safetensors::Dtype;
use serde_json::{Map, Value};

use super::write::OneFileOptions;
use super::{
    ALIGNMENT, CHECKSUM_LEN, COLUMNS, FORMAT, PADDING, Parts, SCALES, SKETCH, TOKENIZER_JSON, TOKENIZER_PACKED, VERSION,
};
use crate::config::{LinearMode, LinearShape, ModelConfig, TensorKind, TensorSpec};
use crate::files::stream::Plan;
use crate::files::{FileError, ModelSource, StoredAs};
use crate::runtime::{FloatStorage, HeadSketch, RowFigures};

/// A tensor of the model, in the order of the file.
pub(super) enum Item {
    Norm(TensorSpec),
    Linear(LinearShape),
    /// Embedding or head.
    Table(TensorSpec),
}

/// The model's tensors in the order of the file: a block's norms and then its linears, so that a pass over the model goes through the file
/// from end to end.
pub(super) fn items(config: &ModelConfig) -> Vec<Item> {
    let mut norms = Vec::new();
    let mut tables = Vec::new();
    for spec in config.tensors() {
        match spec.kind {
            TensorKind::Norm => norms.push(spec),
            TensorKind::Embedding | TensorKind::Head => tables.push(spec),
            TensorKind::Linear(_) => {}
        }
    }
    let mut all = Vec::new();
    let mut norms = norms.into_iter().peekable();
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("model.layers.{layer}.");
        while let Some(spec) = norms.next_if(|spec| spec.name.starts_with(&prefix)) {
            all.push(Item::Norm(spec));
        }
        all.extend(config.linears(layer).map(Item::Linear));
    }
    all.extend(norms.map(Item::Norm));
    all.extend(tables.into_iter().map(Item::Table));
    all
}

/// Puts a tensor behind the others, and fills up to the next multiple of [`ALIGNMENT`].
fn put(plan: &mut Plan, padded: &mut usize, name: String, dtype: Dtype, shape: Vec<usize>) {
    plan.push(name, dtype, shape);
    let missing = plan.bytes().next_multiple_of(ALIGNMENT as u64) - plan.bytes();
    if missing > 0 {
        *padded += 1;
        plan.push(format!("{PADDING}{padded}"), Dtype::U8, vec![missing as usize]);
    }
}

/// In which form a float tensor will lie, if the source holds it as `stored`.
fn form(storage: FloatStorage, stored: StoredAs) -> StoredAs {
    match storage {
        FloatStorage::Stored => stored,
        FloatStorage::F32 => StoredAs::F32,
        FloatStorage::F16 => StoredAs::F16,
        FloatStorage::Bf16 => StoredAs::Bf16,
        FloatStorage::Int8 => StoredAs::Int8,
        FloatStorage::Int4 => StoredAs::Int4,
    }
}

/// Names, types and shapes of everything, in the order of the file, and whether a sketch is among them.
pub(super) fn plan(
    source: &dyn ModelSource,
    options: &OneFileOptions,
    parts: &Parts<'_>,
    items: &[Item],
) -> Result<(Plan, bool), FileError> {
    let config = source.config();
    let (mut plan, mut padded) = (Plan::default(), 0);
    let mut put = |name: String, dtype, shape| put(&mut plan, &mut padded, name, dtype, shape);
    put(SCALES.to_string(), Dtype::F32, vec![config.scaled().len()]);
    // The small and the seldom read first.
    for (name, bytes) in [
        (TOKENIZER_PACKED, parts.packed_tokenizer),
        (TOKENIZER_JSON, parts.tokenizer),
    ] {
        if let Some(bytes) = bytes {
            put(name.to_string(), Dtype::U8, vec![bytes.len()]);
        }
    }
    let mut head = None;
    for item in items {
        match item {
            Item::Norm(spec) => put(spec.name.clone(), Dtype::F32, spec.shape.clone()),
            Item::Linear(linear) => {
                let LinearShape { name, rows, cols, .. } = linear;
                match linear.mode {
                    mode if mode.is_ternary() => {
                        put_trits(&mut put, name, *rows, *cols, options.layout_of(mode, *cols));
                        if options.with_columns(config, linear) {
                            let lines = size_of::<ternary_columns::Line>() * ternary_columns::column_lines(*rows);
                            put(format!("{name}{COLUMNS}"), Dtype::U8, vec![*cols, lines]);
                        }
                    }
                    LinearMode::Int8 => put_form(&mut put, name, *rows, *cols, StoredAs::Int8),
                    LinearMode::Int4 => put_form(&mut put, name, *rows, *cols, StoredAs::Int4),
                    _ => {
                        let form = form(options.storage.of_linears(), source.stored(name)?);
                        put_form(&mut put, name, *rows, *cols, form);
                    }
                }
            }
            Item::Table(spec) => {
                let (rows, cols) = (config.vocab_size, config.hidden_size);
                // The last one is the head, whether tied or not.
                head = match spec.mode(config) {
                    mode if mode.is_ternary() => {
                        put_trits(&mut put, &spec.name, rows, cols, options.layout_of(mode, cols));
                        None
                    }
                    mode => {
                        let form = form(options.storage.of_table(mode), source.stored(&spec.name)?);
                        put_form(&mut put, &spec.name, rows, cols, form);
                        Some(form_bytes(rows, cols, form))
                    }
                };
            }
        }
    }
    let (rows, cols) = (config.vocab_size, config.hidden_size);
    let large = options.sketch_above.is_some_and(|bytes| head > Some(bytes));
    let sketched = large && HeadSketch::is_possible(rows, cols);
    if sketched {
        for (plane, figures) in SKETCH {
            let groups = vec![rows.div_ceil(t2::GROUP_ROWS), t2::group_bytes(cols)];
            put(plane.to_string(), Dtype::U8, groups);
            put(figures.to_string(), Dtype::F32, vec![rows, RowFigures::LEN]);
        }
    }
    Ok((plan, sketched))
}

fn put_trits(put: &mut impl FnMut(String, Dtype, Vec<usize>), name: &str, rows: usize, cols: usize, layout: Layout) {
    let group = layout.group_bytes(cols);
    let groups = layout.bytes(rows, cols) / group.max(1);
    put(format!("{name}.{}", layout.name()), Dtype::U8, vec![groups, group]);
}

fn put_form(put: &mut impl FnMut(String, Dtype, Vec<usize>), name: &str, rows: usize, cols: usize, form: StoredAs) {
    match form {
        StoredAs::F16 => put(name.to_string(), Dtype::F16, vec![rows, cols]),
        StoredAs::Bf16 => put(name.to_string(), Dtype::BF16, vec![rows, cols]),
        StoredAs::Int8 => {
            put(format!("{name}.i8"), Dtype::I8, vec![rows, cols]);
            put(format!("{name}.steps"), Dtype::F32, vec![rows]);
        }
        StoredAs::Int4 => {
            put(format!("{name}.i4"), Dtype::U8, vec![rows, int4_gemv::row_bytes(cols)]);
            put(
                format!("{name}.steps"),
                Dtype::F16,
                vec![rows, int4_gemv::row_steps(cols)],
            );
        }
        // Trits are no form of a table; the runtime refuses them when they come.
        StoredAs::F32 | StoredAs::Trits => put(name.to_string(), Dtype::F32, vec![rows, cols]),
    }
}

/// Bytes of a matrix in such a form.
fn form_bytes(rows: usize, cols: usize, form: StoredAs) -> usize {
    match form {
        StoredAs::F32 | StoredAs::Trits => 4 * rows * cols,
        StoredAs::F16 | StoredAs::Bf16 => 2 * rows * cols,
        StoredAs::Int8 => rows * (cols + 4),
        StoredAs::Int4 => rows * (int4_gemv::row_bytes(cols) + 2 * int4_gemv::row_steps(cols)),
    }
}

/// The entries of `__metadata__`, the checksum all zeros.
pub(super) fn metadata(config: &ModelConfig, parts: &Parts<'_>) -> Map<String, Value> {
    let mut metadata = Map::new();
    let mut entry = |key: &str, text: &str| metadata.insert(key.to_string(), Value::from(text));
    entry("format", FORMAT);
    entry("version", VERSION);
    // Before any text that is not ours, so that the first run of zeros is the checksum's place.
    entry("checksum", &"0".repeat(CHECKSUM_LEN));
    entry("config", &config.to_json());
    if let Some(generation) = parts.generation {
        entry("generation_config", &generation.to_json());
    }
    if let Some(template) = parts.chat_template {
        entry("chat_template", template.text());
        entry("bos_token", template.bos_token());
        entry("eos_token", template.eos_token());
    }
    metadata
}
