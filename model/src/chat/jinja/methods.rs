//! The methods of Python's strings, lists and dictionaries.

use super::args::{Args, integer, needed, optional_text, text};
use super::fault::{Fault, Result};
use super::meter::Meter;
use super::text::to_text;
use super::value::{ENTRY, Value, equal, position};

/// Bytes that changing the case of a byte can make.
const CASE: usize = 3;

/// `value.name(args)`.
pub(super) fn call(value: &Value, name: &str, args: Args<'_>, meter: &mut Meter) -> Result<Value> {
    match value {
        Value::Str(s) => of_string(s, name, args, meter),
        Value::Dict(dict) => match name {
            "items" | "keys" | "values" => {
                args.none(name)?;
                meter.make_many(dict.pairs.len(), ENTRY)?;
                let mut out = Vec::with_capacity(dict.pairs.len());
                for (key, value) in &dict.pairs {
                    out.push(match name {
                        "keys" => key.clone(),
                        "values" => value.clone(),
                        _ => Value::tuple(vec![key.clone(), value.clone()], meter)?,
                    });
                }
                Value::list(out, meter)
            }
            "get" => {
                let [key, default] = args.bind(name, ["key", "default"])?;
                let key = needed(key, name, "key")?;
                Ok(match position(&dict.pairs, &key, meter)? {
                    Some(at) => dict.pairs[at].1.clone(),
                    None => default.unwrap_or(Value::None),
                })
            }
            _ => Err(unknown(value, name)),
        },
        Value::List(list) => match name {
            "count" | "index" => {
                let [wanted] = args.bind(name, ["value"])?;
                let wanted = needed(wanted, name, "value")?;
                let mut count = 0;
                for (i, item) in list.items.iter().enumerate() {
                    if equal(item, &wanted, meter)? {
                        if name == "index" {
                            return Ok(Value::Int(i as i64));
                        }
                        count += 1;
                    }
                }
                match name {
                    "index" => Err(Fault::wrong("`index`: the value is not in the list")),
                    _ => Ok(Value::Int(count)),
                }
            }
            _ => Err(unknown(value, name)),
        },
        Value::Loop(state) if name == "cycle" => {
            let count = args.positional.len();
            if count == 0 {
                return Err(Fault::wrong("`cycle` needs at least one value"));
            }
            Ok(args.positional[state.index % count].clone())
        }
        Value::Undefined(Some(what)) => Err(Fault::wrong(format!("`{what}` is not defined"))),
        _ => Err(unknown(value, name)),
    }
}

fn unknown(value: &Value, name: &str) -> Fault {
    let because = match (value, name) {
        (Value::List(_), "append" | "extend" | "insert" | "pop" | "remove" | "clear" | "sort" | "reverse")
        | (Value::Dict(_), "update" | "pop" | "setdefault" | "clear" | "popitem") => {
            "; a template may not change values, `a + [b]` makes a new one"
        }
        _ => "",
    };
    Fault::wrong(format!("{} has no method `{name}`{because}", value.kind()))
}

/// White space as Python's strings see it.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

/// Strips characters from the ends that are asked for.
pub(super) fn strip<'s>(
    s: &'s str,
    chars: Option<&str>,
    [left, right]: [bool; 2],
    meter: &mut Meter,
) -> Result<&'s str> {
    meter.read(s.len())?;
    // Each character of the text may be compared with all that are given.
    meter.work(
        s.len()
            .min(1 + s.len() / 16)
            .saturating_mul(chars.map_or(1, |chars| chars.len().max(1))),
    )?;
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let mut out = s;
    if left {
        out = out.trim_start_matches(goes);
    }
    if right {
        out = out.trim_end_matches(goes);
    }
    Ok(out)
}

fn of_string(s: &str, name: &str, args: Args<'_>, meter: &mut Meter) -> Result<Value> {
    meter.read(s.len())?;
    match name {
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = args.bind(name, ["chars"])?;
            let chars = optional_text(chars, name, "chars")?;
            let sides = [name != "rstrip", name != "lstrip"];
            let out = strip(s, chars.as_deref(), sides, meter)?;
            Value::text(out, meter)
        }
        "upper" | "lower" | "title" | "capitalize" => {
            args.none(name)?;
            changed_case(s, name, meter)
        }
        "startswith" | "endswith" => {
            let [given] = args.bind(name, ["prefix"])?;
            let given = needed(given, name, "prefix")?;
            let any = match given {
                Value::List(list) => list.items.clone(),
                one => vec![one],
            };
            for part in any {
                let part = text(part, name, "prefix")?;
                meter.read(part.len())?;
                if if name == "startswith" {
                    s.starts_with(&*part)
                } else {
                    s.ends_with(&*part)
                } {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        "removeprefix" | "removesuffix" => {
            let [part] = args.bind(name, ["part"])?;
            let part = text(needed(part, name, "part")?, name, "part")?;
            let cut = if name == "removeprefix" {
                s.strip_prefix(&*part)
            } else {
                s.strip_suffix(&*part)
            };
            Value::text(cut.unwrap_or(s), meter)
        }
        "split" | "rsplit" => {
            let [separator, most] = args.bind(name, ["sep", "maxsplit"])?;
            split(s, name, separator, integer(most, -1, name, "maxsplit")?, meter)
        }
        "splitlines" => {
            args.none(name)?;
            strings(&lines(s, meter)?, meter)
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let old = text(needed(old, name, "old")?, name, "old")?;
            let new = text(needed(new, name, "new")?, name, "new")?;
            replace(s, &old, &new, integer(count, -1, name, "count")?, meter)
        }
        "find" | "rfind" | "index" | "count" => {
            let [part] = args.bind(name, ["sub"])?;
            let part = text(needed(part, name, "sub")?, name, "sub")?;
            if name == "count" {
                let count = if part.is_empty() {
                    s.chars().count() + 1
                } else {
                    s.matches(&*part).count()
                };
                return Ok(Value::Int(count as i64));
            }
            let at = if name == "rfind" {
                s.rfind(&*part)
            } else {
                s.find(&*part)
            };
            match at {
                Some(at) => Ok(Value::Int(s[..at].chars().count() as i64)),
                None if name == "index" => Err(Fault::wrong("`index`: the text is not in the string")),
                None => Ok(Value::Int(-1)),
            }
        }
        "join" => {
            let [items] = args.bind(name, ["iterable"])?;
            let items = needed(items, name, "iterable")?.entries(meter)?;
            if let Some(other) = items.items.iter().find(|item| item.as_str().is_none()) {
                return Err(Fault::wrong(format!(
                    "`join`: expected strings, found {}",
                    other.kind()
                )));
            }
            join(&items.items, s, meter)
        }
        "isdigit" | "isnumeric" | "isdecimal" | "isalpha" | "isalnum" | "isspace" | "isupper" | "islower" => {
            args.none(name)?;
            Ok(Value::Bool(is_kind(s, name)))
        }
        _ => Err(unknown(&Value::Str("".into()), name)),
    }
}

/// Whether a text is what a method such as `isupper` asks.
pub(super) fn is_kind(s: &str, name: &str) -> bool {
    let all = |f: fn(char) -> bool| !s.is_empty() && s.chars().all(f);
    match name {
        "isalpha" => all(char::is_alphabetic),
        "isalnum" => all(char::is_alphanumeric),
        "isspace" => all(is_space),
        "isupper" => s.chars().any(char::is_uppercase) && !s.chars().any(char::is_lowercase),
        "islower" => s.chars().any(char::is_lowercase) && !s.chars().any(char::is_uppercase),
        _ => all(char::is_numeric),
    }
}

/// `upper`, `lower`, `title` and `capitalize`.
pub(super) fn changed_case(s: &str, name: &str, meter: &mut Meter) -> Result<Value> {
    meter.make_many(s.len(), CASE)?;
    let out = match name {
        "upper" => s.to_uppercase(),
        "lower" => s.to_lowercase(),
        "capitalize" => {
            let mut chars = s.chars();
            let first: String = chars.next().into_iter().flat_map(char::to_uppercase).collect();
            first + &chars.as_str().to_lowercase()
        }
        _ => {
            let mut out = String::with_capacity(s.len());
            let mut within = false;
            for c in s.chars() {
                if within {
                    out.extend(c.to_lowercase())
                } else {
                    out.extend(c.to_uppercase())
                }
                within = c.is_alphabetic();
            }
            out
        }
    };
    Value::text(&out, meter)
}

/// A list of strings.
fn strings(parts: &[&str], meter: &mut Meter) -> Result<Value> {
    meter.make_many(parts.len(), ENTRY)?;
    let items: Result<Vec<Value>> = parts.iter().map(|part| Value::text(part, meter)).collect();
    Value::list(items?, meter)
}

fn split(s: &str, name: &str, separator: Option<Value>, most: i64, meter: &mut Meter) -> Result<Value> {
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let mut parts: Vec<&str> = match optional_text(separator, name, "sep")? {
        None => {
            meter.make_many(1 + s.matches(is_space).count(), 2 * size_of::<&str>())?;
            let mut parts = Vec::new();
            let mut rest = s.trim_matches(is_space);
            while !rest.is_empty() && parts.len() < most {
                let found = if name == "split" {
                    rest.find(is_space)
                } else {
                    rest.rfind(is_space)
                };
                let Some(at) = found else { break };
                let (part, more) = if name == "split" {
                    (&rest[..at], rest[at..].trim_start_matches(is_space))
                } else {
                    let width = rest[at..].chars().next().map_or(0, char::len_utf8);
                    (&rest[at + width..], rest[..at].trim_end_matches(is_space))
                };
                parts.push(part);
                rest = more;
            }
            if !rest.is_empty() {
                parts.push(rest);
            }
            parts
        }
        Some(separator) => {
            if separator.is_empty() {
                return Err(Fault::wrong(format!("`{name}`: the separator is empty")));
            }
            meter.make_many(1 + s.matches(&*separator).count(), 2 * size_of::<&str>())?;
            match name {
                "split" => s.splitn(most.saturating_add(1), &*separator).collect(),
                _ => s.rsplitn(most.saturating_add(1), &*separator).collect(),
            }
        }
    };
    if name == "rsplit" {
        parts.reverse();
    }
    strings(&parts, meter)
}

/// Python's lines, without their ends.
pub(super) fn lines<'s>(s: &'s str, meter: &mut Meter) -> Result<Vec<&'s str>> {
    let ends = |c: char| {
        matches!(
            c,
            '\n' | '\r' | '\u{b}' | '\u{c}' | '\u{1c}'..='\u{1e}' | '\u{85}' | '\u{2028}' | '\u{2029}'
        )
    };
    meter.make_many(1 + s.matches(ends).count(), 2 * size_of::<&str>())?;
    let mut out = Vec::new();
    let mut rest = s;
    while let Some(at) = rest.find(ends) {
        out.push(&rest[..at]);
        let end = &rest[at..];
        let width = if end.starts_with("\r\n") {
            2
        } else {
            end.chars().next().map_or(1, char::len_utf8)
        };
        rest = &end[width..];
    }
    if !rest.is_empty() {
        out.push(rest);
    }
    Ok(out)
}

/// Replaces at most `count` times, any number of times if that is negative.
pub(super) fn replace(s: &str, old: &str, new: &str, count: i64, meter: &mut Meter) -> Result<Value> {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let found = if old.is_empty() {
        s.chars().count() + 1
    } else {
        s.matches(old).count()
    };
    meter.read(s.len())?;
    meter.make(2 * (s.len().saturating_add(found.min(count).saturating_mul(new.len()))))?;
    Value::text(&s.replacen(old, new, count), meter)
}

/// Texts with a separator between.
pub(super) fn join(items: &[Value], separator: &str, meter: &mut Meter) -> Result<Value> {
    let mut out = String::new();
    for (i, item) in items.iter().enumerate() {
        let text = to_text(item, meter)?;
        let between = if i > 0 { separator } else { "" };
        meter.make(2 * (between.len() + text.len()))?;
        out.push_str(between);
        out.push_str(&text);
    }
    Value::text(&out, meter)
}
