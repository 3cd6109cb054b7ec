//! Damaged templates.

use onebit_kernels_cpu::rng::Key;
use onebit_model::chat::{ChatTemplate, Message, Role};

/// Whatever stands in a file, there is a result: no panic, no end of the stack.
#[test]
fn mangled_templates_give_a_result() {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat");
    let names = ["llama31", "language", "alternating", "falcon3"];
    let sources = names.map(|name| std::fs::read_to_string(dir.join(format!("{name}.jinja"))).unwrap());
    let (key, mut drawn) = (Key::new(1, 9, 0), 0);
    let mut below = |n: usize| {
        drawn += 1;
        key.below(drawn, n as u32) as usize
    };
    let pieces = [
        "{{",
        "}}",
        "{%",
        "%}",
        "{#",
        "#}",
        "-",
        "'",
        "\"",
        "[",
        "]",
        "(",
        ")",
        "|",
        ".",
        " is ",
        " not ",
        " if ",
        "loop",
        "{% generation %}",
        "{% endfor %}",
        "{% raw %}",
        "é",
        "\\",
        "\\x",
        "\0",
        "**",
        "//",
        "1e999",
        "99999999999999999999999999999999999999999",
        "0x",
        "~",
        ",",
        ":",
        "=",
        "%}{%",
    ];
    let (mut rendered, mut refused) = (0, 0);
    for round in 0..4000 {
        let mut text: Vec<char> = sources[round % sources.len()].chars().collect();
        for _ in 0..=below(4) {
            let (at, length) = (below(text.len()), below(12));
            let end = (at + length).min(text.len());
            match below(3) {
                0 => drop(text.drain(at..end)),
                1 => {
                    let copy: Vec<char> = text[at..end].to_vec();
                    let to = below(text.len());
                    text.splice(to..to, copy);
                }
                _ => drop(text.splice(at..at, pieces[below(pieces.len())].chars())),
            }
        }
        let text: String = text.into_iter().collect();
        let messages = [Message::new(Role::User, "hi"), Message::new(Role::Assistant, "ho")];
        match ChatTemplate::from_text(&text, "mangled", "<s>", "</s>").and_then(|t| t.render(&messages, true)) {
            Ok(_) => rendered += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(
        rendered > 100 && refused > 100,
        "{rendered} rendered, {refused} refused"
    );
}
