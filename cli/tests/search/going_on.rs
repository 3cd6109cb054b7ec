//! The same search, whole or in pieces, is the same bytes.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::common::{command, onebit};
use crate::{search, twin};

#[test]
fn the_same_search_gives_the_same_bytes_also_interrupted() {
    let dir = tempfile::tempdir().unwrap();
    let run = |name: &str, more: &[&str]| {
        let args = search(twin(), dir.path(), name, &[more, &["--max-evaluations", "80"]].concat());
        onebit(&args).ok();
        let map = fs::read_to_string(dir.path().join(format!("{name}.json"))).unwrap();
        (
            map.replace(&format!("{name}."), "x."),
            fs::read(dir.path().join(format!("{name}.1bit"))).unwrap(),
        )
    };
    let one = run("one", &["--threads", "1"]);
    let two = run("two", &["--threads", "3"]);
    assert!(one == two, "threads change nothing");
    assert!(run("seed", &["--seed", "1"]).0 != one.0, "the seed does");
    // Killed at moments that come later and later, until it ends by itself.
    let name = "killed";
    let args = search(twin(), dir.path(), name, &["--max-evaluations", "80", "--threads", "1"]);
    let (mut wait, mut kills) = (Duration::from_millis(150), 0);
    loop {
        let mut child = command(&args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let began = Instant::now();
        let ended = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if began.elapsed() > wait {
                break None;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        match ended {
            Some(status) => {
                assert!(status.success());
                break;
            }
            None => {
                child.kill().unwrap();
                child.wait().unwrap();
                kills += 1;
                wait += Duration::from_millis(100);
            }
        }
    }
    assert!(kills > 0, "it was killed at least once");
    let map = fs::read_to_string(dir.path().join("killed.json"))
        .unwrap()
        .replace("killed.", "x.");
    assert!(
        map == one.0,
        "a search that was killed {kills} times ends as one that was not"
    );
}

#[test]
#[cfg(unix)]
fn an_interrupted_search_says_so_and_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let args = |name: &str| {
        search(
            twin(),
            dir.path(),
            name,
            &["--max-evaluations", "150", "--threads", "1"],
        )
    };
    onebit(&args("one")).ok();
    let child = command(&args("two"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Once it measures, it listens.
    let measures = || {
        let entries = fs::read_dir(dir.path().join("two.work"))
            .into_iter()
            .flatten()
            .flatten();
        { entries }.any(|entry| entry.file_name().to_string_lossy().starts_with("sensitivities-"))
    };
    let began = Instant::now();
    while !measures() {
        assert!(began.elapsed() < Duration::from_secs(60), "it never began");
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = std::process::Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(130), "{told}");
    assert!(
        told.contains("interrupted; what is known is kept in") && told.contains("the same command goes on"),
        "{told}"
    );
    assert!(!dir.path().join("two.json").exists());
    onebit(&args("two")).ok();
    let read = |name: &str| {
        fs::read_to_string(dir.path().join(format!("{name}.json")))
            .unwrap()
            .replace(&format!("{name}."), "x.")
    };
    assert!(read("one") == read("two"));
}
