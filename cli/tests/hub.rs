//! `stack manifest` and `data wikitext2` against a Hub on this machine: whole and right, also when the process is killed on the way.
#![cfg(feature = "train")]

mod common;
#[path = "../../trainer/src/hub/fake.rs"]
mod fake;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use fake::{Asked, COMMIT, FakeHub, Fault, noise, sha256};
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::Value;

const STACK: &str = "bigcode/the-stack";
const WIKITEXT: &str = "Salesforce/wikitext";
/// Lines as WikiText has them, a blank one, and one of white space alone that is not blank as those are.
const LINES: [&str; 5] = [" \n", " = Title = \n", " \n", " a <unk> b @-@ c . \n", "   \n"];

/// The command, for which there is no Hub but this one.
fn command(hub: &FakeHub, token: &str, args: &[&str]) -> Command {
    let mut command = common::command(args);
    command.env("HF_ENDPOINT", hub.endpoint()).env("HF_TOKEN", token);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn run(hub: &FakeHub, args: &[&str]) -> Output {
    command(hub, "hf_right", args).output().unwrap()
}

fn json(output: &Output) -> Value {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn refused(output: &Output, parts: &[&str]) {
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(output.stdout.is_empty());
    let said = String::from_utf8_lossy(&output.stderr);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    for part in parts {
        assert!(errors[0].contains(part), "{part:?} is not in {:?}", errors[0]);
    }
    assert!(!said.contains("hf_"), "no token is shown: {said}");
}

/// Starts the command, waits until the Hub hangs, and kills it there.
fn killed(hub: &FakeHub, args: &[&str], hangs_at: impl FnMut(&Asked) -> Option<Fault> + Send + 'static) {
    hub.script(hangs_at);
    let mut child: Child = command(hub, "hf_right", args).spawn().unwrap();
    while !hub.contents().hung() {
        assert!(child.try_wait().unwrap().is_none(), "it ended by itself");
        std::thread::sleep(Duration::from_millis(2));
    }
    // What was sent before may still be on its way to the disk.
    std::thread::sleep(Duration::from_millis(100));
    child.kill().unwrap();
    child.wait().unwrap();
    hub.script(|_| None);
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn stack() -> FakeHub {
    let mut files = vec![("README.md".to_string(), b"text".to_vec())];
    for language in ["rust", "c++", "c-sharp"] {
        for n in 0..4 {
            files.push((
                format!("data/{language}/train-{n:05}-of-00004.parquet"),
                noise(100 + n, n as u64),
            ));
        }
    }
    let hub = FakeHub::start(STACK, files);
    hub.contents().token = Some("hf_right".into());
    hub
}

#[test]
fn a_manifest_is_metadata_alone() {
    let hub = stack();
    let dir = tempfile::tempdir().unwrap();
    let output = dir.path().join("made/here/m.jsonl");
    let output = output.to_str().unwrap();
    let args = [
        "stack",
        "manifest",
        "--output",
        output,
        "--languages",
        "rust, c++",
        "--json",
    ];
    let made = json(&run(&hub, &args));
    assert_eq!((&made["shards"], &made["revision"]), (&8.into(), &COMMIT.into()));
    assert_eq!(made["languages"]["c++"]["shards"], 4);
    let lines: Vec<Value> = fs::read_to_string(output)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 8);
    assert_eq!(lines[0]["id"], "c++/train-00000-of-00004");
    assert_eq!(
        lines[0]["sha256"],
        sha256(&hub.contents().files["data/c++/train-00000-of-00004.parquet"])
    );
    assert!(hub.log().iter().all(|asked| !asked.is_file()));

    refused(&run(&hub, &args), &["--output", "exists already", "--force"]);
    let all = ["stack", "manifest", "--output", output, "--force"];
    let said = String::from_utf8(run(&hub, &all).stdout).unwrap();
    assert!(said.contains("12") && said.contains(COMMIT), "{said}");
    assert_eq!(fs::read_to_string(output).unwrap().lines().count(), 12);

    let other = dir.path().join("other.jsonl");
    let other = other.to_str().unwrap();
    let refusal = |more: &[&str], parts: &[&str]| {
        refused(
            &run(&hub, &[&["stack", "manifest", "--output", other], more].concat()),
            parts,
        );
    };
    refusal(&["--languages", "ruts"], &["\"ruts\"", "rust"]);
    refusal(&["--revision", "v9"], &["no revision v9"]);
    refusal(&["--dataset-id", "bigcode/none"], &["bigcode/none"]);
    refusal(&["--dataset-id", "../x"], &["../x"]);
    let nobody = command(&hub, "", &["stack", "manifest", "--output", other])
        .output()
        .unwrap();
    refused(&nobody, &["gated", "accept its terms", "HF_TOKEN"]);
    let usage = run(&hub, &["stack", "manifest", "--languages", "rust,,c"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn a_manifest_survives_kills() {
    let hub = stack();
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole.jsonl");
    json(&run(
        &hub,
        &["stack", "manifest", "--output", whole.to_str().unwrap(), "--json"],
    ));
    let folder = dir.path().join("killed");
    let output = folder.join("m.jsonl");
    let args = ["stack", "manifest", "--output", output.to_str().unwrap(), "--json"];
    // At the first page; then each time after some more of the eight.
    for pages in [1, 2, 2, 3] {
        let first = hub.log().len();
        // The request before them asks for the commit.
        killed(&hub, &args, move |asked| {
            (asked.number == first + pages).then_some(Fault::Hang(9))
        });
        assert!(!output.exists());
    }
    let made = json(&run(&hub, &args));
    assert!(made["resumed"].as_u64().unwrap() >= 4, "{made}");
    assert_eq!(fs::read(&output).unwrap(), fs::read(&whole).unwrap());
    assert_eq!(names(&folder), ["m.jsonl"]);
}

/// A parquet file with the column `text`, as the Hub has it of WikiText: a blank line is an empty row.
fn rows(lines: &[&str]) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message m { optional binary text (UTF8); }").unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, properties).unwrap();
    for chunk in lines.chunks(1000) {
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let texts = chunk.iter().map(|line| if *line == " \n" { "" } else { line });
            let values: Vec<ByteArray> = texts.map(ByteArray::from).collect();
            let levels = vec![1; values.len()];
            let typed = column.typed::<ByteArrayType>();
            typed.write_batch(&values, Some(&levels), None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
    bytes
}

/// A Hub of WikiText, of which the training text has two files.
fn wikitext(train: [&[&str]; 2], valid: &[&str]) -> FakeHub {
    let name = |split: &str| format!("wikitext-2-v1/{split}.parquet");
    FakeHub::start(
        WIKITEXT,
        [
            (name("test-00000-of-00001"), rows(&LINES[..2])),
            (name("train-00000-of-00002"), rows(train[0])),
            (name("train-00001-of-00002"), rows(train[1])),
            (name("validation-00000-of-00001"), rows(valid)),
            (
                "wikitext-2-raw-v1/train-00000-of-00001.parquet".into(),
                b"another text".to_vec(),
            ),
            ("README.md".into(), b"text".to_vec()),
        ],
    )
}

#[test]
fn wikitext_is_downloaded_as_the_text_that_it_was() {
    let hub = wikitext([&LINES, &LINES[1..]], &LINES[..4]);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("data/w");
    let args = ["data", "wikitext2", "--output-dir", to.to_str().unwrap(), "--json"];
    let splits = json(&run(&hub, &args));
    assert_eq!(
        (&splits[0]["lines"], &splits[1]["lines"], &splits[2]["lines"]),
        (&9.into(), &4.into(), &2.into())
    );
    let text = |name: &str| fs::read_to_string(to.join(name)).unwrap();
    assert_eq!(text("train.txt"), LINES.concat() + &LINES[1..].concat());
    assert_eq!(text("valid.txt"), LINES[..4].concat());
    assert_eq!(names(&to), ["test.txt", "train.txt", "valid.txt"]);
    // Nothing is asked for before it is known that nothing is in the way.
    let asked = hub.log().len();
    refused(&run(&hub, &args), &["exists already"]);
    assert_eq!(hub.log().len(), asked);
    fs::write(to.join("train.txt"), "old").unwrap();
    json(&run(&hub, &[&args[..], &["--force"]].concat()));
    assert_eq!(
        text("train.txt").len(),
        LINES.concat().len() + LINES[1..].concat().len()
    );

    let empty = dir.path().join("empty");
    let args = ["data", "wikitext2", "--output-dir", empty.to_str().unwrap()];
    hub.script(|asked| asked.elsewhere.then_some(Fault::Wrong));
    refused(&run(&hub, &args), &["wikitext-2-v1/", "SHA-256", "expected"]);
    hub.script(|_| None);
    hub.contents().files.retain(|name, _| !name.contains("validation"));
    refused(&run(&hub, &args), &["validation-"]);
    assert!(!empty.join("train.txt").exists());
}

#[test]
fn wikitext_survives_kills_anywhere() {
    let many: Vec<String> = (0..3000)
        .map(|i| format!(" line {i} {} \n", sha256(&[i as u8, (i >> 8) as u8])))
        .collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let hub = wikitext([&many, &LINES], &LINES);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("w");
    let args = ["data", "wikitext2", "--output-dir", to.to_str().unwrap(), "--json"];
    let bytes = hub.contents().files["wikitext-2-v1/train-00000-of-00002.parquet"].len();
    assert!(bytes > 150_000, "{bytes}");
    // In the listing, then in the first file, further each time, then in the last one.
    killed(&hub, &args, |asked| {
        asked.path.contains("tree").then_some(Fault::Hang(5))
    });
    for _ in 0..3 {
        killed(&hub, &args, |asked| asked.elsewhere.then_some(Fault::Hang(50_000)));
    }
    killed(&hub, &args, |asked| {
        (asked.elsewhere && asked.path.contains("test")).then_some(Fault::Hang(10))
    });
    assert!(names(&to).iter().all(|name| name.starts_with('.')), "{:?}", names(&to));
    json(&run(&hub, &args));
    assert_eq!(
        fs::read_to_string(to.join("train.txt")).unwrap(),
        many.concat() + &LINES.concat()
    );
    assert_eq!(names(&to), ["test.txt", "train.txt", "valid.txt"]);
    let starts: Vec<u64> = hub
        .log()
        .iter()
        .filter(|asked| asked.elsewhere && asked.path.contains("train-00000"))
        .map(|asked| asked.from.unwrap_or(0))
        .collect();
    assert_eq!(
        starts,
        [0, 50_000, 100_000, 150_000],
        "what came once is not asked for again"
    );

    // Killed between the names: the rest of the download says that the text is the command's own.
    fs::create_dir(to.join(".wikitext2-download")).unwrap();
    fs::remove_file(to.join("valid.txt")).unwrap();
    json(&run(&hub, &args));
    assert_eq!(names(&to), ["test.txt", "train.txt", "valid.txt"]);
}

#[cfg(unix)]
#[test]
fn an_interruption_keeps_what_came() {
    let hub = wikitext([&LINES, &LINES], &LINES);
    let dir = tempfile::tempdir().unwrap();
    let args = ["data", "wikitext2", "--output-dir", dir.path().to_str().unwrap()];
    hub.script(|asked| asked.elsewhere.then_some(Fault::Hang(100)));
    let child = command(&hub, "", &args).spawn().unwrap();
    while !hub.contents().hung() {
        std::thread::sleep(Duration::from_millis(2));
    }
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(130), "{said}");
    assert!(said.contains("run the command again"), "{said}");
    hub.script(|_| None);
    assert!(run(&hub, &args).status.success());
}

#[test]
fn the_text_itself_comes_back_byte_for_byte() {
    let Some(path) = common::testdata("data/wikitext-2/valid.txt") else {
        return;
    };
    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let hub = wikitext([&LINES, &LINES], &lines);
    let dir = tempfile::tempdir().unwrap();
    let to = dir.path().join("w");
    let splits = json(&run(
        &hub,
        &["data", "wikitext2", "--output-dir", to.to_str().unwrap(), "--json"],
    ));
    assert_eq!(splits[1]["lines"], 3760);
    assert!(fs::read_to_string(to.join("valid.txt")).unwrap() == text);
}
