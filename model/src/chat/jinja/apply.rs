//! Filters and tests: which function a name stands for, and the filters that apply others.

use std::rc::Rc;

use minijinja::machinery::ast::{BinOpKind, CompareOpKind, Expr, Filter};

use super::args::{Args, needed, text};
use super::fault::{Fault, Result};
use super::statements::Machine;
use super::text::to_text;
use super::value::{PAIR, Value, equal};
use super::{filters, lists, methods, ops};

impl<'t> Machine<'t> {
    /// Applies a filter, or a chain of them, to a value that stands before them.
    pub fn filtered(&mut self, filter: &'t Expr<'t>, value: Value) -> Result<Value> {
        let Expr::Filter(filter) = filter else {
            return Err(Fault::wrong("expected a filter"));
        };
        // In a block the first filter of a chain has no value; in an expression it was taken already.
        let value = match &filter.expr {
            Some(inner @ Expr::Filter(first)) if innermost(first).is_none() => {
                self.meter.enter()?;
                let value = self.filtered(inner, value)?;
                self.meter.leave();
                value
            }
            _ => value,
        };
        let args = self.args(&filter.args)?;
        self.at(filter.span());
        self.filter(&value, filter.name, args)
    }

    fn filter(&mut self, value: &Value, name: &str, mut args: Args<'t>) -> Result<Value> {
        match name {
            "map" | "select" | "reject" | "selectattr" | "rejectattr" => {}
            _ => {
                self.meter.work(1)?;
                return filters::apply(value, name, args, &mut self.meter);
            }
        }
        let entries = value.entries(&mut self.meter)?;
        self.meter.make_many(entries.items.len(), PAIR)?;
        let mut out = Vec::new();
        if name == "map" {
            let named = |args: &Args<'t>, name: &str| {
                args.named
                    .iter()
                    .find(|(known, _)| *known == name)
                    .map(|(_, v)| v.clone())
            };
            if let Some(path) = named(&args, "attribute") {
                let default = named(&args, "default");
                for item in &entries.items {
                    let found = lists::attribute(item, &path, &mut self.meter)?;
                    out.push(match (&found, &default) {
                        (Value::Undefined(_), Some(default)) => default.clone(),
                        _ => found,
                    });
                }
            } else {
                let filter = taken_name(&mut args, name)?;
                for item in &entries.items {
                    let args = Args {
                        positional: args.positional.clone(),
                        named: args.named.clone(),
                    };
                    self.meter.enter()?;
                    out.push(self.filter(item, &filter, args)?);
                    self.meter.leave();
                }
            }
            return Value::list(out, &mut self.meter);
        }
        let path = if name.ends_with("attr") {
            Some(needed(shift(&mut args), name, "attribute")?)
        } else {
            None
        };
        let test = if args.positional.is_empty() {
            None
        } else {
            Some(taken_name(&mut args, name)?)
        };
        let wanted = name.starts_with("select");
        for item in &entries.items {
            let key = path
                .as_ref()
                .map_or(Ok(item.clone()), |path| lists::attribute(item, path, &mut self.meter))?;
            let holds = match &test {
                None => key.is_true(),
                Some(test) => {
                    let args = Args {
                        positional: args.positional.clone(),
                        named: Vec::new(),
                    };
                    self.test(&key, test, args)?
                }
            };
            if holds == wanted {
                out.push(item.clone());
            }
        }
        Value::list(out, &mut self.meter)
    }

    /// `value is name(args)`.
    pub(super) fn test(&mut self, value: &Value, name: &str, args: Args<'t>) -> Result<bool> {
        use CompareOpKind as Op;
        self.meter.work(1 + args.positional.len())?;
        let compared = match name {
            "eq" | "equalto" | "==" => Some(Op::Eq),
            "ne" | "!=" => Some(Op::Ne),
            "lt" | "lessthan" | "<" => Some(Op::Lt),
            "le" | "<=" => Some(Op::Lte),
            "gt" | "greaterthan" | ">" => Some(Op::Gt),
            "ge" | ">=" => Some(Op::Gte),
            "in" => Some(Op::In),
            _ => None,
        };
        if let Some(op) = compared {
            let [other] = args.bind(name, ["other"])?;
            return ops::ordered(op, value, &needed(other, name, "other")?, &mut self.meter);
        }
        if name == "divisibleby" {
            let [by] = args.bind(name, ["num"])?;
            let rest = ops::binary(BinOpKind::Rem, value, &needed(by, name, "num")?, &mut self.meter)?;
            return equal(&rest, &Value::Int(0), &mut self.meter);
        }
        args.none(name)?;
        Ok(match name {
            "defined" => !matches!(value, Value::Undefined(_)),
            "undefined" => matches!(value, Value::Undefined(_)),
            "none" => matches!(value, Value::None),
            "boolean" => matches!(value, Value::Bool(_)),
            "true" => matches!(value, Value::Bool(true)),
            "false" => matches!(value, Value::Bool(false)),
            "integer" => matches!(value, Value::Int(_)),
            "float" => matches!(value, Value::Float(_)),
            "number" => value.as_float().is_some(),
            "string" => matches!(value, Value::Str(_)),
            "mapping" => matches!(value, Value::Dict(_)),
            "sequence" | "iterable" => matches!(
                value,
                Value::Str(_) | Value::List(_) | Value::Dict(_) | Value::Undefined(_)
            ),
            "callable" => matches!(value, Value::Macro(_) | Value::Function(_)),
            "odd" | "even" => {
                let x = value
                    .as_int()
                    .ok_or_else(|| Fault::wrong(format!("{} is neither odd nor even", value.kind())))?;
                (x % 2 == 0) == (name == "even")
            }
            "lower" => methods::is_kind(&to_text(value, &mut self.meter)?, "islower"),
            "upper" => methods::is_kind(&to_text(value, &mut self.meter)?, "isupper"),
            _ => return Err(Fault::wrong(format!("there is no test `{name}`"))),
        })
    }
}

/// The value at the beginning of a chain of filters.
fn innermost<'e, 't>(mut filter: &'e Filter<'t>) -> Option<&'e Expr<'t>> {
    loop {
        match &filter.expr {
            Some(Expr::Filter(inner)) => filter = inner,
            other => return other.as_ref(),
        }
    }
}

fn shift(args: &mut Args<'_>) -> Option<Value> {
    if args.positional.is_empty() {
        None
    } else {
        Some(args.positional.remove(0))
    }
}

/// The name of a filter or test, which is the next argument of `what`.
fn taken_name(args: &mut Args<'_>, what: &str) -> Result<Rc<str>> {
    let name = needed(shift(args), what, "name")?;
    text(name, what, "name")
}
