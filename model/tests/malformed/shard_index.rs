//! `model.safetensors.index.json` and the shards that it names.

use std::fs;
use std::path::Path;

use onebit_model::files::{FileError, HeaderProblem, ShardIndex, WEIGHTS_FILE, WEIGHTS_INDEX_FILE, Weights};

use crate::harness::{check_damage, check_truncations, peak_of, seed_damaged};

pub const GOOD: &str = r#"{"metadata": {"total_size": 24}, "weight_map": {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}}"#;

fn write_shard(path: &Path, names: &[&str]) {
    let data = vec![0u8; 8];
    let view = || safetensors::tensor::TensorView::new(safetensors::Dtype::U8, vec![8], &data).unwrap();
    safetensors::serialize_to_file(names.iter().map(|name| (name.to_string(), view())), None, path).unwrap();
}

/// The index and its two shards.
fn directory(index: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write_shard(&dir.path().join("one.safetensors"), &["a", "b"]);
    write_shard(&dir.path().join("two.safetensors"), &["c"]);
    fs::write(dir.path().join(WEIGHTS_INDEX_FILE), index).unwrap();
    dir
}

#[test]
fn each_class_has_its_own_message() {
    let mut seen = Vec::new();
    for (text, expected) in [
        (String::new(), "EOF"),
        ("[]".into(), "invalid type: sequence, expected an object"),
        ("[{\"a\": \"x\"}]".into(), "invalid type: sequence, expected an object"),
        ("3".into(), "invalid type: integer"),
        ("{}".into(), "missing field `weight_map`"),
        ("{\"weight_map\": []}".into(), "invalid type: sequence"),
        ("{\"weight_map\": {}}".into(), "`weight_map` is empty"),
        (format!("{GOOD}]"), "trailing"),
        ("{\"weight_map\": {\"a\": 1}}".into(), "the shard 1 of tensor a"),
        (
            "{\"weight_map\": {\"a\": [\"x\"]}}".into(),
            "the shard [\"x\"] of tensor a",
        ),
        (
            "{\"weight_map\": {\"a\": \"x\", \"a\": \"y\"}}".into(),
            "`a` stands twice",
        ),
        (
            "{\"weight_map\": {\"a\": \"x\"}, \"weight_map\": {\"a\": \"y\"}}".into(),
            "duplicate field",
        ),
        (format!("{{\"metadata\": {}", "[".repeat(100_000)), "EOF"),
        (
            format!("{{\"weight_map\": {{\"a\": {}", "[".repeat(100_000)),
            "recursion limit",
        ),
    ] {
        seed_damaged(&["shard_index"], text.as_bytes());
        let message = ShardIndex::from_json(&text).unwrap_err().to_string();
        assert!(message.contains(expected), "{text:.80}: {message}");
        seen.push(message);
    }
    // An array of the right fields is the same mistake as an empty one; every other class says something else.
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), 13);
}

/// A name that leads out of the directory is refused before any file is opened.
#[test]
fn paths_out_of_the_directory_are_refused() {
    let long = "x".repeat(100_000);
    for evil in [
        "../x.safetensors",
        "/etc/passwd",
        "//server/share",
        "a/b",
        "a/",
        "./a",
        "..",
        ".",
        "",
        "C:\\x",
        "C:x",
        "a\\b",
        "\\\\?\\pipe",
        "sub/../x",
        "a\0b",
        &format!("/{long}"),
    ] {
        let map = serde_json::json!({ "weight_map": { "a": evil } });
        seed_damaged(&["shard_index"], map.to_string().as_bytes());
        let dir = directory(&map.to_string());
        let error = Weights::open_dir(dir.path()).unwrap_err();
        let FileError::Json { message, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            message.contains("not the name of a file beside the index"),
            "{evil:.80}: {message}"
        );
        assert!(message.len() < 300, "{message}");
    }
    // A plain name of what is no file.
    let dir = directory(r#"{"weight_map": {"a": "sub"}}"#);
    fs::create_dir(dir.path().join("sub")).unwrap();
    let error = Weights::open_dir(dir.path()).unwrap_err();
    assert!(
        matches!(&error, FileError::Io { source, .. } if source.to_string().contains("regular")),
        "{error}"
    );
    // Too long for a file system: the system's own refusal.
    let dir = directory(&serde_json::json!({ "weight_map": { "a": long } }).to_string());
    assert!(matches!(Weights::open_dir(dir.path()), Err(FileError::Io { .. })));
}

#[test]
fn index_and_shards_must_agree() {
    assert_eq!(Weights::open_dir(directory(GOOD).path()).unwrap().len(), 3);
    for (index, expected) in [
        (
            GOOD.replace("\"b\": \"one", "\"b\": \"two"),
            "tensor b of one.safetensors is not listed",
        ),
        (GOOD.replace("\"c\"", "\"d\""), "tensor d is not in two.safetensors"),
        (
            GOOD.replace("\"b\": \"one.safetensors\", ", ""),
            "tensor b of one.safetensors is not listed",
        ),
    ] {
        let error = Weights::open_dir(directory(&index).path()).unwrap_err();
        assert!(
            matches!(&error, FileError::Json { message, .. } if message.contains(expected)),
            "{expected}: {error}"
        );
    }
    let absent = Weights::open_dir(directory(&GOOD.replace("two", "three")).path()).unwrap_err();
    assert!(matches!(&absent, FileError::Io { action: "open", .. }), "{absent}");
    // A tensor in two shards.
    let dir = directory(GOOD);
    write_shard(&dir.path().join("two.safetensors"), &["a", "c"]);
    let error = Weights::open_dir(dir.path()).unwrap_err();
    let twice = |problem: &HeaderProblem| matches!(problem, HeaderProblem::DuplicateInShards { name } if name == "a");
    assert!(
        matches!(&error, FileError::Header { problem, .. } if twice(problem)),
        "{error}"
    );
    // One file goes before an index, which then says nothing.
    let dir = directory("{");
    write_shard(&dir.path().join(WEIGHTS_FILE), &["z"]);
    assert_eq!(
        Weights::open_dir(dir.path()).unwrap().names().collect::<Vec<_>>(),
        ["z"]
    );
}

#[test]
fn an_index_that_is_too_long_is_not_read() {
    let dir = directory(GOOD);
    fs::File::options()
        .write(true)
        .open(dir.path().join(WEIGHTS_INDEX_FILE))
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    let (result, peak) = peak_of(|| Weights::open_dir(dir.path()));
    assert!(
        matches!(&result, Err(FileError::Io { source, .. }) if source.to_string().contains("longer than")),
        "{result:?}"
    );
    assert!(peak < 64 << 20, "{peak} bytes");
}

#[test]
fn cut_or_damaged_indices_never_panic() {
    check_truncations(WEIGHTS_INDEX_FILE, GOOD.as_bytes(), |bytes| {
        assert!(ShardIndex::from_json(str::from_utf8(bytes).unwrap()).is_err() || bytes.len() == GOOD.len());
    });
    check_damage(WEIGHTS_INDEX_FILE, GOOD.as_bytes(), 6000, |bytes| {
        let Ok(text) = str::from_utf8(bytes) else { return };
        let Ok(index) = ShardIndex::from_json(text) else { return };
        for (shard, names) in index.shards() {
            assert_eq!(Path::new("dir").join(shard).parent(), Some(Path::new("dir")), "{shard}");
            assert!(names.count() > 0);
        }
    });
}
