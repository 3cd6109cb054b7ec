//! What training leaves: checkpoints and token files.

use std::path::Path;

use onebit_model::files::Weights;
use onebit_trainer::checkpoint::read_state;
use onebit_trainer::data::TokenFile;
use serde_json::{Value, json};

use super::{TensorLine, weight_lines};
use crate::Result;

/// What a checkpoint holds, and its weights.
pub(super) fn checkpoint(path: &Path) -> Result<(Value, Vec<TensorLine>)> {
    let weights = Weights::open_dir(path)?;
    let state = read_state(path)?;
    let lines = weight_lines(&weights);
    let bytes: usize = lines.iter().map(|l| l.bytes).sum();
    let facts = json!({
        "kind": "checkpoint",
        "step": state.step,
        "total_steps": state.total_steps,
        "tensors": weights.len(),
        "weight_bytes": bytes,
        "optimizer_bytes": std::fs::metadata(path.join("optimizer.safetensors")).map(|m| m.len()).ok(),
        "data": state.data,
        "options": state.options,
    });
    Ok((facts, lines))
}

/// What a token file holds.
pub(super) fn tokens(path: &Path) -> Result<Value> {
    let file = TokenFile::open(path)?;
    file.verify()?;
    let hash = file
        .tokenizer()
        .map(|hash| hash.iter().map(|b| format!("{b:02x}")).collect::<String>());
    Ok(json!({
        "kind": "tokens",
        "tokens": file.len(),
        "documents": file.documents(),
        "id_bytes": file.id_width(),
        "vocab_size": file.vocab_size(),
        "tokenizer": hash,
        "source_bytes": file.source_bytes(),
        "source_words": file.source_words(),
        "file_bytes": std::fs::metadata(path).map(|m| m.len()).ok(),
    }))
}
