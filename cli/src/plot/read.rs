//! `metrics.jsonl` as curves.

use std::path::Path;

use serde_json::Value;

use crate::{CliError, Result};

/// Largest number that is drawn, far below where the sums of an axis are not finite any more. None of the numbers is negative.
const MOST: f64 = 1e30;

/// The curves of one run; the first number of each point is the step.
#[derive(Clone, Debug, Default)]
pub(crate) struct Run {
    /// The name in the legend.
    pub name: String,
    /// Training loss, nats a token.
    pub loss: Vec<(f64, f64)>,
    /// Validation loss.
    pub validation: Vec<(f64, f64)>,
    /// Learning rate.
    pub lr: Vec<(f64, f64)>,
    /// Phases in order, each with its first step and its last.
    pub phases: Vec<(String, f64, f64)>,
    /// Ternary matrices, where they were measured.
    pub layers: Vec<Layer>,
}

/// A ternary matrix.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layer {
    /// Its short name, such as `3.mlp.up_proj`.
    pub name: String,
    /// Fraction of zeros.
    pub zero: Vec<(f64, f64)>,
    /// Fraction that a step changed.
    pub flip: Vec<(f64, f64)>,
    /// Scale.
    pub scale: Vec<(f64, f64)>,
    /// Fraction of the weights beyond the clamp.
    pub clip: Vec<(f64, f64)>,
}

impl Layer {
    /// The block that it is in.
    pub(super) fn block(&self) -> usize {
        let first = self.name.split('.').next().and_then(|number| number.parse().ok());
        first.unwrap_or(0)
    }
}

impl Run {
    /// Reads a metrics file, or the one of a run's directory.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = if path.is_dir() {
            path.join("metrics.jsonl")
        } else {
            path.to_path_buf()
        };
        let failed =
            |e: std::io::Error| CliError::io(&file, "read", &e, "give a metrics.jsonl or the directory of a run");
        let text = std::fs::read_to_string(&file).map_err(failed)?;
        Self::parse(&text, name_of(&file)).map_err(|why| CliError::Failed(format!("{}: {why}", file.display())))
    }

    pub(crate) fn parse(text: &str, name: String) -> Result<Self, String> {
        let mut run = Self {
            name,
            ..Self::default()
        };
        let lines = text.split_inclusive('\n').enumerate();
        for (i, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
            let value: Value = match serde_json::from_str(line) {
                Ok(value) => value,
                // The run was ended in the middle of this line.
                Err(_) if !line.ends_with('\n') => break,
                Err(error) => {
                    return Err(format!(
                        "line {}: {error}; give a metrics.jsonl as `onebit train` writes it",
                        i + 1
                    ));
                }
            };
            let number_of = |value: &Value, key: &str| match value.get(key).and_then(Value::as_f64) {
                Some(x) if !(0.0..=MOST).contains(&x) => Err(format!(
                    "line {}: `{key}` is {x:e}, which no run writes; give a metrics.jsonl as `onebit train` writes it",
                    i + 1
                )),
                found => Ok(found),
            };
            let number = |key: &str| number_of(&value, key);
            let step =
                number("step")?.ok_or_else(|| format!("line {} has no number `step`; give a metrics.jsonl", i + 1))?;
            run.loss.extend(number("loss")?.map(|y| (step, y)));
            run.validation.extend(number("val_loss")?.map(|y| (step, y)));
            run.lr.extend(number("lr")?.map(|y| (step, y)));
            for matrix in value.get("layers").and_then(Value::as_array).into_iter().flatten() {
                let name = matrix.get("name").and_then(Value::as_str).unwrap_or_default();
                let at = match run.layers.iter().position(|layer| layer.name == name) {
                    Some(at) => at,
                    None => {
                        run.layers.push(Layer {
                            name: name.to_string(),
                            ..Layer::default()
                        });
                        run.layers.len() - 1
                    }
                };
                let layer = &mut run.layers[at];
                layer.zero.extend(number_of(matrix, "zero")?.map(|y| (step, y)));
                layer.flip.extend(number_of(matrix, "flip")?.map(|y| (step, y)));
                layer.scale.extend(number_of(matrix, "scale")?.map(|y| (step, y)));
                layer.clip.extend(number_of(matrix, "clip")?.map(|y| (step, y)));
            }
            if let Some(phase) = value.get("phase").and_then(Value::as_str) {
                match run.phases.last_mut() {
                    Some((last, _, end)) if last == phase => *end = step,
                    _ => run.phases.push((phase.to_string(), step, step)),
                }
            }
        }
        if run.loss.is_empty() && run.validation.is_empty() {
            return Err("no line has a `loss` or a `val_loss`; train at least one step first".to_string());
        }
        Ok(run)
    }
}

/// The directory of a `metrics.jsonl`, otherwise the file's own name.
fn name_of(file: &Path) -> String {
    let part = |path: Option<&std::ffi::OsStr>| path.map(|name| name.to_string_lossy().into_owned());
    let own = part(file.file_stem()).unwrap_or_default();
    match own.as_str() {
        "metrics" => part(file.parent().and_then(Path::file_name)).unwrap_or(own),
        _ => own,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &str = "{\"step\":1,\"phase\":\"warmup\",\"loss\":5.0,\"lr\":0.1}\n\
        {\"step\":2,\"phase\":\"warmup\",\"loss\":4.0,\"lr\":0.2}\n\
        {\"step\":2,\"val_loss\":4.5,\"val_ppl\":90.0}\n\
        {\"step\":3,\"phase\":\"hard\",\"loss\":3.0,\"lr\":0.1}\n";

    #[test]
    fn lines_become_curves_and_phases() {
        let run = Run::parse(LINES, "a".into()).unwrap();
        assert_eq!(run.loss, [(1.0, 5.0), (2.0, 4.0), (3.0, 3.0)]);
        assert_eq!(run.validation, [(2.0, 4.5)]);
        assert_eq!(run.phases, [("warmup".into(), 1.0, 2.0), ("hard".into(), 3.0, 3.0)]);
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out_and_a_broken_one_is_named() {
        let cut = Run::parse(&format!("{LINES}{{\"step\":4,\"lo"), "a".into()).unwrap();
        assert_eq!(cut.loss.len(), 3);
        assert!(
            Run::parse(&format!("{{\n{LINES}"), "a".into())
                .unwrap_err()
                .starts_with("line 1: ")
        );
        assert!(
            Run::parse("{\"loss\":1}\n", "a".into())
                .unwrap_err()
                .contains("no number `step`")
        );
        assert!(Run::parse("", "a".into()).is_err());
        for key in ["step", "loss", "val_loss", "lr"] {
            for number in ["-1", "1e31", "1.7e308"] {
                let line = format!("{{\"step\":1,\"loss\":1}}\n{{\"step\":2,\"loss\":1,\"{key}\":{number}}}\n");
                let error = Run::parse(&line, "a".into()).unwrap_err();
                assert!(error.starts_with(&format!("line 2: `{key}` is ")), "{error}");
            }
        }
    }

    #[test]
    fn a_run_is_called_by_its_directory() {
        assert_eq!(name_of(Path::new("runs/muon/metrics.jsonl")), "muon");
        assert_eq!(name_of(Path::new("runs/muon.jsonl")), "muon");
    }
}
