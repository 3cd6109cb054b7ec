//! The client against a Hub that somebody else wrote: the one of the test data, in Python.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::*;
use crate::stack::manifest::{ManifestOptions, make_manifest, read_manifest};

fn testdata(name: &str) -> Option<PathBuf> {
    let root = std::env::var_os("ONEBIT_TESTDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    let path = root.join(name);
    if path.exists() {
        return Some(path);
    }
    // Not `eprintln!`, which the test harness hides when a test passes.
    let line = format!(
        "SKIPPED (no test data): {} is absent; set ONEBIT_TESTDATA\n",
        path.display()
    );
    std::io::stderr().write_all(line.as_bytes()).unwrap();
    None
}

struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn another_hub_is_understood() {
    let Some(script) = testdata("fakehub/fakehub.py") else {
        return;
    };
    let folder = script.parent().unwrap();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let started = Command::new("python3")
        .args(["fakehub.py", &port.to_string()])
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(child) = started else {
        std::io::stderr().write_all(b"SKIPPED (no python3)\n").unwrap();
        return;
    };
    let _server = Server(child);
    let made = |token: Option<&str>| {
        Hub::new(HubOptions {
            endpoint: format!("http://127.0.0.1:{port}"),
            token: token.map(str::to_string),
            // Python takes a while to listen.
            retries: 100,
            backoff: Duration::from_millis(100),
            longest_pause: Duration::from_millis(100),
            ..HubOptions::default()
        })
        .unwrap()
    };
    let hub = made(Some("hf_test"));
    let commit = hub.dataset(DATASET, "main").unwrap();
    assert_eq!(commit.sha, "a".repeat(40));
    assert_eq!(hub.folders(DATASET, &commit.sha, "data").unwrap(), ["data/rust"]);
    let entries: Vec<_> = hub
        .list(DATASET, &commit.sha, Some("data"))
        .collect::<crate::Result<_>>()
        .unwrap();
    assert_eq!(entries.len(), 3);
    let dir = tempfile::tempdir().unwrap();
    for entry in entries {
        let original = std::fs::read(folder.join("root").join(&entry.path)).unwrap();
        let to = dir.path().join("shard");
        // Half of it is there already.
        std::fs::write(dir.path().join("shard.part"), &original[..original.len() / 2]).unwrap();
        download(&hub, &commit.file(entry), &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), original);
    }
    let options = ManifestOptions {
        dataset: DATASET.into(),
        revision: "main".into(),
        languages: vec!["rust".into()],
        output: dir.path().join("m.jsonl"),
    };
    make_manifest(&hub, &options, &mut |_| {}).unwrap();
    let shards = read_manifest(&options.output).unwrap();
    assert_eq!(shards.len(), 3);
    assert_eq!(shards[2].id, "rust/train-00002-of-00003");
    let error = made(None).dataset(DATASET, "main").map_err(own).unwrap_err();
    assert!(matches!(error, HubError::Gated { .. }), "{error}");
    let error = hub
        .list(DATASET, &commit.sha, Some("none"))
        .next()
        .unwrap()
        .map_err(own);
    assert!(matches!(error, Err(HubError::NoEntry { .. })));
}
