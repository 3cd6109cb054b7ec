//! A model of whatever kind but GGUF: its weights as inference keeps them.

use std::path::Path;

use onebit_model::config::{LinearMode, TensorKind};
use onebit_model::runtime::{FloatStorage, Linear};
use serde_json::{Value, json};

use super::TensorLine;
use crate::Result;
use crate::model::{ModelDirectory, weight_bytes};

fn linear_line(name: String, linear: &Linear, binary: bool) -> TensorLine {
    let shape = vec![linear.rows(), linear.cols()];
    let total = (linear.rows() * linear.cols()).max(1) as f64;
    let zeros = |values: &[i8]| Some(values.iter().filter(|v| **v == 0).count() as f64 / total);
    match linear {
        Linear::Ternary {
            layout,
            rows,
            cols,
            packed,
            ..
        } => {
            let mut trits = vec![0; rows * cols];
            layout.unpack(packed, *rows, *cols, &mut trits);
            TensorLine::new(
                name,
                shape,
                if binary { "binary" } else { "ternary" },
                linear.bytes(),
                zeros(&trits),
            )
        }
        Linear::Int8 { values, .. } => TensorLine::new(name, shape, "int8", linear.bytes(), zeros(values)),
        Linear::Int4 { .. } => TensorLine::new(name, shape, "int4", linear.bytes(), None),
        Linear::Float(matrix) => TensorLine::new(name, shape, matrix.values.type_name(), linear.bytes(), None),
    }
}

/// The facts about a model, and its tensors as inference keeps them.
pub(super) fn read(path: &Path) -> Result<(Value, Vec<TensorLine>)> {
    let directory = ModelDirectory::open(path)?;
    let model = directory.load(FloatStorage::Stored)?;
    let config = model.config();
    let mut lines = Vec::new();
    for spec in config.tensors() {
        let line = match spec.kind {
            TensorKind::Embedding => TensorLine::new(
                spec.name,
                spec.shape,
                model.embedding().values.type_name(),
                model.embedding().values.bytes(),
                None,
            ),
            TensorKind::Head => TensorLine::new(
                spec.name,
                spec.shape,
                model.head().values.type_name(),
                model.head().values.bytes(),
                None,
            ),
            TensorKind::Norm => {
                let bytes = 4 * spec.len();
                TensorLine::new(spec.name, spec.shape, "f32", bytes, None)
            }
            // Below, where the packed weights are at hand.
            TensorKind::Linear(_) => continue,
        };
        lines.push(line);
    }
    let first_linear = lines.len();
    for (layer, block) in model.blocks().iter().enumerate() {
        for (shape, linear) in config.linears(layer).zip(block.linears()) {
            lines.push(linear_line(shape.name, linear, shape.mode == LinearMode::Binary));
        }
    }
    let linears = lines[first_linear..].iter();
    let ternary: Vec<&TensorLine> = linears.filter(|l| l.storage == "ternary").collect();
    let weights = |lines: &[&TensorLine]| lines.iter().map(|l| l.shape.iter().product::<usize>()).sum::<usize>() as f64;
    let ternary_weights = weights(&ternary);
    let zero_weights: f64 = ternary
        .iter()
        .filter_map(|l| Some(l.zero_fraction? * weights(&[*l])))
        .sum();
    let (bytes, parameters) = (model.bytes(), config.parameter_count());
    let file_bytes = directory
        .file()
        .map_or_else(|| weight_bytes(path), |file| file.file_bytes() as u64);
    let ternary_bytes: usize = ternary.iter().map(|line| line.bytes).sum();
    let share = |of: f64| (ternary_weights > 0.0).then(|| of / ternary_weights);
    let facts = json!({
        "kind": "model",
        "parameters": parameters,
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_hidden_layers,
        "num_attention_heads": config.num_attention_heads,
        "num_key_value_heads": config.num_key_value_heads,
        "head_dim": config.head_dim,
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.max_position_embeddings,
        "feed_forward": config.feed_forward.name(),
        "tied_head": config.tie_word_embeddings,
        "file_bytes": file_bytes,
        "packed_bytes": bytes.total(),
        "ternary_bytes": bytes.ternary,
        "int8_bytes": bytes.int8,
        "int4_bytes": bytes.int4,
        "float_bytes": bytes.float + bytes.embedding + bytes.head,
        "norm_bytes": bytes.norms,
        "sketch_bytes": bytes.sketch,
        "column_bytes": bytes.columns,
        "bytes_per_token": model.bytes_per_token(),
        "bits_per_weight": 8.0 * bytes.total() as f64 / parameters.max(1) as f64,
        "ternary_weights": ternary_weights as u64,
        "ternary_bits_per_weight": share(8.0 * ternary_bytes as f64),
        "zero_fraction": share(zero_weights),
        "compression_vs_fp16": 2.0 * parameters as f64 / bytes.total().max(1) as f64,
        "tokenizer": directory.has_tokenizer(),
    });
    if let Some(file) = directory.file() {
        let parts = file.parts();
        lines.extend(parts.map(|(name, bytes)| TensorLine::new(name.to_string(), vec![bytes], "bytes", bytes, None)));
    }
    Ok((facts, lines))
}
