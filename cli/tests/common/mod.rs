//! The built command, and a tiny trained model that the command itself made.
#![allow(dead_code, reason = "each test file uses a part")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

/// What one run of the command gave.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Ran {
    fn new(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the command writes UTF-8");
        Self {
            status: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Done, with the JSON object on stdout, which holds nothing else.
    pub fn json(self) -> Value {
        assert_eq!(self.status, Some(0), "{self:?}");
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|e| panic!("stdout is not one JSON object: {e}: {}", self.stdout))
    }

    /// Done.
    pub fn ok(self) -> String {
        assert_eq!(self.status, Some(0), "{self:?}");
        self.stdout
    }

    /// Ended with `status`, nothing on stdout, and one line `error: …` that holds every one of `parts`.
    pub fn refused(self, status: i32, parts: &[&str]) {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert_eq!(self.stdout, "", "a refusal writes nothing to stdout");
        let errors: Vec<&str> = self.stderr.lines().filter(|line| line.starts_with("error: ")).collect();
        assert_eq!(errors.len(), 1, "one error line: {}", self.stderr);
        for part in parts {
            assert!(errors[0].contains(part), "{part:?} is not in {:?}", errors[0]);
        }
    }
}

/// Runs the command.
pub fn onebit<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Ran {
    Ran::new(command(args).stdin(Stdio::null()).output().expect("the command starts"))
}

/// Runs the command with an environment variable of its own.
pub fn onebit_with<S: AsRef<std::ffi::OsStr>>(args: &[S], name: &str, value: &str) -> Ran {
    let mut command = command(args);
    Ran::new(
        command
            .env(name, value)
            .stdin(Stdio::null())
            .output()
            .expect("the command starts"),
    )
}

/// The command, one thread, ready to start.
pub fn command<S: AsRef<std::ffi::OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onebit"));
    command.args(args);
    command
}

/// Runs the command with `input` on stdin.
pub fn with_input(args: &[&str], input: &str) -> Ran {
    use std::io::Write;
    let mut child = command(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(input.as_bytes())
        .expect("the command reads");
    Ran::new(child.wait_with_output().expect("the command ends"))
}

/// A file of the test data, or nothing after a line that says that the test was skipped.
pub fn testdata(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ONEBIT_TESTDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let file = root.join(name);
    if file.is_file() {
        return Some(file);
    }
    // Not `eprintln!`, which the test harness hides when a test passes.
    let line = format!(
        "SKIPPED (no test data): {} is absent; set ONEBIT_TESTDATA\n",
        file.display()
    );
    std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes()).unwrap();
    None
}

/// Files that the tests share; none changes them.
pub struct Fixture {
    root: tempfile::TempDir,
}

/// A text of a few kilobytes, the same each time.
pub fn text(lines: usize) -> String {
    let words = [
        "the", "cow", "found", "a", "red", "shell", "and", "Anna", "ate", "some", "scones", "near",
    ];
    (0..lines)
        .map(|i| {
            (0..7)
                .map(|j| words[(i * 5 + j * j + i / 3) % words.len()])
                .collect::<Vec<_>>()
                .join(" ")
                + ".\n"
        })
        .collect()
}

/// A model of two blocks.
pub const CONFIG: &str = r#"{"model_type": "bitnet", "vocab_size": 320, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32,
    "tie_word_embeddings": true, "hidden_act": "relu2", "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
    "quantization_config": {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}}"#;

impl Fixture {
    /// The path of a shared file: `text.txt`, `tokenizer.json`, `other.json`, `text.tokens`, `config.json`, `model`.
    pub fn path(&self, name: &str) -> String {
        self.root.path().join(name).to_str().expect("UTF-8").to_string()
    }

    /// The arguments of a training run on the shared files into `output`.
    pub fn train<'a>(&'a self, output: &'a Path, more: &[&str]) -> Vec<String> {
        let mut args = vec!["train".to_string(), "--threads".into(), "1".into()];
        let pairs = [
            ("--config", "config.json"),
            ("--data", "text.tokens"),
            ("--tokenizer", "tokenizer.json"),
        ];
        for (option, file) in pairs {
            if !more.contains(&option) {
                args.extend([option.to_string(), self.path(file)]);
            }
        }
        args.extend(["--output-dir".into(), output.to_str().expect("UTF-8").to_string()]);
        for (option, value) in [
            ("--max-steps", "3"),
            ("--batch-size", "2"),
            ("--seq-len", "16"),
            ("--quant-warmup-steps", "1"),
            ("--quant-anneal-steps", "1"),
            ("--device", "cpu"),
        ] {
            if !more.contains(&option) {
                args.extend([option.to_string(), value.to_string()]);
            }
        }
        args.extend(more.iter().map(|s| s.to_string()));
        args
    }
}

/// Made once for each test file.
pub fn fixture() -> &'static Fixture {
    static FIXTURE: OnceLock<Fixture> = OnceLock::new();
    FIXTURE.get_or_init(|| {
        let fixture = Fixture {
            root: tempfile::tempdir().expect("a temporary directory"),
        };
        let path = |name: &str| fixture.path(name);
        std::fs::write(path("text.txt"), text(200)).expect("written");
        std::fs::write(path("config.json"), CONFIG).expect("written");
        onebit(&[
            "tokenizer",
            "train",
            "--input",
            &path("text.txt"),
            "--vocab-size",
            "300",
            "--output",
            &path("tokenizer.json"),
        ])
        .ok();
        onebit(&[
            "tokenizer",
            "train",
            "--input",
            &path("text.txt"),
            "--vocab-size",
            "270",
            "--output",
            &path("other.json"),
        ])
        .ok();
        onebit(&[
            "tokenize",
            "--input",
            &path("text.txt"),
            "--tokenizer",
            &path("tokenizer.json"),
            "--output",
            &path("text.tokens"),
        ])
        .ok();
        onebit(&fixture.train(&PathBuf::from(path("model")), &[])).ok();
        fixture
    })
}
