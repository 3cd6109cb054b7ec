//! Filters on texts and numbers; those on lists are in [`super::lists`].

use super::args::{Args, flag, integer, needed, optional_text};
use super::fault::{Fault, Result};
use super::lists;
use super::meter::Meter;
use super::methods::{changed_case, lines, replace, strip};
use super::text::{JsonStyle, Text, to_text};
use super::value::Value;

/// `value|name(args)`; filters that are not here are those on lists.
pub(super) fn apply(value: &Value, name: &str, args: Args<'_>, meter: &mut Meter) -> Result<Value> {
    Ok(match name {
        "trim" => {
            let [chars] = args.bind(name, ["chars"])?;
            let chars = optional_text(chars, name, "chars")?;
            let s = to_text(value, meter)?;
            let out = strip(&s, chars.as_deref(), [true, true], meter)?;
            Value::text(out, meter)?
        }
        "upper" | "lower" | "capitalize" => {
            args.none(name)?;
            changed_case(&to_text(value, meter)?, name, meter)?
        }
        "title" => {
            args.none(name)?;
            title(&to_text(value, meter)?, meter)?
        }
        "string" | "safe" => {
            args.none(name)?;
            Value::text(&to_text(value, meter)?, meter)?
        }
        "escape" | "e" => {
            args.none(name)?;
            let s = to_text(value, meter)?;
            let mut out = Text::new(meter);
            let mut buffer = [0; 4];
            for c in s.chars() {
                out.push(match c {
                    '&' => "&amp;",
                    '<' => "&lt;",
                    '>' => "&gt;",
                    '\'' => "&#39;",
                    '"' => "&#34;",
                    c => c.encode_utf8(&mut buffer),
                })?;
            }
            let out = out.finish();
            Value::text(&out, meter)?
        }
        "replace" => {
            let [old, new, count] = args.bind(name, ["old", "new", "count"])?;
            let (old, new) = (needed(old, name, "old")?, needed(new, name, "new")?);
            let (old, new) = (to_text(&old, meter)?, to_text(&new, meter)?);
            replace(
                &to_text(value, meter)?,
                &old,
                &new,
                integer(count, -1, name, "count")?,
                meter,
            )?
        }
        "indent" => {
            let [width, first, blank] = args.bind(name, ["width", "first", "blank"])?;
            indent(&to_text(value, meter)?, width, [flag(&first), flag(&blank)], meter)?
        }
        "wordcount" => {
            args.none(name)?;
            Value::Int(to_text(value, meter)?.split_whitespace().count() as i64)
        }
        "tojson" => {
            let [indent, separators, sort_keys] = args.bind(name, ["indent", "separators", "sort_keys"])?;
            tojson(value, indent, separators, flag(&sort_keys), meter)?
        }
        "default" | "d" => {
            let [default, boolean] = args.bind(name, ["default_value", "boolean"])?;
            let missing = matches!(value, Value::Undefined(_)) || flag(&boolean) && !value.is_true();
            if missing {
                default.unwrap_or(Value::Str("".into()))
            } else {
                value.clone()
            }
        }
        "abs" => {
            args.none(name)?;
            match value {
                Value::Float(x) => Value::Float(x.abs()),
                other => {
                    let x = other.as_int().and_then(i64::checked_abs);
                    Value::Int(x.ok_or_else(|| Fault::wrong(format!("`abs` of {}", other.kind())))?)
                }
            }
        }
        "int" => {
            let [default, base] = args.bind(name, ["default", "base"])?;
            let base = integer(base, 10, name, "base")?;
            to_int(value, base, meter)?.map_or_else(|| default.unwrap_or(Value::Int(0)), Value::Int)
        }
        "float" => {
            let [default] = args.bind(name, ["default"])?;
            let parsed = match value {
                Value::Str(s) => {
                    meter.read(s.len())?;
                    s.trim().parse().ok()
                }
                other => other.as_float(),
            };
            parsed.map_or_else(|| default.unwrap_or(Value::Float(0.0)), Value::Float)
        }
        "round" => {
            let [precision, method] = args.bind(name, ["precision", "method"])?;
            round(value, integer(precision, 0, name, "precision")?, method)?
        }
        _ => lists::apply(value, name, args, meter)?,
    })
}

/// Jinja's title: each word, also behind a hyphen or a bracket, begins with a capital.
fn title(s: &str, meter: &mut Meter) -> Result<Value> {
    meter.make_many(s.len(), 3)?;
    let mut out = String::with_capacity(s.len());
    let mut first = true;
    for c in s.chars() {
        if first {
            out.extend(c.to_uppercase())
        } else {
            out.extend(c.to_lowercase())
        }
        first = c.is_whitespace() || "-({[<".contains(c);
    }
    Value::text(&out, meter)
}

fn indent(s: &str, width: Option<Value>, [first, blank]: [bool; 2], meter: &mut Meter) -> Result<Value> {
    let margin = match width {
        Some(Value::Str(margin)) => margin.to_string(),
        width => {
            let width = usize::try_from(integer(width, 4, "indent", "width")?).unwrap_or(0);
            meter.make(width)?;
            " ".repeat(width)
        }
    };
    // As Jinja does: a last line without an end stays so, and one with an end has it restored.
    let s = format!("{s}\n");
    let parts = lines(&s, meter)?;
    let mut out = Text::new(meter);
    for (i, line) in parts.iter().enumerate() {
        out.push(if i > 0 { "\n" } else { "" })?;
        let indented = if i == 0 { first } else { blank || !line.is_empty() };
        out.push(if indented { &margin } else { "" })?;
        out.push(line)?;
    }
    let out = out.finish();
    Value::text(&out, meter)
}

fn tojson(
    value: &Value,
    indent: Option<Value>,
    separators: Option<Value>,
    sort_keys: bool,
    meter: &mut Meter,
) -> Result<Value> {
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(indent)) => Some(indent.to_string()),
        Some(width) => {
            let width = usize::try_from(integer(Some(width), 0, "tojson", "indent")?).unwrap_or(0);
            meter.make(width)?;
            Some(" ".repeat(width))
        }
    };
    let (between, after_key) = match separators {
        None | Some(Value::None) => (if indent.is_some() { "," } else { ", " }.to_string(), ": ".to_string()),
        Some(Value::List(pair)) if pair.items.len() == 2 => {
            (to_text(&pair.items[0], meter)?, to_text(&pair.items[1], meter)?)
        }
        Some(_) => return Err(Fault::wrong("`tojson`: `separators` must be two strings")),
    };
    let style = JsonStyle {
        indent,
        between,
        after_key,
        sort_keys,
    };
    let mut out = Text::new(meter);
    out.json(value, &style, 0)?;
    let out = out.finish();
    Value::text(&out, meter)
}

fn to_int(value: &Value, base: i64, meter: &mut Meter) -> Result<Option<i64>> {
    Ok(match value {
        Value::Str(s) => {
            meter.read(s.len())?;
            let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
            let base = base.ok_or_else(|| Fault::wrong("`int`: `base` must be 2 to 36"))?;
            let s = s.trim();
            // As Python's int(float(s)) where it is no integer.
            i64::from_str_radix(s, base)
                .ok()
                .or_else(|| s.parse().ok().and_then(whole))
        }
        Value::Float(x) => whole(*x),
        other => other.as_int(),
    })
}

fn whole(x: f64) -> Option<i64> {
    (x.is_finite() && x.abs() < 9e18).then_some(x as i64)
}

fn round(value: &Value, precision: i64, method: Option<Value>) -> Result<Value> {
    let x = value
        .as_float()
        .ok_or_else(|| Fault::wrong(format!("`round` of {}", value.kind())))?;
    let power = 10f64.powi(i32::try_from(precision.clamp(-300, 300)).unwrap_or(0));
    let method = method.as_ref().map_or(Some("common"), Value::as_str);
    let scaled = x * power;
    let rounded = match method {
        Some("common") => scaled.round_ties_even(),
        Some("ceil") => scaled.ceil(),
        Some("floor") => scaled.floor(),
        _ => return Err(Fault::wrong("`round`: `method` must be common, ceil or floor")),
    };
    let out = rounded / power;
    Ok(Value::Float(if out.is_finite() { out } else { x }))
}
