//! A model as a GGUF file.

use std::path::Path;

use onebit_model::files::gguf::{GGUF_EXTENSION, GgufOptions, Graph, LINEAR_TYPES, TensorType};
use serde_json::json;

use super::Export;
use crate::{CliError, Result, args, output};

/// The types of embedding and head.
const HEAD_TYPES: [TensorType; 6] = [
    TensorType::F32,
    TensorType::F16,
    TensorType::Bf16,
    TensorType::Q8_0,
    TensorType::Q6K,
    TensorType::Q4_0,
];

impl Export {
    pub(super) fn gguf(&self, path: Option<&Path>, output: &Path) -> Result<()> {
        if output.extension().is_none_or(|e| e != GGUF_EXTENSION) {
            return Err(CliError::Usage(format!(
                "--output: expected a name that ends in .gguf, found {}",
                output.display()
            )));
        }
        let graph = |name: &str| {
            Graph::ALL
                .into_iter()
                .find(|graph| graph.name() == name)
                .ok_or_else(|| {
                    let known = Graph::ALL.map(Graph::name).join(", ");
                    CliError::Usage(format!("--graph: expected one of {known}, found {name:?}"))
                })
        };
        let options = GgufOptions {
            graph: self.graph.as_deref().map(graph).transpose()?,
            linears: one_of("--type", self.layout.as_deref(), &LINEAR_TYPES)?,
            head: one_of("--head", self.head.as_deref(), &HEAD_TYPES)?,
            name: self.name.as_deref(),
            ..GgufOptions::default()
        };
        args::new_file(output, "--output", self.force)?;
        let subject = self.subject(path)?;
        let graph = subject.write_gguf(output, &options)?;
        let bytes = std::fs::metadata(output).map_or(0, |metadata| metadata.len());
        if self.json {
            return output::json(&json!({
                "output": output,
                "bytes": bytes,
                "graph": graph.name(),
                "tokenizer": subject.tokenizer.is_some(),
            }));
        }
        output::line(&format!("{}: {}", output.display(), output::bytes(bytes)))
    }
}

/// The type of this name, of those that the option takes.
fn one_of(option: &str, name: Option<&str>, types: &[TensorType]) -> Result<Option<TensorType>> {
    let Some(name) = name else { return Ok(None) };
    match TensorType::by_name(name).filter(|kind| types.contains(kind)) {
        Some(kind) => Ok(Some(kind)),
        None => {
            let names: Vec<String> = types.iter().map(|kind| kind.name().to_lowercase()).collect();
            Err(CliError::Usage(format!(
                "{option}: expected one of {}, found {name:?}",
                names.join(", ")
            )))
        }
    }
}
