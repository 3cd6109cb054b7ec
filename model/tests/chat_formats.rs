//! Chat templates give the bytes that `transformers` gives: `chat/formats.json` is what it rendered (`chat/make.py`).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use chrono::{Local, NaiveDateTime, TimeZone};
use onebit_model::chat::{ChatError, ChatTemplate, Message, Role};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    now: String,
    conversations: BTreeMap<String, Vec<Turn>>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
}

#[derive(Deserialize)]
struct Case {
    template: String,
    bos: String,
    eos: String,
    conversation: String,
    add_generation_prompt: bool,
    text: Option<String>,
    error: Option<String>,
}

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/chat").join(name)
}

fn messages(turns: &[Turn]) -> Vec<Message> {
    let role = |name: &str| match name {
        "system" => Role::System,
        "user" => Role::User,
        "assistant" => Role::Assistant,
        other => panic!("a role {other}"),
    };
    turns
        .iter()
        .map(|turn| Message::new(role(&turn.role), turn.content.clone()))
        .collect()
}

#[test]
fn the_bytes_are_those_of_transformers() {
    let fixture = std::fs::read_to_string(path("formats.json")).unwrap();
    let fixture: Fixture = serde_json::from_str(&fixture).unwrap();
    let now: NaiveDateTime = fixture.now.parse().unwrap();
    let now: SystemTime = Local.from_local_datetime(&now).earliest().unwrap().into();
    let (mut same, mut refused) = (0, 0);
    for case in &fixture.cases {
        let text = std::fs::read_to_string(path(&format!("{}.jinja", case.template))).unwrap();
        let template = ChatTemplate::from_text(&text, &case.template, &case.bos, &case.eos).unwrap();
        let conversation = messages(&fixture.conversations[&case.conversation]);
        let found = template.render_at(&conversation, case.add_generation_prompt, now);
        let which = format!(
            "{}, {}, {}",
            case.template, case.conversation, case.add_generation_prompt
        );
        match (&case.text, &case.error) {
            (Some(expected), None) => {
                let found = found.unwrap_or_else(|error| panic!("{which}: {error}"));
                for (a, b) in found.lines().zip(expected.lines()) {
                    assert_eq!(a, b, "{which}");
                }
                assert_eq!(&found, expected, "{which}");
                same += 1;
            }
            (None, Some(expected)) => {
                let error = found.unwrap_err();
                assert!(matches!(error, ChatError::Template { .. }), "{which}: {error}");
                // Python words its own errors in its own way; what a template says is said as it says it.
                if !expected.contains("undefined") {
                    assert!(error.to_string().contains(expected), "{which}: {error} for {expected}");
                }
                refused += 1;
            }
            _ => panic!("{which}: a text or an error"),
        }
    }
    assert!(same > 100 && refused > 0, "{same} texts and {refused} errors");
}
