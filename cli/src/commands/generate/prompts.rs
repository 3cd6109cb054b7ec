//! What is to be continued: a text, a file, or a file of prompts.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;

use crate::{CliError, Result};

/// The prompts, in order.
pub(super) fn texts(prompt: Option<String>, file: Option<&Path>, prompts: Option<&Path>) -> Result<Vec<String>> {
    if let Some(path) = prompts {
        return several(&read(path, "--prompts")?, path);
    }
    let Some(path) = file else {
        return Ok(vec![prompt.unwrap_or_default()]);
    };
    let mut text = read(path, "--prompt-file")?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(vec![text])
}

/// The prompts in the text of the file of `--prompts`, whose name says how they stand there.
pub(crate) fn several(text: &str, path: &Path) -> Result<Vec<String>> {
    let is_json = path.extension().is_some_and(|extension| extension == "jsonl");
    let found = if is_json { objects(text, path)? } else { lines(text) };
    match found.is_empty() {
        true => Err(CliError::Failed(format!(
            "--prompts: {} holds no prompt; give a file with one a line",
            path.display()
        ))),
        false => Ok(found),
    }
}

/// The text of a file, or of the standard input for `-`.
fn read(path: &Path, option: &str) -> Result<String> {
    let mut text = String::new();
    let read = match path == Path::new("-") {
        true => std::io::stdin().lock().read_to_string(&mut text).map(drop),
        false => std::fs::read_to_string(path).map(|read| text = read),
    };
    read.map_err(|e| {
        CliError::io(
            path,
            &format!("read the file of {option},"),
            &e,
            "give a file of UTF-8 text",
        )
    })?;
    Ok(text)
}

/// One prompt a line.
fn lines(text: &str) -> Vec<String> {
    text.lines()
        .filter(|line| !line.trim().is_empty())
        .map(str::to_string)
        .collect()
}

/// One object a line; what it holds beside `prompt` is nobody's business here.
fn objects(text: &str, path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Line {
        prompt: String,
    }
    let parse = |(number, line): (usize, &str)| {
        let wrong = |why: String| {
            CliError::Failed(format!(
                "--prompts: {} line {}: expected an object with a text `prompt`, found something else ({why}); correct the line",
                path.display(),
                number + 1
            ))
        };
        // Read as a list of the fields, an array would do as well.
        if !line.trim_start().starts_with('{') {
            return Err(wrong("no object".into()));
        }
        let parsed: std::result::Result<Line, _> = serde_json::from_str(line);
        parsed.map(|line| line.prompt).map_err(|e| wrong(e.to_string()))
    };
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines.map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_objects() {
        assert_eq!(
            lines("a b\n\n  c \r\n{\"prompt\": 1}"),
            ["a b", "  c ", "{\"prompt\": 1}"]
        );
        let path = Path::new("x.jsonl");
        let found = objects("{\"prompt\": \"a\\nb\", \"id\": 3}\n\n{\"prompt\": \"\"}\n", path).unwrap();
        assert_eq!(found, ["a\nb", ""]);
        let wrong = objects("{\"prompt\": \"a\"}\n{\"text\": \"b\"}\n", path)
            .unwrap_err()
            .to_string();
        assert!(wrong.contains("x.jsonl line 2") && wrong.contains("prompt"), "{wrong}");
    }
}
