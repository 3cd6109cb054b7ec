//! Manifests that are right, and every way of being wrong.

use std::fs;

use super::*;

fn shard(n: u64) -> Shard {
    Shard {
        id: format!("c++/train-{n:05}-of-00003"),
        language: "c++".into(),
        path: format!("data/c++/train-{n:05}-of-00003.parquet"),
        bytes: 1000 + n,
        sha256: (n != 1).then(|| format!("{n:064x}")),
        dataset: "bigcode/the-stack".into(),
        revision: format!("{:040x}", 0xabc),
    }
}

fn line(shard: &Shard) -> String {
    serde_json::to_string(shard).unwrap() + "\n"
}

fn read(text: &[u8]) -> Result<Vec<Shard>> {
    parse(text, Path::new("m.jsonl"))
}

fn refused(text: &str, parts: &[&str]) {
    let error = read(text.as_bytes()).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error:?}");
    }
}

#[test]
fn shards_come_back_as_they_were_written() {
    let shards: Vec<Shard> = (0..3).map(shard).collect();
    let text: String = shards.iter().map(line).collect();
    assert_eq!(read(text.as_bytes()).unwrap(), shards);
    // The last line end may be missing, as editors leave it.
    assert_eq!(read(text.trim_end().as_bytes()).unwrap(), shards);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.jsonl");
    fs::write(&path, &text).unwrap();
    assert_eq!(read_manifest(&path).unwrap(), shards);
    let file = shards[0].file();
    assert_eq!(
        (file.path, file.bytes, file.sha256),
        (shards[0].path.clone(), 1000, shards[0].sha256.clone())
    );
}

#[test]
fn a_wrong_line_is_named() {
    let good = line(&shard(0));
    let change = |edit: &dyn Fn(&mut Shard)| {
        let mut changed = shard(1);
        edit(&mut changed);
        format!("{good}{}", line(&changed))
    };
    refused("", &["is empty"]);
    refused(&format!("{good}\n"), &["line 2", "JSON"]);
    refused(&format!("{good}[]\n"), &["line 2", "JSON"]);
    refused(
        &good.replace("}", ",\"url\":\"x\"}"),
        &["line 1", "unknown field `url`"],
    );
    refused(
        &good.replace("\"bytes\":1000,", ""),
        &["line 1", "missing field `bytes`"],
    );
    refused(&good.replace("1000", "-1"), &["line 1", "-1"]);
    refused(&good.replace("1000", "1e3"), &["line 1"]);
    refused(
        &format!("{good}{good}"),
        &["line 2", "c++/train-00000-of-00003", "before"],
    );
    refused(&change(&|s| s.path = shard(0).path), &["line 2", "the file", "before"]);
    refused(&change(&|s| s.bytes = 0), &["line 2", "bytes is 0"]);
    refused(&change(&|s| s.bytes = u64::MAX), &["line 2", "64 bits"]);
    for path in [
        "../x",
        "/etc/passwd",
        "a\\b",
        "a/../b",
        "a//b",
        "a/",
        ".",
        "",
        "a/./b",
        "a\nb",
        "a\0b",
    ] {
        refused(&change(&|s| s.path = path.into()), &["line 2", "path is"]);
    }
    for id in ["../x", "/x", "a b", "ü", "a\\b", "", "a/", "a//b", "..", "a:b", "a%2fb"] {
        refused(&change(&|s| s.id = id.into()), &["line 2", "id is"]);
    }
    refused(&change(&|s| s.id = "x".repeat(201)), &["line 2", "id is"]);
    for language in ["", "a/b", "a b"] {
        refused(&change(&|s| s.language = language.into()), &["line 2", "language is"]);
    }
    for sha256 in ["", "ab", &"g".repeat(64), &"A".repeat(64)] {
        refused(&change(&|s| s.sha256 = Some(sha256.into())), &["line 2", "sha256 is"]);
    }
    for dataset in ["", "a/b/c", "a b/c", "../c", "a/.."] {
        refused(&change(&|s| s.dataset = dataset.into()), &["line 2", "dataset is"]);
    }
    for revision in ["main", "", &"g".repeat(40)] {
        refused(&change(&|s| s.revision = revision.into()), &["line 2", "revision is"]);
    }
    refused(&"x".repeat(100_000), &["line 1", "65536 bytes"]);
    let missing = read_manifest(Path::new("no/such/manifest")).unwrap_err().to_string();
    assert!(missing.contains("no/such/manifest"), "{missing}");
}

#[test]
fn a_cut_or_changed_manifest_is_an_error_or_a_manifest() {
    let text: String = (0..2).map(|n| line(&shard(n))).collect();
    let first = line(&shard(0)).len();
    for cut in 0..text.len() {
        match read(&text.as_bytes()[..cut]) {
            Ok(shards) => {
                let whole = [first - 1, first, text.len() - 1].contains(&cut);
                assert!(whole && shards.len() == 1 + usize::from(cut > first), "cut at {cut}");
            }
            Err(error) => assert!(error.to_string().contains("manifest"), "{error}"),
        }
    }
    for at in 0..text.len() {
        for byte in [0, b'"', b'/', b'.', b'\\', b'\n', 0x80, 0xff] {
            let mut changed = text.clone().into_bytes();
            changed[at] = byte;
            // Whatever is taken is safe.
            for shard in read(&changed).unwrap_or_default() {
                assert!(hub::is_plain_path(&shard.path) && hub::is_plain_path(&shard.id));
            }
        }
    }
}
