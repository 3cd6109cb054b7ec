//! Expressions and calls.

use std::cell::RefCell;
use std::fmt::Write;
use std::rc::Rc;

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, Expr, UnaryOpKind};

use super::args::{Args, needed, text};
use super::fault::{Fault, Result, shortened};
use super::meter::Meter;
use super::statements::Machine;
use super::text::to_text;
use super::value::{PAIR, Value, storable};
use super::{lists, methods, ops};

/// The functions that every template sees.
pub(super) const FUNCTIONS: [&str; 5] = ["range", "dict", "namespace", "raise_exception", "strftime_now"];

/// Bytes that one byte of a time's format can make.
const TIME_BYTES: usize = 64;

impl<'t> Machine<'t> {
    /// The value of an expression.
    pub fn eval(&mut self, expr: &'t Expr<'t>) -> Result<Value> {
        self.meter.enter()?;
        self.at(expr.span());
        let value = self.eval_inner(expr)?;
        self.meter.leave();
        Ok(value)
    }

    fn eval_inner(&mut self, expr: &'t Expr<'t>) -> Result<Value> {
        match expr {
            Expr::Var(name) => self.lookup(name.id),
            Expr::Const(constant) => self.constant(&constant.value),
            Expr::Slice(slice) => {
                let value = self.eval(&slice.expr)?;
                let mut bound = |expr: &'t Option<Expr<'t>>| expr.as_ref().map_or(Ok(Value::None), |e| self.eval(e));
                let bounds = [bound(&slice.start)?, bound(&slice.stop)?, bound(&slice.step)?];
                ops::slice(&value, [&bounds[0], &bounds[1], &bounds[2]], &mut self.meter)
            }
            Expr::UnaryOp(unary) => {
                let value = self.eval(&unary.expr)?;
                match unary.op {
                    UnaryOpKind::Not => Ok(Value::Bool(!value.is_true())),
                    UnaryOpKind::Neg => ops::negate(&value),
                }
            }
            Expr::BinOp(binary) => {
                let left = self.eval(&binary.left)?;
                match binary.op {
                    BinOpKind::ScAnd if !left.is_true() => Ok(left),
                    BinOpKind::ScOr if left.is_true() => Ok(left),
                    BinOpKind::ScAnd | BinOpKind::ScOr => self.eval(&binary.right),
                    op => {
                        let right = self.eval(&binary.right)?;
                        self.at(binary.span());
                        ops::binary(op, &left, &right, &mut self.meter)
                    }
                }
            }
            Expr::Compare(chain) => {
                let mut left = self.eval(&chain.expr)?;
                for step in &chain.ops {
                    let right = self.eval(&step.expr)?;
                    if !ops::ordered(step.op, &left, &right, &mut self.meter)? {
                        return Ok(Value::Bool(false));
                    }
                    left = right;
                }
                Ok(Value::Bool(true))
            }
            Expr::IfExpr(choice) => {
                if self.eval(&choice.test_expr)?.is_true() {
                    return self.eval(&choice.true_expr);
                }
                choice
                    .false_expr
                    .as_ref()
                    .map_or(Ok(Value::Undefined(None)), |e| self.eval(e))
            }
            Expr::Filter(filter) => {
                let Some(value) = &filter.expr else {
                    return Err(Fault::wrong("a filter without a value"));
                };
                let value = self.eval(value)?;
                self.filtered(expr, value)
            }
            Expr::Test(test) => {
                let value = self.eval(&test.expr)?;
                let args = self.args(&test.args)?;
                self.test(&value, test.name, args).map(Value::Bool)
            }
            Expr::GetAttr(get) => {
                let value = self.eval(&get.expr)?;
                let key = Value::text(get.name, &mut self.meter)?;
                lists::item(&value, &key, &mut self.meter)
            }
            Expr::GetItem(get) => {
                let value = self.eval(&get.expr)?;
                let key = self.eval(&get.subscript_expr)?;
                lists::item(&value, &key, &mut self.meter)
            }
            Expr::Call(call) => self.call(call),
            Expr::List(list) => {
                self.meter.make_many(list.items.len(), PAIR)?;
                let items: Result<Vec<Value>> = list.items.iter().map(|item| self.eval(item)).collect();
                Value::list(items?, &mut self.meter)
            }
            Expr::Map(map) => {
                self.meter.make_many(map.keys.len(), PAIR)?;
                let pairs = map.keys.iter().zip(&map.values);
                let pairs: Result<Vec<_>> = pairs
                    .map(|(key, value)| Ok((self.eval(key)?, self.eval(value)?)))
                    .collect();
                Value::dict(pairs?, &mut self.meter)
            }
        }
    }

    fn constant(&mut self, value: &minijinja::Value) -> Result<Value> {
        if let Some(text) = value.as_str() {
            return Value::text(text, &mut self.meter);
        }
        match value.kind() {
            minijinja::value::ValueKind::None => Ok(Value::None),
            minijinja::value::ValueKind::Bool => Ok(Value::Bool(value.is_true())),
            minijinja::value::ValueKind::Number if value.is_integer() => match i64::try_from(value.clone()) {
                Ok(x) => Ok(Value::Int(x)),
                Err(_) => Err(Fault::Limit("an integer has more than 64 bits".into())),
            },
            _ => f64::try_from(value.clone())
                .map(Value::Float)
                .map_err(|_| Fault::wrong("a constant of an unknown kind")),
        }
    }

    pub(super) fn args(&mut self, given: &'t [CallArg<'t>]) -> Result<Args<'t>> {
        let mut args = Args::default();
        self.meter.make_many(given.len(), PAIR)?;
        for arg in given {
            match arg {
                CallArg::Pos(value) => args.positional.push(self.eval(value)?),
                CallArg::Kwarg(name, value) => args.named.push((*name, self.eval(value)?)),
                CallArg::PosSplat(_) | CallArg::KwargSplat(_) => {
                    return Err(Fault::wrong("`*` and `**` before an argument are not supported"));
                }
            }
        }
        Ok(args)
    }

    /// A call of a method, function or macro.
    pub fn call(&mut self, call: &'t Call<'t>) -> Result<Value> {
        if let Expr::GetAttr(method) = &call.expr {
            let value = self.eval(&method.expr)?;
            let args = self.args(&call.args)?;
            self.at(method.span());
            return methods::call(&value, method.name, args, &mut self.meter);
        }
        let called = self.eval(&call.expr)?;
        let args = self.args(&call.args)?;
        match called {
            Value::Macro(number) => {
                self.meter.enter()?;
                let text = self.call_macro(number, args)?;
                self.meter.leave();
                Ok(text)
            }
            Value::Function(name) => self.function(name, args),
            Value::Undefined(Some(name)) => Err(Fault::wrong(format!("there is no function `{name}`"))),
            other => Err(Fault::wrong(format!("{} cannot be called", other.kind()))),
        }
    }

    fn function(&mut self, name: &'static str, args: Args<'t>) -> Result<Value> {
        match name {
            "range" => lists::range(args, &mut self.meter),
            "dict" | "namespace" => {
                let mut pairs = Vec::new();
                for value in args.positional {
                    let Value::Dict(dict) = value else {
                        return Err(Fault::wrong(format!(
                            "`{name}` takes a dictionary, found {}",
                            value.kind()
                        )));
                    };
                    self.meter.make_many(dict.pairs.len(), PAIR)?;
                    pairs.extend(dict.pairs.iter().cloned());
                }
                for (key, value) in args.named {
                    pairs.push((Value::text(key, &mut self.meter)?, value));
                }
                let dict = Value::dict(pairs, &mut self.meter)?;
                match dict {
                    Value::Dict(dict) if name == "namespace" => namespace(&dict.pairs, &mut self.meter),
                    dict => Ok(dict),
                }
            }
            "raise_exception" => {
                let [message] = args.bind(name, ["message"])?;
                let message = to_text(&needed(message, name, "message")?, &mut self.meter)?;
                Err(Fault::wrong(shortened(&message).replace('\n', " ")))
            }
            _ => {
                let [format] = args.bind(name, ["format"])?;
                let format = text(needed(format, name, "format")?, name, "format")?;
                self.meter.make_many(format.len(), TIME_BYTES)?;
                let mut out = String::new();
                write!(out, "{}", self.now.format(&format))
                    .map_err(|_| Fault::wrong(format!("`{name}`: {:?} is no format of a time", shortened(&format))))?;
                Value::text(&out, &mut self.meter)
            }
        }
    }
}

fn namespace(pairs: &[(Value, Value)], meter: &mut Meter) -> Result<Value> {
    let mut names = Vec::with_capacity(pairs.len());
    for (key, value) in pairs {
        storable(value)?;
        let key = text(key.clone(), "namespace", "name")?;
        meter.make(2 * PAIR)?;
        names.push((key, value.clone()));
    }
    Ok(Value::Namespace(Rc::new(RefCell::new(names))))
}
