//! Manifests of a Hub on this machine: the same bytes whatever happens on the way.

use std::time::Duration;

use super::*;
use crate::hub::HubOptions;
use crate::hub::fake::{COMMIT, FakeHub, Fault, noise, sha256};
use crate::stack::manifest::read_manifest;

const DATASET: &str = "bigcode/the-stack";

fn stack() -> FakeHub {
    let mut files = vec![
        ("README.md".to_string(), b"text".to_vec()),
        ("data/rust/notes.txt".to_string(), b"text".to_vec()),
    ];
    for language in ["rust", "c++", "c-sharp"] {
        for n in 0..5 {
            files.push((
                format!("data/{language}/train-{n:05}-of-00005.parquet"),
                noise(100 + n, n as u64),
            ));
        }
    }
    FakeHub::start(DATASET, files)
}

fn client(hub: &FakeHub) -> Hub {
    Hub::new(HubOptions {
        endpoint: hub.endpoint(),
        retries: 1,
        backoff: Duration::from_millis(1),
        ..HubOptions::default()
    })
    .unwrap()
}

fn make(hub: &FakeHub, output: &Path, languages: &[&str]) -> Result<Made> {
    let options = ManifestOptions {
        dataset: DATASET.into(),
        revision: "main".into(),
        languages: languages.iter().map(|l| l.to_string()).collect(),
        output: output.into(),
    };
    make_manifest(&client(hub), &options, &mut |_| {})
}

#[test]
fn every_shard_is_listed_in_order() {
    let hub = stack();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.jsonl");
    let made = make(&hub, &output, &[]).unwrap();
    let shards = read_manifest(&output).unwrap();
    assert_eq!(
        (made.totals.shards, shards.len(), made.passed_over, made.resumed),
        (15, 15, 1, 0)
    );
    assert!(shards.is_sorted_by_key(|shard| shard.path.clone()));
    let files = hub.contents().files.clone();
    for shard in &shards {
        let file = &files[&shard.path];
        assert_eq!(shard.path, format!("data/{}.parquet", shard.id));
        assert!(shard.id.starts_with(&format!("{}/", shard.language)));
        assert_eq!((shard.bytes, &shard.sha256), (file.len() as u64, &Some(sha256(file))));
        assert_eq!((shard.dataset.as_str(), shard.revision.as_str()), (DATASET, COMMIT));
    }
    assert_eq!(made.languages.keys().collect::<Vec<_>>(), ["c++", "c-sharp", "rust"]);
    assert_eq!(made.languages.values().map(|t| t.bytes).sum::<u64>(), made.totals.bytes);
    // Nothing of the data was asked for, and nothing is left beside the manifest.
    assert!(hub.log().iter().all(|asked| !asked.is_file()));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);

    let some = dir.path().join("some.jsonl");
    make(&hub, &some, &["rust", "c++", "rust"]).unwrap();
    let expected: Vec<Shard> = shards.into_iter().filter(|s| s.language != "c-sharp").collect();
    assert_eq!(read_manifest(&some).unwrap(), expected);
}

#[test]
fn what_is_not_there_or_fits_no_line_is_named() {
    let hub = stack();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.jsonl");
    let refused = |languages: &[&str], parts: &[&str]| {
        let error = make(&hub, &output, languages).unwrap_err().to_string();
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
        assert!(!output.exists());
    };
    refused(&["rust", "rsut"], &["\"rsut\"", "rust, c++, c-sharp"]);
    refused(&["../x"], &["\"../x\""]);
    hub.contents()
        .files
        .insert("data/rust/a b.parquet".into(), b"x".to_vec());
    refused(&["rust"], &["data/rust/a b.parquet", "id is"]);
    hub.contents().files.clear();
    hub.contents().files.insert("data/train.parquet".into(), b"x".to_vec());
    refused(&[], &["data/train.parquet", "folder"]);
    hub.contents().files.clear();
    hub.contents().files.insert("data/rust/x.txt".into(), b"x".to_vec());
    refused(&[], &["no parquet file"]);
    hub.contents().files.clear();
    refused(&[], &["no data"]);
}

#[test]
fn a_run_that_ended_anywhere_is_taken_up() {
    let hub = stack();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.jsonl");
    let output = dir.path().join("m.jsonl");
    let part = dir.path().join("m.jsonl.part");
    for languages in [&[][..], &["rust", "c++"]] {
        let before = hub.log().len();
        make(&hub, &whole, languages).unwrap();
        let expected = fs::read(&whole).unwrap();
        let needed = hub.log().len() - before;
        let mut left = Vec::new();
        for ends in 1..needed {
            let first = hub.log().len();
            hub.script(move |asked| (asked.number >= first + ends).then_some(Fault::Closed));
            make(&hub, &output, languages).unwrap_err();
            hub.script(|_| None);
            left = fs::read(&part).unwrap_or_default();
            let again = hub.log().len();
            make(&hub, &output, languages).unwrap();
            assert_eq!(fs::read(&output).unwrap(), expected, "after {ends} requests");
            // The commit and the languages are asked for again, but no page.
            let asked = hub.log()[again..]
                .iter()
                .filter(|a| a.path.contains("recursive=true"))
                .count();
            let pages = hub.log()[before..before + needed]
                .iter()
                .filter(|a| a.path.contains("recursive=true"))
                .count();
            assert_eq!(
                asked,
                pages - ends.saturating_sub(needed - pages).min(pages),
                "after {ends} requests"
            );
            assert!(!part.exists());
        }
        // A journal that was cut anywhere, or lost a block when the power went.
        assert!(left.len() > 1000);
        for at in (0..left.len()).step_by(83) {
            let mut lost = left.clone();
            let end = (at + 64).min(lost.len());
            lost[at..end].fill(0);
            for damaged in [&left[..at], &lost] {
                fs::write(&part, damaged).unwrap();
                make(&hub, &output, languages).unwrap();
                assert_eq!(fs::read(&output).unwrap(), expected, "damaged at {at}");
            }
        }
    }
}

#[test]
fn another_commit_or_an_old_address_begins_anew() {
    let hub = stack();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("m.jsonl");
    hub.script(|asked| (asked.number >= 4).then_some(Fault::Closed));
    make(&hub, &output, &[]).unwrap_err();
    // Addresses of pages that the server does not know any more.
    let mut left = 1;
    hub.script(move |asked| {
        let old = asked.path.contains("cursor") && left > 0;
        left -= usize::from(old);
        old.then(|| Fault::Answer(400, vec![], vec![]))
    });
    let made = make(&hub, &output, &[]).unwrap();
    assert_eq!(made.totals.shards, 15);
    let first = hub.log().len();
    hub.script(move |asked| (asked.number >= first + 4).then_some(Fault::Closed));
    make(&hub, &output, &[]).unwrap_err();
    hub.script(|_| None);
    hub.contents().commit = "f".repeat(40);
    let made = make(&hub, &output, &[]).unwrap();
    assert_eq!((made.resumed, made.revision.as_str()), (0, "f".repeat(40).as_str()));
    assert!(
        read_manifest(&output)
            .unwrap()
            .iter()
            .all(|shard| shard.revision == made.revision)
    );
}
