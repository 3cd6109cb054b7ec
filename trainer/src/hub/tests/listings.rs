//! Listings: every page, or an error that says why not.

use super::*;
use crate::hub::fake::{COMMIT, Fault};
use crate::hub::{Commit, Entry};

/// A Hub with `languages` folders of `shards` files.
fn stack(languages: &[&str], shards: usize) -> FakeHub {
    let mut files = vec![(SMALL.to_string(), b"text".to_vec())];
    for language in languages {
        for n in 0..shards {
            files.push((
                format!("data/{language}/train-{n:05}.parquet"),
                noise(100 + n, n as u64),
            ));
        }
    }
    FakeHub::start(DATASET, files)
}

fn listed(client: &Hub, folder: Option<&str>) -> Result<Vec<Entry>, HubError> {
    client
        .list(DATASET, COMMIT, folder)
        .collect::<crate::Result<_>>()
        .map_err(own)
}

#[test]
fn every_page_comes_with_sizes_and_checksums() {
    let hub = stack(&["c++", "rust"], 5);
    hub.contents().token = Some("t".into());
    let client = client(&hub, Some("t"));
    let commit = client.dataset(DATASET, "main").unwrap();
    assert_eq!(
        commit,
        Commit {
            dataset: DATASET.into(),
            sha: COMMIT.into()
        }
    );
    assert_eq!(client.dataset(DATASET, "refs/pr/1").unwrap(), commit);
    let all = listed(&client, None).unwrap();
    let files = hub.contents().files.clone();
    assert_eq!(all.len(), files.len());
    for entry in all {
        let file = &files[&entry.path];
        assert_eq!(entry.bytes, file.len() as u64);
        assert_eq!(entry.sha256, entry.path.ends_with("parquet").then(|| sha256(file)));
    }
    let some = listed(&client, Some("data/c++")).unwrap();
    assert!(some.len() == 5 && some.iter().all(|entry| entry.path.starts_with("data/c++/")));
    assert_eq!(
        client.folders(DATASET, COMMIT, "data").unwrap(),
        ["data/c++", "data/rust"]
    );
    assert!(
        hub.log()
            .iter()
            .any(|asked| asked.path.contains("tree") && asked.path.contains("/data/c%2B%2B?"))
    );
    assert!(hub.log().iter().all(|asked| asked.token.as_deref() == Some("t")));
}

#[test]
fn what_passes_is_tried_again() {
    for fault in [
        Fault::Closed,
        Fault::Cut(10),
        Fault::Answer(429, vec![("Retry-After", "0".into())], vec![]),
        Fault::Answer(502, vec![], vec![]),
    ] {
        let hub = stack(&["rust"], 5);
        let each = fault.clone();
        hub.script(move |asked| asked.number.is_multiple_of(2).then(|| each.clone()));
        let all = listed(&client(&hub, None), Some("data")).unwrap_or_else(|e| panic!("{fault:?}: {e}"));
        assert_eq!(all.len(), 5);
        hub.script(move |_| Some(fault.clone()));
        let error = listed(&client(&hub, None), Some("data")).unwrap_err();
        assert!(matches!(error, HubError::Unreachable { .. }), "{error}");
    }
}

#[test]
fn pages_that_never_end_do() {
    let hub = stack(&["rust"], 2);
    let endless = |body: fn(usize) -> String| {
        let home = hub.endpoint();
        hub.script(move |asked| {
            let next = format!("<{home}/api/datasets/x?cursor={}>; rel=\"next\"", asked.number);
            Some(Fault::Answer(200, vec![("Link", next)], body(asked.number).into()))
        });
        let error = listed(&client(&hub, None), Some("data")).unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{error}");
        error.to_string()
    };
    assert!(endless(|_| "[]".into()).contains("list nothing"));
    assert!(endless(|_| r#"[{"type":"file","path":"data/x","size":1}]"#.into()).contains("twice"));
    let new = |n| format!(r#"[{{"type":"file","path":"data/{n}","size":1}}]"#);
    assert!(endless(new).contains("more than 30 files"));
    let folders = client(&hub, None).folders(DATASET, COMMIT, "data").map_err(own);
    assert!(matches!(folders, Err(HubError::Answer { .. })));
}

#[test]
fn the_next_page_is_the_hub_s_own() {
    let hub = stack(&["rust"], 2);
    let elsewhere = hub.elsewhere();
    for next in [
        format!("{elsewhere}/page"),
        "https://hub.example/page".into(),
        "ftp://x".into(),
    ] {
        let link = format!("<{next}>; rel=\"next\"");
        let page = r#"[{"type":"file","path":"data/x","size":1}]"#;
        hub.script(move |_| Some(Fault::Answer(200, vec![("Link", link.clone())], page.into())));
        let error = listed(&client(&hub, Some("t")), Some("data")).unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{next}: {error}");
    }
    let client = client(&hub, Some("t"));
    assert!(client.page(DATASET, None, &format!("{elsewhere}/page")).is_err());
    assert!(hub.log().iter().all(|asked| !asked.elsewhere));
}

#[test]
fn a_page_that_was_cut_at_any_byte_is_no_page() {
    let hub = stack(&["rust"], 1);
    let sum = sha256(b"x");
    let page = format!(r#"[{{"type":"file","oid":"0","size":9,"path":"data/x","lfs":{{"oid":"{sum}","size":9}}}}]"#);
    let client = client(&hub, None);
    for end in 0..page.len() {
        let body = page.as_bytes()[..end].to_vec();
        hub.script(move |_| Some(Fault::Answer(200, vec![], body.clone())));
        let error = listed(&client, Some("data")).unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{error}");
    }
    hub.script(move |_| Some(Fault::Answer(200, vec![], page.clone().into())));
    assert_eq!(listed(&client, Some("data")).unwrap().len(), 1);
}

#[test]
fn answers_that_make_no_sense_are_named() {
    let hub = stack(&["rust"], 2);
    let client = client(&hub, None);
    for body in [
        "",
        "{}",
        "[{}]",
        "[1]",
        "<html>",
        "[{\"type\":\"file\",\"path\":\"data/x\",\"size\":-1}]",
        "[{\"type\":\"file\",\"path\":\"data/../../x\",\"size\":1}]",
        "[{\"type\":\"file\",\"path\":\"other/x\",\"size\":1}]",
        "[{\"type\":\"file\",\"path\":\"database\",\"size\":1}]",
        "[{\"type\":\"link\",\"path\":\"data/x\",\"size\":1}]",
        "[{\"type\":\"file\",\"path\":\"data/x\",\"size\":1,\"lfs\":{\"oid\":\"x\",\"size\":1}}]",
    ] {
        hub.script(move |_| Some(Fault::Answer(200, vec![], body.into())));
        let error = listed(&client, Some("data")).unwrap_err();
        assert!(matches!(error, HubError::Answer { .. }), "{body}: {error}");
        assert!(client.dataset(DATASET, "main").is_err());
    }
    hub.script(|_| Some(Fault::Answer(200, vec![], br#"{"sha":"main"}"#.to_vec())));
    assert!(matches!(
        client.dataset(DATASET, "main").map_err(own),
        Err(HubError::Answer { .. })
    ));
    hub.script(|_| None);
    let none = client.dataset("a/b", "main").map_err(own).unwrap_err();
    assert!(matches!(none, HubError::NoDataset { .. }), "{none}");
    let none = client.dataset(DATASET, "v9").map_err(own).unwrap_err();
    assert!(
        matches!(&none, HubError::NoRevision { revision, .. } if revision == "v9"),
        "{none}"
    );
    let none = listed(&client, Some("data/cobol")).unwrap_err();
    assert!(
        matches!(&none, HubError::NoEntry { entry, .. } if entry == "data/cobol"),
        "{none}"
    );
    for (id, commit, folder) in [
        ("a b", COMMIT, "data"),
        (DATASET, "main", "data"),
        (DATASET, COMMIT, "../data"),
    ] {
        let error = client.list(id, commit, Some(folder)).next().unwrap().map_err(own);
        assert!(matches!(error, Err(HubError::Name { .. })));
    }
}
