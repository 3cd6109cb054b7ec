//! What a template computes with: the values of Python that a template can meet.

use std::cell::RefCell;
use std::rc::Rc;

use super::fault::{Fault, Result};
use super::meter::Meter;

/// Lists and dictionaries within one another. Comparing, printing and freeing a value goes down its levels.
const MAX_DEPTH: usize = 50;
/// Bytes that an entry of a list is counted as, and one of a dictionary or namespace.
pub(super) const ENTRY: usize = size_of::<Value>();
pub(super) const PAIR: usize = 2 * ENTRY;
/// Bytes that a string is counted as beside its text.
const HEADER: usize = 32;

/// A value. Clones share what is large.
#[derive(Clone)]
pub(super) enum Value {
    /// A name or an attribute that is not there; the name is for messages.
    Undefined(Option<Rc<str>>),
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(Rc<str>),
    /// A list or a tuple: nothing can change either.
    List(Rc<List>),
    Dict(Rc<Dict>),
    /// The one thing that can be changed. No other value can hold one, so that there are no cycles.
    Namespace(Rc<RefCell<Vec<(Rc<str>, Value)>>>),
    /// `loop`.
    Loop(Rc<LoopState>),
    /// A macro, by its number.
    Macro(usize),
    /// A function of the engine, by its name.
    Function(&'static str),
}

/// A list, or a tuple, which differs in how it is written, and how deep it goes.
pub(super) struct List {
    pub items: Vec<Value>,
    pub is_tuple: bool,
    depth: usize,
}

/// A dictionary in the order of its making, and how deep it goes.
pub(super) struct Dict {
    pub pairs: Vec<(Value, Value)>,
    depth: usize,
}

/// Where a loop is.
pub(super) struct LoopState {
    pub items: Rc<List>,
    pub index: usize,
    pub depth: usize,
}

impl Value {
    /// What the type is called, for messages.
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Undefined(_) => "an undefined value",
            Value::None => "none",
            Value::Bool(_) => "a boolean",
            Value::Int(_) => "an integer",
            Value::Float(_) => "a float",
            Value::Str(_) => "a string",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dictionary",
            Value::Namespace(_) => "a namespace",
            Value::Loop(_) => "a loop",
            Value::Macro(_) => "a macro",
            Value::Function(_) => "a function",
        }
    }

    /// A string, paid for.
    pub fn text(text: &str, meter: &mut Meter) -> Result<Self> {
        meter.make(HEADER + text.len())?;
        Ok(Value::Str(Rc::from(text)))
    }

    /// A list, whose entries are paid for here and not before.
    pub fn list(items: Vec<Value>, meter: &mut Meter) -> Result<Self> {
        Self::sequence(items, false, meter)
    }

    /// A tuple, likewise.
    pub fn tuple(items: Vec<Value>, meter: &mut Meter) -> Result<Self> {
        Self::sequence(items, true, meter)
    }

    fn sequence(items: Vec<Value>, is_tuple: bool, meter: &mut Meter) -> Result<Self> {
        meter.make(HEADER + 2 * ENTRY * items.len())?;
        let depth = 1 + deepest(&items)?;
        Ok(Value::List(Rc::new(List { items, is_tuple, depth })))
    }

    /// A dictionary; of equal keys the last counts, in the place of the first.
    pub fn dict(given: Vec<(Value, Value)>, meter: &mut Meter) -> Result<Self> {
        meter.make(HEADER + 2 * PAIR * given.len())?;
        let mut pairs: Vec<(Value, Value)> = Vec::with_capacity(given.len());
        for (key, value) in given {
            if !matches!(
                key,
                Value::Str(_) | Value::Int(_) | Value::Bool(_) | Value::Float(_) | Value::None
            ) {
                return Err(Fault::wrong(format!("{} cannot be a key", key.kind())));
            }
            match position(&pairs, &key, meter)? {
                Some(at) => pairs[at].1 = value,
                None => pairs.push((key, value)),
            }
        }
        let depth = 1 + pairs
            .iter()
            .map(|(_, value)| value)
            .try_fold(0, |most, value| depth(value).map(|d| most.max(d)))?;
        check_depth(depth)?;
        Ok(Value::Dict(Rc::new(Dict { pairs, depth })))
    }

    /// Whether Python takes it for true.
    pub fn is_true(&self) -> bool {
        match self {
            Value::Undefined(_) | Value::None => false,
            Value::Bool(x) => *x,
            Value::Int(x) => *x != 0,
            Value::Float(x) => *x != 0.0,
            Value::Str(x) => !x.is_empty(),
            Value::List(x) => !x.items.is_empty(),
            Value::Dict(x) => !x.pairs.is_empty(),
            Value::Namespace(_) | Value::Loop(_) | Value::Macro(_) | Value::Function(_) => true,
        }
    }

    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Str(text) => Some(text),
            _ => None,
        }
    }

    /// An integer; Python's booleans are integers.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Value::Int(x) => Some(*x),
            Value::Bool(x) => Some(i64::from(*x)),
            _ => None,
        }
    }

    /// A number.
    pub fn as_float(&self) -> Option<f64> {
        match self {
            Value::Float(x) => Some(*x),
            other => other.as_int().map(|x| x as f64),
        }
    }

    /// The entries that a loop goes through: those of a list, the keys of a dictionary, the characters of a string.
    pub fn entries(&self, meter: &mut Meter) -> Result<Rc<List>> {
        let items = match self {
            Value::List(list) => {
                meter.work(1)?;
                return Ok(list.clone());
            }
            Value::Undefined(_) => Vec::new(),
            Value::Dict(dict) => {
                meter.make_many(dict.pairs.len(), ENTRY)?;
                dict.pairs.iter().map(|(key, _)| key.clone()).collect()
            }
            Value::Str(text) => {
                meter.make_many(text.len(), HEADER + ENTRY)?;
                let mut buffer = [0; 4];
                text.chars()
                    .map(|c| Value::Str(Rc::from(&*c.encode_utf8(&mut buffer))))
                    .collect()
            }
            other => return Err(Fault::wrong(format!("{} has no entries to go through", other.kind()))),
        };
        let (is_tuple, depth) = (false, 1);
        Ok(Rc::new(List { items, is_tuple, depth }))
    }

    /// How many entries or characters.
    pub fn length(&self, meter: &mut Meter) -> Result<usize> {
        match self {
            Value::Undefined(_) => Ok(0),
            Value::Str(text) => {
                meter.read(text.len())?;
                Ok(text.chars().count())
            }
            Value::List(list) => Ok(list.items.len()),
            Value::Dict(dict) => Ok(dict.pairs.len()),
            other => Err(Fault::wrong(format!("{} has no length", other.kind()))),
        }
    }
}

/// Where a key stands.
pub(super) fn position(pairs: &[(Value, Value)], key: &Value, meter: &mut Meter) -> Result<Option<usize>> {
    for (at, (known, _)) in pairs.iter().enumerate() {
        if equal(known, key, meter)? {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

fn check_depth(depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Fault::Limit(format!(
            "its lists and dictionaries are nested deeper than {MAX_DEPTH} levels"
        )));
    }
    Ok(())
}

/// How deep a value goes: 0 for what holds no other. A namespace or a loop may be in none.
fn depth(value: &Value) -> Result<usize> {
    match value {
        Value::List(list) => Ok(list.depth),
        Value::Dict(dict) => Ok(dict.depth),
        Value::Namespace(_) | Value::Loop(_) => Err(Fault::wrong(format!(
            "{} cannot be kept in another value",
            value.kind()
        ))),
        _ => Ok(0),
    }
}

fn deepest(items: &[Value]) -> Result<usize> {
    let deepest = items
        .iter()
        .try_fold(0, |most, item| depth(item).map(|d| most.max(d)))?;
    check_depth(1 + deepest)?;
    Ok(deepest)
}

/// Checks that a namespace may hold a value.
pub(super) fn storable(value: &Value) -> Result<()> {
    depth(value).map(drop)
}

/// Python's `==`.
pub(super) fn equal(a: &Value, b: &Value, meter: &mut Meter) -> Result<bool> {
    meter.work(1)?;
    Ok(match (a, b) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            if a.len() == b.len() {
                meter.read(a.len())?;
            }
            a == b
        }
        (Value::List(a), Value::List(b)) => {
            if a.items.len() != b.items.len() {
                return Ok(false);
            }
            for (a, b) in a.items.iter().zip(&b.items) {
                if !equal(a, b, meter)? {
                    return Ok(false);
                }
            }
            true
        }
        (Value::Dict(a), Value::Dict(b)) => {
            if a.pairs.len() != b.pairs.len() {
                return Ok(false);
            }
            for (key, value) in &a.pairs {
                match position(&b.pairs, key, meter)? {
                    Some(at) if equal(value, &b.pairs[at].1, meter)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Value::Namespace(a), Value::Namespace(b)) => Rc::ptr_eq(a, b),
        (Value::Macro(a), Value::Macro(b)) => a == b,
        (Value::Function(a), Value::Function(b)) => a == b,
        _ => match (a.as_int(), b.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => matches!((a.as_float(), b.as_float()), (Some(a), Some(b)) if a == b),
        },
    })
}

/// Python's order of numbers, texts and lists.
pub(super) fn compare(a: &Value, b: &Value, meter: &mut Meter) -> Result<Option<std::cmp::Ordering>> {
    meter.work(1)?;
    if let (Some(a), Some(b)) = (a.as_int(), b.as_int()) {
        return Ok(Some(a.cmp(&b)));
    }
    if let (Some(a), Some(b)) = (a.as_float(), b.as_float()) {
        return Ok(a.partial_cmp(&b));
    }
    match (a, b) {
        (Value::Str(a), Value::Str(b)) => {
            meter.read(a.len().min(b.len()))?;
            Ok(Some(a.cmp(b)))
        }
        (Value::List(x), Value::List(y)) => {
            for (a, b) in x.items.iter().zip(&y.items) {
                if !equal(a, b, meter)? {
                    return compare(a, b, meter);
                }
            }
            Ok(Some(x.items.len().cmp(&y.items.len())))
        }
        _ => Err(Fault::wrong(format!("{} and {} have no order", a.kind(), b.kind()))),
    }
}
