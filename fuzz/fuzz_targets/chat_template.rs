//! A chat template: a program of a stranger, which ends, and which gives the same text each time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_model::chat::{ChatTemplate, Message, Role};

fuzz_target!(|text: &str| {
    let Ok(template) = ChatTemplate::from_text(text, "fuzz", "<s>", "</s>") else {
        return;
    };
    assert_eq!(template.text(), text);
    let messages = [
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Hi <s> {{ x }}"),
        Message::new(Role::Assistant, ""),
        Message::new(Role::User, "\u{e9}\n"),
    ];
    for (messages, prompt) in [(&messages[..], true), (&messages[1..2], false), (&[], true)] {
        let rendered = template.render(messages, prompt).map_err(|error| error.to_string());
        assert_eq!(
            template.render(messages, prompt).map_err(|error| error.to_string()),
            rendered
        );
    }
});
