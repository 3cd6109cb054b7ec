//! Against the CPU's kernels, put together as its runtime does: bit for bit.

mod attention;
mod batch;
mod bench;
mod head;
mod network;
mod packed;
mod sketch;
