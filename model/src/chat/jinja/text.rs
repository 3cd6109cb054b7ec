//! Values as text: Python's `str` and `repr`, and JSON as `transformers` writes it.

use std::fmt::Write;

use super::fault::{Fault, Result};
use super::meter::Meter;
use super::value::Value;

/// A text that grows and is paid for as it does.
pub(super) struct Text<'m> {
    text: String,
    meter: &'m mut Meter,
}

impl<'m> Text<'m> {
    pub fn new(meter: &'m mut Meter) -> Self {
        Self {
            text: String::new(),
            meter,
        }
    }

    /// Appends. A string that grows may be copied to twice the room.
    pub fn push(&mut self, piece: &str) -> Result<()> {
        self.meter.make(2 * piece.len())?;
        self.text.push_str(piece);
        Ok(())
    }

    pub fn finish(self) -> String {
        self.text
    }

    /// Python's `str(value)`.
    pub fn str(&mut self, value: &Value) -> Result<()> {
        match value {
            Value::Undefined(_) => Ok(()),
            Value::Str(text) => self.push(text),
            other => self.repr(other),
        }
    }

    /// Python's `repr(value)`.
    fn repr(&mut self, value: &Value) -> Result<()> {
        self.meter.work(1)?;
        match value {
            Value::Undefined(_) => self.push("Undefined"),
            Value::None => self.push("None"),
            Value::Bool(true) => self.push("True"),
            Value::Bool(false) => self.push("False"),
            Value::Int(x) => self.push(&x.to_string()),
            Value::Float(x) => self.push(&float(*x, ["inf", "-inf", "nan"])),
            Value::Str(text) => self.quoted(text),
            Value::List(list) => {
                self.push(if list.is_tuple { "(" } else { "[" })?;
                for (i, item) in list.items.iter().enumerate() {
                    self.push(if i > 0 { ", " } else { "" })?;
                    self.repr(item)?;
                }
                self.push(match (list.is_tuple, list.items.len()) {
                    (true, 1) => ",)",
                    (true, _) => ")",
                    _ => "]",
                })
            }
            Value::Dict(dict) => {
                self.push("{")?;
                for (i, (key, value)) in dict.pairs.iter().enumerate() {
                    self.push(if i > 0 { ", " } else { "" })?;
                    self.repr(key)?;
                    self.push(": ")?;
                    self.repr(value)?;
                }
                self.push("}")
            }
            other => Err(Fault::wrong(format!("{} cannot be written as text", other.kind()))),
        }
    }

    /// Python quotes with the sign that does not occur.
    fn quoted(&mut self, text: &str) -> Result<()> {
        self.meter.read(text.len())?;
        let quote = if text.contains('\'') && !text.contains('"') {
            "\""
        } else {
            "'"
        };
        self.push(quote)?;
        let mut buffer = String::new();
        for c in text.chars() {
            buffer.clear();
            match c {
                '\\' => buffer.push_str("\\\\"),
                '\n' => buffer.push_str("\\n"),
                '\r' => buffer.push_str("\\r"),
                '\t' => buffer.push_str("\\t"),
                '\'' if quote == "'" => buffer.push_str("\\'"),
                c if (c as u32) < 0x20 || (0x7f..0xa1).contains(&(c as u32)) => {
                    let _ = write!(buffer, "\\x{:02x}", c as u32);
                }
                c => buffer.push(c),
            }
            self.push(&buffer)?;
        }
        self.push(quote)
    }

    /// `json.dumps(value, ensure_ascii=False, …)`.
    pub fn json(&mut self, value: &Value, style: &JsonStyle, level: usize) -> Result<()> {
        self.meter.work(1)?;
        match value {
            Value::None => self.push("null"),
            Value::Bool(x) => self.push(if *x { "true" } else { "false" }),
            Value::Int(x) => self.push(&x.to_string()),
            Value::Float(x) => self.push(&float(*x, ["Infinity", "-Infinity", "NaN"])),
            Value::Str(text) => self.json_string(text),
            Value::List(list) => {
                if list.items.is_empty() {
                    return self.push("[]");
                }
                self.push("[")?;
                for (i, item) in list.items.iter().enumerate() {
                    self.json_break(i, style, level + 1)?;
                    self.json(item, style, level + 1)?;
                }
                self.json_close("]", style, level)
            }
            Value::Dict(dict) => {
                if dict.pairs.is_empty() {
                    return self.push("{}");
                }
                let mut pairs: Vec<&(Value, Value)> = dict.pairs.iter().collect();
                if style.sort_keys {
                    self.meter.work(pairs.len().saturating_mul(32))?;
                    pairs.sort_by(|a, b| a.0.as_str().cmp(&b.0.as_str()));
                }
                self.push("{")?;
                for (i, (key, value)) in pairs.into_iter().enumerate() {
                    self.json_break(i, style, level + 1)?;
                    match key {
                        Value::Str(text) => self.json_string(text)?,
                        other => {
                            self.push("\"")?;
                            self.json(other, style, level)?;
                            self.push("\"")?;
                        }
                    }
                    self.push(&style.after_key)?;
                    self.json(value, style, level + 1)?;
                }
                self.json_close("}", style, level)
            }
            other => Err(Fault::wrong(format!("{} cannot be written as JSON", other.kind()))),
        }
    }

    fn json_break(&mut self, index: usize, style: &JsonStyle, level: usize) -> Result<()> {
        if index > 0 {
            self.push(&style.between)?;
        }
        self.json_indent(style, level)
    }

    fn json_close(&mut self, bracket: &str, style: &JsonStyle, level: usize) -> Result<()> {
        self.json_indent(style, level)?;
        self.push(bracket)
    }

    fn json_indent(&mut self, style: &JsonStyle, level: usize) -> Result<()> {
        let Some(indent) = &style.indent else { return Ok(()) };
        self.push("\n")?;
        (0..level).try_for_each(|_| self.push(indent))
    }

    fn json_string(&mut self, text: &str) -> Result<()> {
        // What escapes a text makes it six times as long at most.
        self.meter.make_many(text.len() + 2, 6)?;
        let text = serde_json::to_string(text).map_err(|e| Fault::wrong(e.to_string()))?;
        // JSON needs no escape for DEL, and Python gives it none either.
        self.push(&text)
    }
}

/// How JSON is laid out.
pub(super) struct JsonStyle {
    pub indent: Option<String>,
    pub between: String,
    pub after_key: String,
    pub sort_keys: bool,
}

/// A float as Python writes it: the shortest digits that give it back, and an exponent from 1e16 and below 1e-4.
fn float(x: f64, [infinity, minus_infinity, nan]: [&str; 3]) -> String {
    if x.is_nan() {
        return nan.to_string();
    }
    if x.is_infinite() {
        return if x > 0.0 { infinity } else { minus_infinity }.to_string();
    }
    let magnitude = x.abs();
    if magnitude != 0.0 && !(1e-4..1e16).contains(&magnitude) {
        let text = format!("{x:e}");
        let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, exponent) = match exponent.strip_prefix('-') {
            Some(exponent) => ('-', exponent),
            None => ('+', exponent),
        };
        return format!("{digits}e{sign}{exponent:0>2}");
    }
    let text = format!("{x}");
    if text.contains('.') { text } else { text + ".0" }
}

/// Python's `str(value)`, paid for.
pub(super) fn to_text(value: &Value, meter: &mut Meter) -> Result<String> {
    let mut text = Text::new(meter);
    text.str(value)?;
    Ok(text.finish())
}
