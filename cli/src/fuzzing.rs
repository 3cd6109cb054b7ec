//! What the fuzz targets reach of this crate: how text becomes options, prompts and curves. No command runs.

use std::path::Path;

use crate::commands::{eval, generate};
use crate::{Result, args, plot};

/// The command that the arguments of a process ask for, as `Debug` shows it, or the error text.
///
/// # Errors
/// Help or the usage error.
pub fn arguments(texts: Vec<String>) -> Result<String, String> {
    // Texts that become values only once a command runs.
    for text in &texts {
        let _ = args::kv_type(Some(text));
        let _ = args::head_type(Some(text));
        let _ = args::parse::<onebit_trainer::schedule::LrDecay>(text, "--lr-decay");
        let _ = args::parse::<onebit_trainer::options::OptimizerKind>(text, "--optimizer");
        let _ = args::parse::<onebit_trainer::options::Precision>(text, "--precision");
        let _ = args::parse::<onebit_model::network::Initialization>(text, "--init");
        let _ = eval::parse_ids(text);
    }
    crate::parse("onebit", texts)
        .map(|command| format!("{command:?}"))
        .map_err(|exit| args::one_line(&exit.output))
}

/// The picture and the curve for a terminal of a `metrics.jsonl`.
///
/// # Errors
/// What is wrong with the file.
pub fn metrics(text: &str) -> Result<(String, String), String> {
    let run = plot::Run::parse(text, "fuzz".into())?;
    let curve = plot::curve(&run);
    Ok((plot::draw(&[run], plot::Theme::Auto).map_err(|e| e.to_string())?, curve))
}

/// The prompts of a file, one a line or one JSON object a line.
///
/// # Errors
/// What is wrong with the file.
pub fn prompts(text: &str, json: bool) -> Result<Vec<String>, String> {
    let path = Path::new(if json { "prompts.jsonl" } else { "prompts.txt" });
    generate::several(text, path).map_err(|e| e.to_string())
}
