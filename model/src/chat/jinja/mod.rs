//! A Jinja that cannot run away: the parser of minijinja, and a machine that pays for everything it does.
//!
//! A template comes in a stranger's file and runs on the user's machine (CVE-2024-34359 was one that ran Python). A library for trusted
//! templates bounds the number of its instructions at most; `{% set s = s ~ s %}` doubles a text with each, and `'x' * 10 ** 9`
//! needs only one. So the tree that the parser makes is walked here, by a machine whose values are all its own:
//!
//! * **Memory.** Every text, list, dictionary and piece of output is paid for from one budget *before* it is made, and nothing is paid back
//!   (`Meter`): 24 MiB, and 64 bytes for each byte of the conversation. No operation makes anything on another way, so no template holds more, however it
//!   comes by it; with what vectors reserve and copies take on their way, the process grows by less than 64 MiB.
//! * **Time.** Each expression, statement, entry looked at and 16 bytes read or written are a step, of which there are 4 million and 64 for each byte of the
//!   conversation. There is no clock: the same template ends at the same place everywhere.
//! * **The stack.** Expressions, blocks and macro calls go 200 levels down together, lists and dictionaries 50. The parser bounds its own
//!   recursion except along chains (`a + a + …`, `elif`), which are counted in the tokens before it starts.
//! * **Reach.** There are no files, no other templates (`include`, `import`, `extends`, `block`), no Python objects: a method or an attribute is one of
//!   those listed in `methods`, `filters` and `lists`, or an error that names it. Only a namespace can be changed, and no
//!   value can hold one, so nothing refers to itself.
//!
//! `model/tests/chat_attacks` runs the attacks under an allocator that counts.
//!
//! What a template can use is what `transformers` gives it (`ImmutableSandboxedEnvironment` with `trim_blocks`, `lstrip_blocks`,
//! `loopcontrols` and its own `tojson`, `raise_exception`, `strftime_now` and `{% generation %}`), with Python's meaning of operators and
//! of a value as text. Not here, and refused by name: `call` blocks, recursive loops, `autoescape`, `*args`, `%` on strings and the
//! filters that no chat template uses.

mod apply;
mod args;
mod expressions;
pub(super) mod fault;
mod filters;
mod lists;
mod meter;
mod methods;
mod ops;
mod source;
mod statements;
#[cfg(test)]
mod tests;
mod text;
mod value;

use chrono::NaiveDateTime;
use minijinja::machinery::ast::Stmt;
use minijinja::syntax::SyntaxConfig;

use self::fault::{Fault, Result};
use self::meter::Meter;
use self::statements::Machine;
use self::value::Value;
use super::Message;

/// What a template is given.
pub(super) struct Given<'m> {
    pub messages: &'m [Message],
    pub add_generation_prompt: bool,
    pub bos_token: &'m str,
    pub eos_token: &'m str,
    /// For `strftime_now`.
    pub now: NaiveDateTime,
}

/// Checks that a text is a template.
pub(super) fn check(text: &str) -> Result<()> {
    let text = source::prepare(text)?;
    parse(&text).map(drop)
}

/// Renders a template.
pub(super) fn render(text: &str, given: &Given<'_>) -> Result<String> {
    let text = source::prepare(text)?;
    let tree = parse(&text)?;
    let Stmt::Template(template) = &tree else {
        return Err(Fault::wrong("the parser gave no template"));
    };
    let bytes = given.messages.iter().map(|m| m.content.len() + 64).sum();
    let mut meter = Meter::new(bytes);
    let globals = globals(given, &mut meter)?;
    Machine::new(meter, globals, given.now).run(&template.children)
}

fn parse(text: &str) -> Result<Stmt<'_>> {
    let parsed = minijinja::machinery::parse(text, "template", SyntaxConfig, source::WHITESPACE);
    parsed.map_err(|e| source::syntax(&e))
}

/// The variables that `transformers` gives.
fn globals(given: &Given<'_>, meter: &mut Meter) -> Result<Vec<(&'static str, Value)>> {
    let mut messages = Vec::with_capacity(given.messages.len());
    for message in given.messages {
        let pairs = [("role", message.role.name()), ("content", &*message.content)];
        let pairs: Result<Vec<_>> = pairs
            .into_iter()
            .map(|(name, text)| Ok((Value::text(name, meter)?, Value::text(text, meter)?)))
            .collect();
        messages.push(Value::dict(pairs?, meter)?);
    }
    let mut globals = vec![
        ("messages", Value::list(messages, meter)?),
        ("add_generation_prompt", Value::Bool(given.add_generation_prompt)),
        ("bos_token", Value::text(given.bos_token, meter)?),
        ("eos_token", Value::text(given.eos_token, meter)?),
        ("tools", Value::None),
        ("documents", Value::None),
    ];
    globals.extend(expressions::FUNCTIONS.map(|name| (name, Value::Function(name))));
    Ok(globals)
}
