//! Filters on lists and dictionaries that need no other filter.

use std::cmp::Ordering;
use std::rc::Rc;

use minijinja::machinery::ast::BinOpKind;

use super::args::{Args, flag, integer};
use super::fault::{Fault, Result};
use super::meter::Meter;
use super::value::{ENTRY, Value, compare, equal, position};
use super::{methods, ops};

/// `value|name(args)`, the last place where a filter may be.
pub(super) fn apply(value: &Value, name: &str, args: Args<'_>, meter: &mut Meter) -> Result<Value> {
    Ok(match name {
        "length" | "count" => {
            args.none(name)?;
            Value::Int(value.length(meter)? as i64)
        }
        "list" => {
            args.none(name)?;
            let entries = value.entries(meter)?;
            Value::list(copied(&entries.items, meter)?, meter)?
        }
        "items" => {
            args.none(name)?;
            match value {
                Value::Undefined(_) => Value::list(Vec::new(), meter)?,
                value => methods::call(value, name, Args::default(), meter)?,
            }
        }
        "first" | "last" => {
            args.none(name)?;
            let entries = value.entries(meter)?;
            let found = if name == "first" {
                entries.items.first()
            } else {
                entries.items.last()
            };
            found.cloned().unwrap_or(Value::Undefined(None))
        }
        "reverse" => {
            args.none(name)?;
            if let Value::Str(s) = value {
                meter.make(s.len())?;
                let reversed: String = s.chars().rev().collect();
                Value::text(&reversed, meter)?
            } else {
                let entries = value.entries(meter)?;
                let mut items = copied(&entries.items, meter)?;
                items.reverse();
                Value::list(items, meter)?
            }
        }
        "join" => {
            let [separator, attribute] = args.bind(name, ["d", "attribute"])?;
            let separator = separator.as_ref().map_or(Ok(""), |s| {
                s.as_str().ok_or_else(|| Fault::wrong("`join`: `d` must be a string"))
            })?;
            let entries = value.entries(meter)?;
            match attribute {
                None => methods::join(&entries.items, separator, meter)?,
                Some(path) => methods::join(&keys(&entries.items, Some(&path), meter)?, separator, meter)?,
            }
        }
        "sum" => {
            let [attribute, start] = args.bind(name, ["attribute", "start"])?;
            let entries = value.entries(meter)?;
            let mut sum = start.unwrap_or(Value::Int(0));
            for item in keys(&entries.items, attribute.as_ref(), meter)? {
                sum = ops::binary(BinOpKind::Add, &sum, &item, meter)?;
            }
            sum
        }
        "min" | "max" => {
            let [sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let entries = value.entries(meter)?;
            let keys = ordering_keys(&entries.items, attribute.as_ref(), &sensitive, meter)?;
            let wanted = if name == "min" {
                Ordering::Less
            } else {
                Ordering::Greater
            };
            let mut best = None;
            for i in 0..keys.len() {
                if best.map_or(Ok(true), |best: usize| {
                    compare(&keys[i], &keys[best], meter).map(|o| o == Some(wanted))
                })? {
                    best = Some(i);
                }
            }
            best.map_or(Value::Undefined(None), |i| entries.items[i].clone())
        }
        "sort" => {
            let [reverse, sensitive, attribute] = args.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let entries = value.entries(meter)?;
            let keys = ordering_keys(&entries.items, attribute.as_ref(), &sensitive, meter)?;
            sorted(&entries.items, &keys, flag(&reverse), meter)?
        }
        "dictsort" => {
            let [sensitive, by, reverse] = args.bind(name, ["case_sensitive", "by", "reverse"])?;
            let pairs = methods::call(value, "items", Args::default(), meter)?.entries(meter)?;
            let by = match by.as_ref().map_or(Some("key"), Value::as_str) {
                Some("key") => Value::Int(0),
                Some("value") => Value::Int(1),
                _ => return Err(Fault::wrong("`dictsort`: `by` must be key or value")),
            };
            let keys = ordering_keys(&pairs.items, Some(&by), &sensitive, meter)?;
            sorted(&pairs.items, &keys, flag(&reverse), meter)?
        }
        "unique" => {
            let [sensitive, attribute] = args.bind(name, ["case_sensitive", "attribute"])?;
            let entries = value.entries(meter)?;
            let keys = ordering_keys(&entries.items, attribute.as_ref(), &sensitive, meter)?;
            let mut kept: Vec<usize> = Vec::new();
            'next: for i in 0..keys.len() {
                for &before in &kept {
                    if equal(&keys[before], &keys[i], meter)? {
                        continue 'next;
                    }
                }
                meter.make(size_of::<usize>())?;
                kept.push(i);
            }
            meter.make_many(kept.len(), ENTRY)?;
            Value::list(kept.into_iter().map(|i| entries.items[i].clone()).collect(), meter)?
        }
        _ => return Err(Fault::wrong(format!("there is no filter `{name}`"))),
    })
}

fn copied(items: &[Value], meter: &mut Meter) -> Result<Vec<Value>> {
    meter.make_many(items.len(), ENTRY)?;
    Ok(items.to_vec())
}

/// What each entry has under `path`: `"a.b"` or an index; the entries themselves without one.
fn keys(items: &[Value], path: Option<&Value>, meter: &mut Meter) -> Result<Vec<Value>> {
    let Some(path) = path else { return copied(items, meter) };
    meter.make_many(items.len(), ENTRY)?;
    items.iter().map(|item| attribute(item, path, meter)).collect()
}

/// What a value has under a path.
pub(super) fn attribute(value: &Value, path: &Value, meter: &mut Meter) -> Result<Value> {
    let Some(path) = path.as_str() else {
        return item(value, path, meter);
    };
    meter.read(path.len())?;
    let mut value = value.clone();
    for part in path.split('.') {
        let key = match part.parse() {
            Ok(index) => Value::Int(index),
            Err(_) => Value::text(part, meter)?,
        };
        value = item(&value, &key, meter)?;
    }
    Ok(value)
}

/// `value[key]`; what is not there is undefined.
pub(super) fn item(value: &Value, key: &Value, meter: &mut Meter) -> Result<Value> {
    let missing = || Value::Undefined(key.as_str().filter(|name| name.len() <= 64).map(Rc::from));
    let place = |length: usize| {
        let index = key.as_int()?;
        let index = if index < 0 {
            index.checked_add(length as i64)?
        } else {
            index
        };
        usize::try_from(index).ok()
    };
    Ok(match value {
        Value::Dict(dict) => match position(&dict.pairs, key, meter)? {
            Some(at) => dict.pairs[at].1.clone(),
            None => missing(),
        },
        Value::List(list) => place(list.items.len())
            .and_then(|at| list.items.get(at))
            .cloned()
            .unwrap_or_else(missing),
        Value::Str(s) if key.as_int().is_some() => {
            let length = value.length(meter)?;
            match place(length).and_then(|at| s.chars().nth(at)) {
                Some(c) => Value::text(c.encode_utf8(&mut [0; 4]), meter)?,
                None => missing(),
            }
        }
        Value::Namespace(space) => {
            let space = space.borrow();
            let found = key
                .as_str()
                .and_then(|name| space.iter().find(|(known, _)| **known == *name));
            found.map_or_else(missing, |(_, value)| value.clone())
        }
        Value::Loop(state) => {
            let length = state.items.items.len();
            let near = |at: Option<usize>| {
                at.and_then(|at| state.items.items.get(at))
                    .cloned()
                    .unwrap_or(Value::Undefined(None))
            };
            match key.as_str() {
                Some("index") => Value::Int(state.index as i64 + 1),
                Some("index0") => Value::Int(state.index as i64),
                Some("revindex") => Value::Int((length - state.index) as i64),
                Some("revindex0") => Value::Int((length - state.index) as i64 - 1),
                Some("length") => Value::Int(length as i64),
                Some("first") => Value::Bool(state.index == 0),
                Some("last") => Value::Bool(state.index + 1 == length),
                Some("depth") => Value::Int(state.depth as i64 + 1),
                Some("depth0") => Value::Int(state.depth as i64),
                Some("previtem") => near(state.index.checked_sub(1)),
                Some("nextitem") => near(Some(state.index + 1)),
                _ => missing(),
            }
        }
        Value::Undefined(Some(name)) => return Err(Fault::wrong(format!("`{name}` is not defined"))),
        Value::Undefined(None) => return Err(Fault::wrong("what is asked for is not defined")),
        _ => missing(),
    })
}

/// What entries are compared by: what they have under `path`, with texts in small letters unless their case counts.
fn ordering_keys(
    items: &[Value],
    path: Option<&Value>,
    sensitive: &Option<Value>,
    meter: &mut Meter,
) -> Result<Vec<Value>> {
    let keys = keys(items, path, meter)?;
    if flag(sensitive) {
        return Ok(keys);
    }
    let fold = |key: Value| match &key {
        Value::Str(s) => methods::changed_case(s, "lower", meter),
        _ => Ok(key),
    };
    keys.into_iter().map(fold).collect()
}

/// `items` in the order of `keys`, which are all texts or all numbers; equal ones keep their order.
fn sorted(items: &[Value], keys: &[Value], reverse: bool, meter: &mut Meter) -> Result<Value> {
    meter.make_many(items.len(), 2 * size_of::<usize>() + ENTRY)?;
    let rounds = items.len().checked_ilog2().unwrap_or(0) as usize + 1;
    let texts: Option<Vec<&str>> = keys.iter().map(Value::as_str).collect();
    let bytes = texts.iter().flatten().map(|text| text.len() + 16).sum::<usize>();
    meter.read(bytes.max(16 * items.len()).saturating_mul(rounds))?;
    let integers: Option<Vec<i64>> = keys.iter().map(Value::as_int).collect();
    let floats: Option<Vec<f64>> = keys.iter().map(Value::as_float).collect();
    let mut order: Vec<usize> = (0..items.len()).collect();
    let turned = |order: Ordering| if reverse { order.reverse() } else { order };
    if let Some(keys) = texts {
        order.sort_by(|&a, &b| turned(keys[a].cmp(keys[b])));
    } else if let Some(keys) = integers {
        order.sort_by(|&a, &b| turned(keys[a].cmp(&keys[b])));
    } else if let Some(keys) = floats {
        order.sort_by(|&a, &b| turned(keys[a].total_cmp(&keys[b])));
    } else {
        return Err(Fault::wrong(
            "only strings among strings and numbers among numbers can be sorted",
        ));
    }
    Value::list(order.into_iter().map(|i| items[i].clone()).collect(), meter)
}

/// `range(…)`.
pub(super) fn range(args: Args<'_>, meter: &mut Meter) -> Result<Value> {
    let [a, b, step] = args.bind("range", ["start", "stop", "step"])?;
    let step = integer(step, 1, "range", "step")?;
    let first = integer(a, 0, "range", "start")?;
    let (start, stop) = match b {
        Some(stop) => (first, integer(Some(stop), 0, "range", "stop")?),
        None => (0, first),
    };
    if step == 0 {
        return Err(Fault::wrong("`range`: the step is zero"));
    }
    let distance = if step > 0 {
        i128::from(stop) - i128::from(start)
    } else {
        i128::from(start) - i128::from(stop)
    };
    let count = if distance <= 0 {
        0
    } else {
        (distance as u128).div_ceil(u128::from(step.unsigned_abs()))
    };
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    meter.make_many(count, ENTRY)?;
    // None of these leaves the range of its bounds.
    let items = (0..count)
        .map(|i| Value::Int(start.wrapping_add(step.wrapping_mul(i as i64))))
        .collect();
    Value::list(items, meter)
}
