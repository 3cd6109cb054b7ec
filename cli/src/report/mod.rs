//! A run as one HTML page: what its directory holds, put into the template `page.html`.
//!
//! What comes from files is escaped by the template's engine; only the pictures, whose texts are escaped as they are drawn, go in as they are. The page has no script, and
//! its policy allows none.

mod facts;
mod samples;

use std::path::Path;

use minijinja::{AutoEscape, Environment, UndefinedBehavior};
use serde::Serialize;
use serde_json::Value;

use crate::commands::newest_checkpoint;
use crate::plot::{self, Run, Theme};
use crate::watch::record::RunRecord;
use crate::watch::sampler::Said;
use crate::{CliError, Result, device};

pub(crate) use samples::{Samples, sample};

const TEMPLATE: &str = include_str!("page.html");

/// A name and what it is.
type Fact = (String, String);

/// What the template shows.
#[derive(Debug, Serialize)]
struct Page {
    name: String,
    version: &'static str,
    made: String,
    /// The figures on top: name, number, what it is of.
    figures: Vec<[String; 3]>,
    curves: String,
    matrices_picture: Option<String>,
    matrices: Vec<facts::Matrix>,
    /// What it said while it was trained.
    said: Vec<Told>,
    samples: Vec<samples::Sample>,
    /// What they are of.
    sampled: String,
    /// Why there are none.
    no_samples: Option<String>,
    sessions: Vec<Vec<Fact>>,
    cost: Vec<Fact>,
    config: Vec<Fact>,
    options: Vec<Fact>,
}

/// What the model of a step said.
#[derive(Debug, Serialize)]
struct Told {
    step: u64,
    form: &'static str,
    text: String,
}

/// Texts of a run on its page at most, about.
const MOST_TOLD: usize = 12;

/// What the model said while it was trained: of many texts some, evenly, and the last.
fn told(directory: &Path) -> Result<Vec<Told>> {
    let all = Said::read(directory)?;
    let told = plot::thinned(all.len(), MOST_TOLD).map(|i| Told {
        step: all[i].step,
        form: all[i].form(),
        text: all[i].text.clone(),
    });
    Ok(told.collect())
}

/// The page of the run in `directory`; `threads` are those that draw samples.
pub(crate) fn page(directory: &Path, wanted: &Samples, threads: Option<usize>) -> Result<String> {
    let curves = Run::read(directory)?;
    // They have a picture of their own.
    let without_layers = Run {
        layers: Vec::new(),
        ..curves.clone()
    };
    let record = RunRecord::read(directory)?;
    let config = match config(directory)? {
        Some(config) => config,
        None => record.as_ref().map_or(Value::Null, |record| record.config.clone()),
    };
    let ((samples, sampled), no_samples) = match drawn(directory, wanted, threads) {
        Ok(samples) => (samples, None),
        Err(CliError::Interrupted(why)) => return Err(CliError::Interrupted(why)),
        // The rest of the page is worth having.
        Err(why) => (Default::default(), Some(why.to_string())),
    };
    let page = Page {
        name: curves.name.clone(),
        version: crate::version::VERSION,
        made: facts::date(std::time::SystemTime::now()),
        figures: facts::figures(&curves, record.as_ref()),
        curves: plot::draw(&[without_layers], Theme::Auto)?,
        matrices_picture: plot::draw_layers(&curves, Theme::Auto)?,
        matrices: facts::matrices(&curves),
        said: told(directory)?,
        samples,
        sampled,
        no_samples,
        sessions: record.as_ref().map_or_else(Vec::new, facts::sessions),
        cost: record.as_ref().map_or_else(Vec::new, facts::cost),
        config: facts::rows(&config),
        options: record
            .as_ref()
            .map_or_else(Vec::new, |record| facts::rows(&record.options)),
    };
    render(&page)
}

/// What the model of a run tells, or that of its newest checkpoint, and which it is.
fn drawn(directory: &Path, wanted: &Samples, threads: Option<usize>) -> Result<(Vec<samples::Sample>, String)> {
    if wanted.count == 0 {
        return Ok(Default::default());
    }
    let newest = || newest_checkpoint(directory).map(|(step, path)| (path, format!("the checkpoint of step {step}")));
    let whole = directory.join("model.safetensors").is_file();
    let found = if whole {
        Some((directory.to_path_buf(), "the model".to_string()))
    } else {
        newest()
    };
    let Some((model, name)) = found else {
        return Err(CliError::Failed(
            "there is no model yet: the run has neither ended nor saved a checkpoint".into(),
        ));
    };
    Ok((sample(&model, wanted, false, device::place_on_cpu(threads)?)?, name))
}

/// The configuration of a finished run.
fn config(directory: &Path) -> Result<Option<Value>> {
    let path = directory.join(onebit_model::files::CONFIG_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(CliError::io(&path, "read", &error, "check the permissions there")),
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|e| CliError::Failed(format!("{}: {e}; give the directory of a run", path.display())))
}

fn render(page: &Page) -> Result<String> {
    let failed = |e: minijinja::Error| CliError::Failed(format!("cannot make the page: {e}; report this"));
    // Empty: the template has what it needs, and no filter of others.
    let mut environment = Environment::empty();
    environment.set_auto_escape_callback(|_| AutoEscape::Html);
    environment.add_filter("safe", minijinja::Value::from_safe_string);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.add_template("page.html", TEMPLATE).map_err(failed)?;
    let template = environment.get_template("page.html").map_err(failed)?;
    template.render(page).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NONE: Samples = Samples {
        count: 0,
        max_tokens: 1,
        prompt: String::new(),
        seed: 0,
    };

    /// Every text of every file tries to be markup.
    #[test]
    fn what_comes_from_files_is_text() {
        let evil = "</td><script>alert(1)</script><img src=x onerror=alert(1)>\" onload='x' &";
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("<script>run<b>");
        fs::create_dir(&dir).unwrap();
        let json = |value: Value| value.to_string();
        let line = |step: u64| {
            json(serde_json::json!({"step": step, "loss": 3.0, "lr": 0.1, "phase": evil,
                "layers": [{"name": evil, "zero": 0.5, "flip": 0.25, "scale": 1.0, "clip": 0.0}]}))
        };
        fs::write(dir.join("metrics.jsonl"), format!("{}\n{}\n", line(1), line(200))).unwrap();
        fs::write(
            dir.join("config.json"),
            json(serde_json::json!({evil: evil, "a": {"b": [evil]}})),
        )
        .unwrap();
        let session = serde_json::json!({"version": evil, "device": evil, "isa": evil, "threads": 2, "ranks": 1,
            "precision": evil, "began": 0, "from_step": 0, "to_step": 200, "seconds": 50.0, "share_of_peak": 0.5});
        let record = serde_json::json!({"config": {}, "options": {evil: evil}, "parameters": 1000, "total_steps": 400,
            "tokens_per_step": 10, "sessions": [session]});
        fs::write(dir.join("run.json"), json(record)).unwrap();
        let page = page(&dir, &NONE, None).unwrap();
        assert!(page.starts_with("<!doctype html>"));
        for bad in ["<script", "<img", "onload='", "<b>"] {
            assert!(!page.contains(bad), "{bad}");
        }
        // Name, configuration (twice as a value, once as a name), option, session, matrix, phase.
        assert!(page.matches("&lt;script").count() >= 10, "{page}");
        // Nothing outside the file.
        for outside in ["src=", "href=", "url(", "@import", "http://", "https://"] {
            let found = page.replace("http://www.w3.org/2000/svg", "").contains(outside);
            assert!(!found || outside == "src=", "{outside}");
        }
        for part in ["200 of 400", "40 tok", "50 s", "50%", "2,000"] {
            assert!(page.contains(part), "{part}");
        }
    }

    #[test]
    fn a_run_without_a_record_or_a_model_has_a_page() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metrics.jsonl"), "{\"step\":1,\"loss\":3.0}\n").unwrap();
        let text = page(dir.path(), &Samples { count: 1, ..NONE }, None).unwrap();
        assert!(text.contains("no model yet") && text.contains("20.09"), "{text}");
        assert!(page(&dir.path().join("none"), &NONE, None).is_err());
    }
}
