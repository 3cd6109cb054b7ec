//! Event files are read back, checksums included.

use serde_json::json;

use super::*;

/// Every scalar of a directory, in the order of its files.
fn written(directory: &Path) -> Vec<(String, i64, f32)> {
    let mut found = Vec::new();
    for path in event_files(directory).unwrap() {
        let events = records::read(&fs::read(&path).unwrap());
        assert_eq!(events[0].what, Some(What::FileVersion(VERSION.into())));
        for event in &events[1..] {
            if let Some(What::Summary(summary)) = &event.what {
                let scalars = summary.value.iter();
                found.extend(scalars.map(|s| (s.tag.clone(), event.step, s.simple_value.unwrap())));
            }
        }
    }
    found
}

fn step(step: u64) -> Value {
    json!({"step": step, "phase": "hard", "loss": 2.0, "lr": 0.5,
        "layers": [{"name": "0.mlp.up_proj", "zero": 0.0, "flip": 0.25, "scale": 1.0, "clip": 0.1}]})
}

/// TensorFlow's own bytes of `Event(wall_time=1.5, step=7, summary=Summary(value=[Value(tag="a", simple_value=0.0)]))`, written by hand from the definition.
#[test]
fn an_event_has_the_bytes_of_the_definition() {
    let event = Event {
        wall_time: 1.5,
        step: 7,
        what: Some(What::Summary(Summary {
            value: vec![Scalar::new("a", 0.0)],
        })),
    };
    let mut bytes = Vec::new();
    records::write(&mut bytes, &event).unwrap();
    let body = b"\x09\0\0\0\0\0\0\xf8\x3f\x10\x07\x2a\x0a\x0a\x08\x0a\x01a\x15\0\0\0\0";
    assert_eq!(bytes[..8], (body.len() as u64).to_le_bytes());
    assert_eq!(&bytes[12..12 + body.len()], body);
    assert_eq!(records::read(&bytes), [event]);
}

/// Of RFC 3720: 32 bytes of zeros have the CRC-32C 0x8a9136aa. And a bit that changed is seen, wherever it is.
#[test]
fn checksums_are_those_of_the_format_and_damage_ends_a_file() {
    assert_eq!(crc32c::crc32c(&[0; 32]), 0x8a91_36aa);
    let event = |step| Event {
        wall_time: 0.0,
        step,
        what: Some(What::FileVersion("x".into())),
    };
    let mut bytes = Vec::new();
    records::write(&mut bytes, &event(1)).unwrap();
    let one = bytes.len();
    records::write(&mut bytes, &event(2)).unwrap();
    assert_eq!(records::read(&bytes).len(), 2);
    for at in one..bytes.len() {
        assert_eq!(records::read(&bytes[..at]).len(), 1, "torn at {at}");
        let mut damaged = bytes.clone();
        damaged[at] ^= 4;
        assert_eq!(records::read(&damaged).len(), 1, "damaged at {at}");
    }
}

#[test]
fn lines_of_metrics_become_scalars() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = EventFile::open(dir.path(), false, false).unwrap();
    file.line(&step(1), Some(100.0)).unwrap();
    file.line(&json!({"step": 1, "val_loss": 1.0, "val_ppl": 2.75}), None)
        .unwrap();
    file.line(&json!({"step": 2, "loss": null, "lr": 0.5}), None).unwrap();
    drop(file);
    let expected = [
        ("loss/training", 1, 2.0),
        ("learning_rate", 1, 0.5),
        ("perplexity/training", 1, 2.0f64.exp() as f32),
        ("zeros/0.mlp.up_proj", 1, 0.0),
        ("flips/0.mlp.up_proj", 1, 0.25),
        ("speed/tokens_per_second", 1, 100.0),
        ("loss/validation", 1, 1.0),
        ("perplexity/validation", 1, 2.75),
        ("learning_rate", 2, 0.5),
    ];
    assert_eq!(
        written(dir.path()),
        expected.map(|(tag, step, y)| (tag.to_string(), step, y))
    );
}

#[test]
fn a_resume_writes_no_step_twice_and_closes_gaps() {
    let dir = tempfile::tempdir().unwrap();
    let events = dir.path().join("events");
    let mut file = EventFile::open(&events, false, false).unwrap();
    (1..=5).for_each(|i| file.line(&step(i), Some(1.0)).unwrap());
    drop(file);
    // The process was killed in the middle of step 5, whose record is torn.
    let path = event_files(&events).unwrap().remove(0);
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() - 9]).unwrap();
    // So that the second has another name: in life it is another process.
    fs::rename(&path, events.join(format!("{PREFIX}1.1{SUFFIX}"))).unwrap();
    let metrics = dir.path().join("metrics.jsonl");
    let lines: String = (1..=6).map(|i| format!("{}\n", step(i))).collect();
    fs::write(&metrics, lines).unwrap();
    let mut file = EventFile::open(&events, true, false).unwrap();
    file.fill_from(&metrics).unwrap();
    (3..=8).for_each(|i| file.line(&step(i), Some(2.0)).unwrap());
    drop(file);
    let all = written(&events);
    for (tag, expected) in [("loss/training", 1..=8), ("zeros/0.mlp.up_proj", 1..=8)] {
        let steps: Vec<i64> = all.iter().filter(|s| s.0 == tag).map(|s| s.1).collect();
        assert_eq!(steps, expected.collect::<Vec<_>>(), "{tag}");
    }
    // Nobody measured the speed of the step that was filled in before the run came to it again.
    let speeds: Vec<_> = all
        .iter()
        .filter(|s| s.0.starts_with("speed"))
        .map(|s| (s.1, s.2))
        .collect();
    assert_eq!(speeds[..5], [(1, 1.0), (2, 1.0), (3, 1.0), (4, 1.0), (5, 2.0)]);
}

#[test]
fn steps_behind_a_rollback_come_again_and_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut file = EventFile::open(dir.path(), false, false).unwrap();
    (1..=5).for_each(|i| file.line(&step(i), None).unwrap());
    file.back_to(2).unwrap();
    (3..=4).for_each(|i| file.line(&step(i), None).unwrap());
    drop(file);
    let events = records::read(&fs::read(&event_files(dir.path()).unwrap()[0]).unwrap());
    let steps: Vec<i64> = events[1..].iter().map(|event| event.step).collect();
    assert_eq!(steps, [1, 2, 3, 4, 5, 3, 3, 4]);
    let mut last = BTreeMap::new();
    events.iter().for_each(|event| take_up(&mut last, event));
    assert!(last.values().all(|&step| step == 4), "{last:?}");
}

#[test]
fn events_of_another_run_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(EventFile::open(dir.path(), false, false).unwrap());
    let refused = EventFile::open(dir.path(), false, false).unwrap_err().to_string();
    assert!(
        refused.contains("--force") && refused.contains("--tensorboard"),
        "{refused}"
    );
    drop(EventFile::open(dir.path(), false, true).unwrap());
    let strange = dir.path().join(format!("{PREFIX}1.host"));
    fs::write(&strange, "theirs").unwrap();
    let refused = EventFile::open(dir.path(), false, true).unwrap_err().to_string();
    assert!(!refused.contains("--force"), "{refused}");
    assert_eq!(fs::read(&strange).unwrap(), b"theirs");
}
