//! [`Watching`] a run: its [`speed`] and what of the machine it uses, the [`record`] of what it ran on and took, what its model says ([`sampler`]), its scalars for [`tensorboard`], a screen of its own ([`tui`]).

pub(crate) mod record;
pub(crate) mod sampler;
mod speed;
pub(crate) mod tensorboard;
mod tui;
mod watching;

pub(crate) use watching::{Told, Watching, Wish};
