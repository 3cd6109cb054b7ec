//! The machine: variables, output, and the statements.

use std::rc::Rc;

use chrono::NaiveDateTime;
use minijinja::machinery::Span;
use minijinja::machinery::ast::{Expr, ForLoop, IfCond, Macro, Stmt};

use super::fault::{Fault, Result};
use super::meter::Meter;
use super::text::to_text;
use super::value::{List, LoopState, PAIR, Value, storable};

/// How a list of statements ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// At its end.
    On,
    Break,
    Continue,
}

/// The names that one block defines.
#[derive(Default)]
struct Scope<'t> {
    names: Vec<(&'t str, Value)>,
}

/// A template at work.
pub(super) struct Machine<'t> {
    pub meter: Meter,
    pub now: NaiveDateTime,
    /// The first is the template's own.
    scopes: Vec<Scope<'t>>,
    /// A macro sees its own scopes, from here on, and the template's.
    own: usize,
    /// Loops around the current place.
    loops: usize,
    macros: Vec<&'t Macro<'t>>,
    /// The output, and what is captured.
    out: Vec<String>,
    /// Where the machine is.
    line: u16,
}

impl<'t> Machine<'t> {
    pub fn new(meter: Meter, globals: Vec<(&'static str, Value)>, now: NaiveDateTime) -> Self {
        Self {
            meter,
            now,
            scopes: vec![Scope { names: globals }],
            own: 0,
            loops: 0,
            macros: Vec::new(),
            out: vec![String::new()],
            line: 0,
        }
    }

    /// Runs the template and returns its output.
    pub fn run(mut self, body: &'t [Stmt<'t>]) -> Result<String> {
        match self.body(body) {
            Ok(_) => Ok(self.out.pop().unwrap_or_default()),
            Err(Fault::Wrong(what)) => Err(Fault::Wrong(format!("{what} (line {})", self.line))),
            Err(Fault::Limit(what)) => Err(Fault::Limit(format!("{what} (line {})", self.line))),
        }
    }

    /// Notes the line, for messages.
    pub fn at(&mut self, span: Span) {
        self.line = span.start_line;
    }

    fn emit(&mut self, text: &str) -> Result<()> {
        // A string that grows may be copied to twice the room.
        self.meter.make(2 * text.len())?;
        if let Some(out) = self.out.last_mut() {
            out.push_str(text);
        }
        Ok(())
    }

    /// The output of a body, by itself.
    fn captured(&mut self, body: &'t [Stmt<'t>]) -> Result<(String, Flow)> {
        self.out.push(String::new());
        let flow = self.body(body)?;
        Ok((self.out.pop().unwrap_or_default(), flow))
    }

    /// Runs a body between the names of a scope of its own.
    fn scoped(&mut self, scope: Vec<(&'t str, Value)>, body: &'t [Stmt<'t>]) -> Result<Flow> {
        self.scopes.push(Scope { names: scope });
        let flow = self.body(body)?;
        self.scopes.pop();
        Ok(flow)
    }

    pub fn lookup(&mut self, name: &str) -> Result<Value> {
        let visible = self.scopes[self.own..]
            .iter()
            .rev()
            .chain(&self.scopes[..self.own.min(1)]);
        let mut seen = 0;
        let mut found = None;
        for scope in visible {
            seen += 1 + scope.names.len() / 8;
            if let Some((_, value)) = scope.names.iter().find(|(known, _)| *known == name) {
                found = Some(value.clone());
                break;
            }
        }
        self.meter.work(seen)?;
        Ok(found.unwrap_or_else(|| Value::Undefined(Some(Rc::from(name.get(..64).unwrap_or(name))))))
    }

    fn store(&mut self, name: &'t str, value: Value) -> Result<()> {
        let Some(scope) = self.scopes.last_mut() else {
            return Ok(());
        };
        self.meter.work(1 + scope.names.len() / 8)?;
        match scope.names.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => *known = value,
            None => {
                self.meter.make(2 * PAIR)?;
                scope.names.push((name, value));
            }
        }
        Ok(())
    }

    fn body(&mut self, body: &'t [Stmt<'t>]) -> Result<Flow> {
        self.meter.enter()?;
        for statement in body {
            let flow = self.statement(statement)?;
            if flow != Flow::On {
                self.meter.leave();
                return Ok(flow);
            }
        }
        self.meter.leave();
        Ok(Flow::On)
    }

    fn statement(&mut self, statement: &'t Stmt<'t>) -> Result<Flow> {
        self.meter.work(1)?;
        match statement {
            Stmt::EmitRaw(raw) => self.emit(raw.raw)?,
            Stmt::EmitExpr(emitted) => {
                let value = self.eval(&emitted.expr)?;
                match &value {
                    Value::Str(text) => self.emit(text)?,
                    other => {
                        let text = to_text(other, &mut self.meter)?;
                        self.emit(&text)?;
                    }
                }
            }
            Stmt::ForLoop(given) => return self.for_loop(given, given.span()),
            Stmt::IfCond(given) => return self.condition(given),
            Stmt::Set(set) => {
                self.at(set.span());
                let value = self.eval(&set.expr)?;
                self.assign(&set.target, value)?;
            }
            Stmt::SetBlock(set) => {
                let (text, flow) = self.captured(&set.body)?;
                let mut value = Value::text(&text, &mut self.meter)?;
                if let Some(filter) = &set.filter {
                    value = self.filtered(filter, value)?;
                }
                self.assign(&set.target, value)?;
                return Ok(flow);
            }
            Stmt::FilterBlock(block) => {
                let (text, flow) = self.captured(&block.body)?;
                let value = Value::text(&text, &mut self.meter)?;
                let value = self.filtered(&block.filter, value)?;
                let text = to_text(&value, &mut self.meter)?;
                self.emit(&text)?;
                return Ok(flow);
            }
            Stmt::WithBlock(with) => {
                let mut names = Vec::new();
                for (target, value) in &with.assignments {
                    let value = self.eval(value)?;
                    self.bind(target, value, &mut names)?;
                }
                return self.scoped(names, &with.body);
            }
            Stmt::Macro(given) => {
                self.at(given.span());
                if self.scopes.len() > 1 {
                    return Err(Fault::wrong(
                        "a macro can only be defined outside of loops, macros and `with`",
                    ));
                }
                self.meter.make(64)?;
                self.macros.push(given);
                self.store(given.name, Value::Macro(self.macros.len() - 1))?;
            }
            Stmt::Continue(_) => return Ok(Flow::Continue),
            Stmt::Break(_) => return Ok(Flow::Break),
            Stmt::Do(call) => {
                self.at(call.span());
                self.call(&call.call)?;
            }
            Stmt::CallBlock(block) => {
                self.at(block.span());
                return Err(Fault::wrong("`call` blocks are not supported"));
            }
            Stmt::AutoEscape(block) => {
                self.at(block.span());
                return Err(Fault::wrong("`autoescape` is not supported"));
            }
            Stmt::Template(_) => return Err(Fault::wrong("a template within a template")),
        }
        Ok(Flow::On)
    }

    /// `elif` is a condition that stands alone in `else`.
    fn condition(&mut self, mut given: &'t IfCond<'t>) -> Result<Flow> {
        loop {
            if self.eval(&given.expr)?.is_true() {
                return self.body(&given.true_body);
            }
            match given.false_body.as_slice() {
                [Stmt::IfCond(next)] => given = next,
                body => return self.body(body),
            }
        }
    }

    fn for_loop(&mut self, given: &'t ForLoop<'t>, span: Span) -> Result<Flow> {
        self.at(span);
        if given.recursive {
            return Err(Fault::wrong("recursive loops are not supported"));
        }
        let over = self.eval(&given.iter)?;
        let mut items: Rc<List> = over.entries(&mut self.meter)?;
        if let Some(wanted) = &given.filter_expr {
            let mut kept = Vec::new();
            for item in &items.items {
                let mut names = Vec::new();
                self.bind(&given.target, item.clone(), &mut names)?;
                self.scopes.push(Scope { names });
                let keep = self.eval(wanted)?.is_true();
                self.scopes.pop();
                if keep {
                    self.meter.make(size_of::<Value>())?;
                    kept.push(item.clone());
                }
            }
            items = Value::list(kept, &mut self.meter)?.entries(&mut self.meter)?;
        }
        if items.items.is_empty() {
            return self.body(&given.else_body);
        }
        self.loops += 1;
        for (index, item) in items.items.iter().enumerate() {
            self.meter.make(4 * PAIR)?;
            let state = LoopState {
                items: items.clone(),
                index,
                depth: self.loops - 1,
            };
            let mut names = vec![("loop", Value::Loop(Rc::new(state)))];
            self.bind(&given.target, item.clone(), &mut names)?;
            if self.scoped(names, &given.body)? == Flow::Break {
                break;
            }
        }
        self.loops -= 1;
        Ok(Flow::On)
    }

    /// Adds the names of a target (`a` or `a, b`) with their values.
    fn bind(&mut self, target: &'t Expr<'t>, value: Value, names: &mut Vec<(&'t str, Value)>) -> Result<()> {
        self.meter.enter()?;
        match target {
            Expr::Var(name) => {
                self.meter.make(2 * PAIR)?;
                names.push((name.id, value));
            }
            Expr::List(targets) => {
                let parts = value.entries(&mut self.meter)?;
                if parts.items.len() != targets.items.len() {
                    return Err(Fault::wrong(format!(
                        "{} values cannot be given to {} names",
                        parts.items.len(),
                        targets.items.len()
                    )));
                }
                for (target, part) in targets.items.iter().zip(&parts.items) {
                    self.bind(target, part.clone(), names)?;
                }
            }
            other => return Err(Fault::wrong(format!("a {} cannot be assigned to", other.description()))),
        }
        self.meter.leave();
        Ok(())
    }

    /// `set`: names of the current scope, or an attribute of a namespace.
    fn assign(&mut self, target: &'t Expr<'t>, value: Value) -> Result<()> {
        let Expr::GetAttr(attribute) = target else {
            let mut names = Vec::new();
            self.bind(target, value, &mut names)?;
            return names.into_iter().try_for_each(|(name, value)| self.store(name, value));
        };
        let Value::Namespace(space) = self.eval(&attribute.expr)? else {
            return Err(Fault::wrong("only an attribute of a namespace can be set"));
        };
        storable(&value)?;
        let mut space = space.borrow_mut();
        self.meter.work(1 + space.len() / 8)?;
        match space.iter_mut().find(|(name, _)| **name == *attribute.name) {
            Some((_, known)) => *known = value,
            None => {
                self.meter.make(2 * PAIR + attribute.name.len())?;
                space.push((Rc::from(attribute.name), value));
            }
        }
        Ok(())
    }

    /// Calls a macro: its text.
    pub fn call_macro(&mut self, number: usize, args: super::args::Args<'t>) -> Result<Value> {
        let Some(&called) = self.macros.get(number) else {
            return Err(Fault::wrong("a macro that is not there"));
        };
        if args.positional.len() > called.args.len() {
            return Err(Fault::wrong(format!(
                "the macro `{}` takes {} arguments at most, found {}",
                called.name,
                called.args.len(),
                args.positional.len()
            )));
        }
        let given = args.positional.len();
        let mut names: Vec<(&'t str, Value)> = Vec::new();
        for (target, value) in called.args.iter().zip(args.positional) {
            self.bind(target, value, &mut names)?;
        }
        let rest: Vec<&'t str> = called.args[given..].iter().filter_map(name_of).collect();
        for (name, value) in args.named {
            if !rest.contains(&name) || names.iter().any(|(known, _)| *known == name) {
                return Err(Fault::wrong(format!(
                    "the macro `{}` has no argument `{name}` left",
                    called.name
                )));
            }
            self.meter.make(2 * PAIR)?;
            names.push((name, value));
        }
        let outer = std::mem::replace(&mut self.own, self.scopes.len());
        self.scopes.push(Scope { names });
        // Defaults belong to the last arguments, and may speak of those before.
        let first_default = called.args.len() - called.defaults.len().min(called.args.len());
        for (i, target) in called.args.iter().enumerate() {
            let Some(name) = name_of(target) else { continue };
            let known = self
                .scopes
                .last()
                .is_some_and(|scope| scope.names.iter().any(|(known, _)| *known == name));
            if !known {
                let default = i.checked_sub(first_default).and_then(|i| called.defaults.get(i));
                let value = default.map_or(Ok(Value::Undefined(None)), |default| self.eval(default))?;
                self.store(name, value)?;
            }
        }
        let (text, _) = self.captured(&called.body)?;
        self.scopes.pop();
        self.own = outer;
        Value::text(&text, &mut self.meter)
    }
}

fn name_of<'t>(target: &'t Expr<'t>) -> Option<&'t str> {
    match target {
        Expr::Var(name) => Some(name.id),
        _ => None,
    }
}
