//! The operators, with Python's meaning.

use minijinja::machinery::ast::{BinOpKind, CompareOpKind};

use super::fault::{Fault, Result};
use super::meter::Meter;
use super::text::Text;
use super::value::{ENTRY, Value, compare, equal, position};

/// `a op b`; `and` and `or` are not among them, because they need not look at `b`.
pub(super) fn binary(op: BinOpKind, a: &Value, b: &Value, meter: &mut Meter) -> Result<Value> {
    use BinOpKind as Op;
    let ordered = |op, meter: &mut Meter| ordered(op, a, b, meter).map(Value::Bool);
    match op {
        Op::Eq => ordered(CompareOpKind::Eq, meter),
        Op::Ne => ordered(CompareOpKind::Ne, meter),
        Op::Lt => ordered(CompareOpKind::Lt, meter),
        Op::Lte => ordered(CompareOpKind::Lte, meter),
        Op::Gt => ordered(CompareOpKind::Gt, meter),
        Op::Gte => ordered(CompareOpKind::Gte, meter),
        Op::In => ordered(CompareOpKind::In, meter),
        Op::Concat => {
            let mut text = Text::new(meter);
            text.str(a)?;
            text.str(b)?;
            let text = text.finish();
            Value::text(&text, meter)
        }
        Op::Add => add(a, b, meter),
        Op::Mul => multiply(a, b, meter),
        Op::Sub => number("-", a, b, i64::checked_sub, |a, b| a - b),
        Op::Div => match (a.as_float(), b.as_float()) {
            (Some(_), Some(0.0)) => Err(Fault::wrong("division by zero")),
            (Some(a), Some(b)) => Ok(Value::Float(a / b)),
            _ => Err(unsupported("/", a, b)),
        },
        Op::FloorDiv => {
            not_zero(b)?;
            number("//", a, b, floor_div, |a, b| (a / b).floor())
        }
        Op::Rem => {
            not_zero(b)?;
            let remainder = |a: i64, b: i64| {
                a.checked_rem(b)
                    .map(|r| if r != 0 && (r < 0) != (b < 0) { r + b } else { r })
            };
            number("%", a, b, remainder, |a, b| a - b * (a / b).floor())
        }
        Op::Pow => {
            let power = |a: i64, b: i64| u32::try_from(b).ok().and_then(|b| a.checked_pow(b));
            match b.as_int() {
                Some(n) if n < 0 => match a.as_float() {
                    Some(a) => Ok(Value::Float(a.powf(n as f64))),
                    None => Err(unsupported("**", a, b)),
                },
                _ => number("**", a, b, power, f64::powf),
            }
        }
        Op::ScAnd | Op::ScOr => Err(Fault::wrong("an operator without a value")),
    }
}

/// A comparison.
pub(super) fn ordered(op: CompareOpKind, a: &Value, b: &Value, meter: &mut Meter) -> Result<bool> {
    use CompareOpKind as Op;
    Ok(match op {
        Op::Eq => equal(a, b, meter)?,
        Op::Ne => !equal(a, b, meter)?,
        Op::Lt => compare(a, b, meter)?.is_some_and(|o| o.is_lt()),
        Op::Lte => compare(a, b, meter)?.is_some_and(|o| o.is_le()),
        Op::Gt => compare(a, b, meter)?.is_some_and(|o| o.is_gt()),
        Op::Gte => compare(a, b, meter)?.is_some_and(|o| o.is_ge()),
        Op::In => contains(b, a, meter)?,
        Op::NotIn => !contains(b, a, meter)?,
    })
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value, meter: &mut Meter) -> Result<bool> {
    match (container, item) {
        (Value::Str(text), Value::Str(part)) => {
            meter.read(text.len() + part.len())?;
            Ok(text.contains(&**part))
        }
        (Value::Undefined(_), _) => Ok(false),
        (Value::List(list), _) => {
            for known in &list.items {
                if equal(known, item, meter)? {
                    return Ok(true);
                }
            }
            Ok(false)
        }
        (Value::Dict(dict), _) => Ok(position(&dict.pairs, item, meter)?.is_some()),
        _ => Err(Fault::wrong(format!(
            "{} cannot be in {}",
            item.kind(),
            container.kind()
        ))),
    }
}

/// `-value`.
pub(super) fn negate(value: &Value) -> Result<Value> {
    match value {
        Value::Float(x) => Ok(Value::Float(-x)),
        other => match other.as_int().and_then(i64::checked_neg) {
            Some(x) => Ok(Value::Int(x)),
            None => Err(Fault::wrong(format!("{} has no negative", other.kind()))),
        },
    }
}

fn unsupported(op: &str, a: &Value, b: &Value) -> Fault {
    let name = [a, b].into_iter().find_map(|value| match value {
        Value::Undefined(Some(name)) => Some(format!("; `{name}` is not defined")),
        _ => None,
    });
    Fault::wrong(format!(
        "`{op}` cannot be applied to {} and {}{}",
        a.kind(),
        b.kind(),
        name.unwrap_or_default()
    ))
}

fn number(
    op: &str,
    a: &Value,
    b: &Value,
    integers: impl Fn(i64, i64) -> Option<i64>,
    floats: impl Fn(f64, f64) -> f64,
) -> Result<Value> {
    if let (Some(x), Some(y)) = (a.as_int(), b.as_int()) {
        let too_large = || Fault::Limit(format!("{x} {op} {y} is no integer of 64 bits"));
        return integers(x, y).map(Value::Int).ok_or_else(too_large);
    }
    match (a.as_float(), b.as_float()) {
        (Some(x), Some(y)) => Ok(Value::Float(floats(x, y))),
        _ => Err(unsupported(op, a, b)),
    }
}

fn floor_div(a: i64, b: i64) -> Option<i64> {
    let quotient = a.checked_div(b)?;
    Some(if a % b != 0 && (a < 0) != (b < 0) {
        quotient - 1
    } else {
        quotient
    })
}

fn not_zero(value: &Value) -> Result<()> {
    if value.as_float() == Some(0.0) {
        return Err(Fault::wrong("division by zero"));
    }
    Ok(())
}

fn add(a: &Value, b: &Value, meter: &mut Meter) -> Result<Value> {
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            meter.make(a.len() + b.len())?;
            Value::text(&[&**a, &**b].concat(), meter)
        }
        (Value::List(a), Value::List(b)) => {
            meter.make_many(a.items.len() + b.items.len(), ENTRY)?;
            Value::list(a.items.iter().chain(&b.items).cloned().collect(), meter)
        }
        _ => number("+", a, b, i64::checked_add, |a, b| a + b),
    }
}

fn multiply(a: &Value, b: &Value, meter: &mut Meter) -> Result<Value> {
    let (thing, times) = match (a, b) {
        (Value::Str(_) | Value::List(_), times) => (a, times),
        (times, Value::Str(_) | Value::List(_)) => (b, times),
        _ => return number("*", a, b, i64::checked_mul, |a, b| a * b),
    };
    let times = times.as_int().ok_or_else(|| unsupported("*", a, b))?;
    let times = usize::try_from(times.max(0)).unwrap_or(usize::MAX);
    match thing {
        Value::Str(text) => {
            meter.make_many(text.len(), times)?;
            Value::text(&text.repeat(if text.is_empty() { 0 } else { times }), meter)
        }
        Value::List(list) => {
            let length = list.items.len();
            meter.make_many(length.saturating_mul(times), ENTRY)?;
            let copies = if length == 0 { 0 } else { length * times };
            Value::list(list.items.iter().cycle().take(copies).cloned().collect(), meter)
        }
        _ => Err(unsupported("*", a, b)),
    }
}

/// `value[start:stop:step]`.
pub(super) fn slice(value: &Value, [start, stop, step]: [&Value; 3], meter: &mut Meter) -> Result<Value> {
    let bound = |value: &Value| match value {
        Value::None | Value::Undefined(_) => Ok(None),
        other => other
            .as_int()
            .map(Some)
            .ok_or_else(|| Fault::wrong(format!("a slice is bounded by integers, found {}", other.kind()))),
    };
    let (start, stop, step) = (bound(start)?, bound(stop)?, bound(step)?.unwrap_or(1));
    if step == 0 {
        return Err(Fault::wrong("a slice cannot go in steps of zero"));
    }
    match value {
        Value::List(list) => {
            let chosen = indices(list.items.len(), start, stop, step);
            meter.make_many(chosen.len(), ENTRY)?;
            Value::list(chosen.map(|i| list.items[i].clone()).collect(), meter)
        }
        Value::Str(text) => {
            meter.make_many(text.len(), size_of::<char>())?;
            let chars: Vec<char> = text.chars().collect();
            let chosen: String = indices(chars.len(), start, stop, step).map(|i| chars[i]).collect();
            Value::text(&chosen, meter)
        }
        Value::Undefined(_) => Value::list(Vec::new(), meter),
        other => Err(Fault::wrong(format!("{} has no slices", other.kind()))),
    }
}

/// The indices of Python's slice, all below `length`.
fn indices(length: usize, start: Option<i64>, stop: Option<i64>, step: i64) -> impl ExactSizeIterator<Item = usize> {
    let n = length as i64;
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let place = |given: Option<i64>, default: i64| match given {
        None => default,
        Some(i) if i < 0 => (i.saturating_add(n)).clamp(low, high),
        Some(i) => i.clamp(low, high),
    };
    let (from, to) = if step > 0 {
        (place(start, 0), place(stop, n))
    } else {
        (place(start, n - 1), place(stop, -1))
    };
    let distance = if step > 0 { to - from } else { from - to };
    let stride = step.unsigned_abs();
    let count = if distance > 0 {
        (distance as u64).div_ceil(stride)
    } else {
        0
    } as usize;
    (0..count).map(move |i| {
        let moved = i as i64 * step;
        (from + moved) as usize
    })
}
