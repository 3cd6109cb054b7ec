//! Templates that mean harm end in a named error, within 64 MiB of memory and a small stack.

#[path = "../common/counting.rs"]
mod counting;

mod mangled;
mod memory;
mod nesting;
mod reach;
mod work;

use counting::peak_of;
use onebit_model::chat::{ChatError, ChatTemplate, Message, Role};

/// Most that a template may hold at once, in bytes, whatever it does.
const MOST: usize = 64 << 20;
/// The stack of the smallest threads that programs usually have.
const STACK: usize = 2 << 20;

/// How an attack must end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum End {
    /// A bound is named.
    Limit,
    /// What it uses is refused by name.
    Refused,
    /// It is harmless here.
    Done,
}

/// Renders on a thread with a small stack; returns the result and the most that it held.
fn run(text: &str, content: &str) -> (Result<String, ChatError>, usize) {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK);
        let work = thread.spawn_scoped(scope, || {
            let messages = [Message::new(Role::User, content)];
            peak_of(|| ChatTemplate::from_text(text, "attack", "<s>", "</s>").and_then(|t| t.render(&messages, true)))
        });
        work.unwrap().join().unwrap()
    })
}

fn check(text: &str, end: End) {
    let shown: String = text.chars().take(120).collect();
    let (result, held) = run(text, "hello");
    assert!(held < MOST, "{shown}: held {held} bytes");
    let found = match &result {
        Ok(_) => End::Done,
        Err(ChatError::Limit { .. }) => End::Limit,
        Err(ChatError::Template { .. }) => End::Refused,
        Err(other) => panic!("{shown}: {other}"),
    };
    assert_eq!(found, end, "{shown}: {:?}", result.map(|text| text.len()));
    if let Err(error) = result {
        let message = error.to_string();
        assert!(message.len() < 1000 && !message.contains('\n'), "{message}");
    }
}

/// A loop around `body` with room to do harm.
fn often(before: &str, body: &str) -> String {
    format!("{before}{{% for i in range(100000) %}}{body}{{% endfor %}}")
}

#[test]
fn an_error_says_what_where_and_why() {
    let (result, _) = run("line\n{{ 'x' * 10 ** 9 }}", "");
    let message = result.unwrap_err().to_string();
    assert!(
        message.starts_with("chat template of attack: it makes more than the 24 MiB that a template may")
            && message.contains("(line 2)"),
        "{message}"
    );
    let (result, _) = run("{{ nothing.at.all }}", "");
    let message = result.unwrap_err().to_string();
    assert!(message.contains("`nothing` is not defined (line 1)"), "{message}");
}
