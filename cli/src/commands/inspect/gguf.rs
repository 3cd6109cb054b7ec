//! A GGUF file: its keys and tensors as they lie there, and whether it is a model that runs here.

use std::path::Path;

use onebit_model::files::gguf::{Gguf, GgufModel, Value as Found};
use serde_json::{Map, Value, json};

use super::TensorLine;
use crate::Result;

/// The facts about a file, and its tensors.
pub(super) fn read(path: &Path) -> Result<(Value, Vec<TensorLine>)> {
    let file = Gguf::open(path)?;
    let lines: Vec<TensorLine> = file
        .tensors()
        .iter()
        .map(|info| {
            let shape = match info.dims {
                1 => vec![info.cols],
                _ => vec![info.rows, info.cols],
            };
            TensorLine::new(info.name.clone(), shape, info.kind.name(), info.bytes(), None)
        })
        .collect();
    let mut facts = Map::new();
    facts.insert("kind".into(), json!("gguf"));
    facts.insert(
        "file_bytes".into(),
        json!(std::fs::metadata(path).map(|m| m.len()).ok()),
    );
    facts.insert("tensors".into(), json!(lines.len()));
    let weights: usize = file.tensors().iter().map(|info| info.len()).sum();
    let bytes: usize = lines.iter().map(|line| line.bytes).sum();
    facts.insert("weights".into(), json!(weights));
    facts.insert("weight_bytes".into(), json!(bytes));
    facts.insert(
        "bits_per_weight".into(),
        json!(8.0 * bytes as f64 / weights.max(1) as f64),
    );
    facts.insert(
        "compression_vs_fp16".into(),
        json!(2.0 * weights as f64 / bytes.max(1) as f64),
    );
    let runs = match GgufModel::open(path) {
        Ok(model) => format!("yes, as {}", model.graph().name()),
        Err(e) => format!("no: {e}"),
    };
    facts.insert("runs_here".into(), json!(runs));
    for (key, value) in file.metadata() {
        facts.insert(key.clone(), shown(value));
    }
    Ok((Value::Object(facts), lines))
}

/// A value of the metadata; of an array, what it is.
fn shown(value: &Found) -> Value {
    match value {
        Found::Unsigned(n) => json!(n),
        Found::Signed(n) => json!(n),
        Found::F32(x) => json!(x),
        Found::F64(x) => json!(x),
        Found::Bool(x) => json!(x),
        Found::Text(x) if x.chars().count() > 80 => json!(x.chars().take(79).chain(['…']).collect::<String>()),
        Found::Text(x) => json!(x),
        Found::Array(_) => json!(value.type_name()),
    }
}
