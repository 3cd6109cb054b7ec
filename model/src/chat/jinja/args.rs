//! Arguments of functions, filters and methods.

use std::rc::Rc;

use super::fault::{Fault, Result};
use super::value::Value;

/// What a call gives.
#[derive(Default)]
pub(super) struct Args<'a> {
    pub positional: Vec<Value>,
    pub named: Vec<(&'a str, Value)>,
}

impl Args<'_> {
    /// The values of `names`, given by position or by name.
    pub fn bind<const N: usize>(self, what: &str, names: [&str; N]) -> Result<[Option<Value>; N]> {
        let mut values = [const { None }; N];
        if self.positional.len() > N {
            return Err(Fault::wrong(format!(
                "`{what}` takes {N} arguments at most, found {}",
                self.positional.len()
            )));
        }
        for (slot, value) in values.iter_mut().zip(self.positional) {
            *slot = Some(value);
        }
        for (name, value) in self.named {
            let slot = names.iter().position(|known| *known == name);
            let slot = slot.ok_or_else(|| Fault::wrong(format!("`{what}` has no argument `{name}`")))?;
            if values[slot].is_some() {
                return Err(Fault::wrong(format!("`{what}` is given `{name}` twice")));
            }
            values[slot] = Some(value);
        }
        Ok(values)
    }

    /// No arguments at all.
    pub fn none(self, what: &str) -> Result<()> {
        self.bind::<0>(what, []).map(drop)
    }
}

/// An argument that must be there.
pub(super) fn needed(value: Option<Value>, what: &str, name: &str) -> Result<Value> {
    value.ok_or_else(|| Fault::wrong(format!("`{what}` needs the argument `{name}`")))
}

/// A text.
pub(super) fn text(value: Value, what: &str, name: &str) -> Result<Rc<str>> {
    match value {
        Value::Str(text) => Ok(text),
        other => Err(Fault::wrong(format!(
            "`{what}`: `{name}` is {}, expected a string",
            other.kind()
        ))),
    }
}

/// A text, or nothing where it is not given or none.
pub(super) fn optional_text(value: Option<Value>, what: &str, name: &str) -> Result<Option<Rc<str>>> {
    match value {
        None | Some(Value::None) => Ok(None),
        Some(value) => text(value, what, name).map(Some),
    }
}

/// An integer, `default` where it is not given or none.
pub(super) fn integer(value: Option<Value>, default: i64, what: &str, name: &str) -> Result<i64> {
    match value {
        None | Some(Value::None) => Ok(default),
        Some(value) => value
            .as_int()
            .ok_or_else(|| Fault::wrong(format!("`{what}`: `{name}` is {}, expected an integer", value.kind()))),
    }
}

/// Whether a flag is given and true.
pub(super) fn flag(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}
