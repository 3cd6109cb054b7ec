//! The tape and its variables.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use onebit_engine::ops::elementwise;
use onebit_engine::{Shape, Tensor};

use crate::{AutogradError, Result};

/// Gradients of a node's outputs in, gradients of its inputs out; `None` is zero.
type Backward = Box<dyn FnOnce(Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>>>;

struct Node {
    inputs: Vec<usize>,
    outputs: Vec<usize>,
    backward: Backward,
}

#[derive(Default)]
struct Record {
    nodes: RefCell<Vec<Node>>,
    variables: Cell<usize>,
    paused: Cell<bool>,
}

/// A record of operations. Clones share it.
#[derive(Clone, Default)]
pub struct Tape(Rc<Record>);

/// A tensor whose history a tape knows.
#[derive(Clone)]
pub struct Var {
    tape: Tape,
    id: usize,
    tensor: Tensor,
    requires_grad: bool,
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    fn variable(&self, tensor: Tensor, requires_grad: bool) -> Var {
        let id = self.0.variables.get();
        self.0.variables.set(id + 1);
        Var {
            tape: self.clone(),
            id,
            tensor,
            requires_grad,
        }
    }

    /// A variable whose gradient is wanted: a parameter.
    pub fn leaf(&self, tensor: Tensor) -> Var {
        self.variable(tensor, true)
    }

    /// A variable without gradient: data.
    pub fn constant(&self, tensor: Tensor) -> Var {
        self.variable(tensor, false)
    }

    /// Runs `f` without recording: what it computes has no gradient and keeps nothing.
    pub fn no_grad<T>(&self, f: impl FnOnce() -> T) -> T {
        /// Restores the state even if `f` panics.
        struct Restore<'a>(&'a Cell<bool>, bool);
        impl Drop for Restore<'_> {
            fn drop(&mut self) {
                self.0.set(self.1);
            }
        }
        let _restore = Restore(&self.0.paused, self.0.paused.replace(true));
        f()
    }

    /// Adds an operation: `outputs` computed from `inputs`, and the closure that turns gradients of the outputs into
    /// gradients of the inputs. Nothing is recorded if no input needs a gradient; the closure is then dropped.
    ///
    /// # Errors
    /// [`AutogradError::OtherTape`] if an input is not of this tape.
    pub fn record(
        &self,
        inputs: &[&Var],
        outputs: Vec<Tensor>,
        backward: impl FnOnce(Vec<Option<Tensor>>) -> Result<Vec<Option<Tensor>>> + 'static,
    ) -> Result<Vec<Var>> {
        if inputs.iter().any(|v| !Rc::ptr_eq(&v.tape.0, &self.0)) {
            return Err(AutogradError::OtherTape("record"));
        }
        let needed = !self.0.paused.get() && inputs.iter().any(|v| v.requires_grad);
        let outputs: Vec<Var> = outputs.into_iter().map(|t| self.variable(t, needed)).collect();
        if needed {
            self.0.nodes.borrow_mut().push(Node {
                inputs: inputs.iter().map(|v| v.id).collect(),
                outputs: outputs.iter().map(|v| v.id).collect(),
                backward: Box::new(backward),
            });
        }
        Ok(outputs)
    }

    /// Gradients of a loss of one element with respect to every leaf. Consumes what the tape recorded.
    ///
    /// # Errors
    /// A loss of more than one element, or an error of a backward operation.
    pub fn backward(&self, loss: &Var) -> Result<Gradients> {
        if loss.tensor.len() != 1 {
            return Err(AutogradError::NotScalar(loss.tensor.shape().clone()));
        }
        let seed = Tensor::full(loss.tensor.device(), loss.tensor.shape().clone(), 1.0);
        self.backward_with(loss, seed)
    }

    /// As [`Tape::backward`] for any shape: the gradients of `Σ seed · output`.
    ///
    /// # Errors
    /// A variable of another tape, or an error of a backward operation.
    pub fn backward_with(&self, output: &Var, seed: Tensor) -> Result<Gradients> {
        if !Rc::ptr_eq(&output.tape.0, &self.0) {
            return Err(AutogradError::OtherTape("backward"));
        }
        let mut gradients: Vec<Option<Tensor>> = vec![None; self.0.variables.get()];
        gradients[output.id] = Some(seed);
        let nodes = std::mem::take(&mut *self.0.nodes.borrow_mut());
        for node in nodes.into_iter().rev() {
            let of_outputs: Vec<_> = node.outputs.iter().map(|&id| gradients[id].take()).collect();
            if of_outputs.iter().all(Option::is_none) {
                continue;
            }
            for (&id, gradient) in node.inputs.iter().zip((node.backward)(of_outputs)?) {
                match (&mut gradients[id], gradient) {
                    (_, None) => {}
                    (slot @ None, some) => *slot = some,
                    (Some(sum), Some(more)) => elementwise::axpy(1.0, &more, sum)?,
                }
            }
        }
        Ok(Gradients(gradients))
    }
}

impl Var {
    /// The value.
    pub fn tensor(&self) -> &Tensor {
        &self.tensor
    }

    /// Shape of the value.
    pub fn shape(&self) -> &Shape {
        self.tensor.shape()
    }

    /// The tape that knows this variable.
    pub fn tape(&self) -> &Tape {
        &self.tape
    }

    /// Whether a gradient will flow to this variable.
    pub fn requires_grad(&self) -> bool {
        self.requires_grad
    }
}

/// Gradients after a backward pass.
pub struct Gradients(Vec<Option<Tensor>>);

impl Gradients {
    /// The gradient of `var`, if any reached it; `var` must be a leaf of the tape that made these gradients.
    pub fn take(&mut self, var: &Var) -> Option<Tensor> {
        self.0.get_mut(var.id).and_then(Option::take)
    }
}
