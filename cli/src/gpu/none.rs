//! A build without CUDA: there is no GPU, and nothing is ever asked of one.

use onebit_model::runtime::{KvType, PackedModel, SessionOptions};

use crate::Result;
use crate::device::Placement;

/// A GPU, of which there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gpu {}

/// A model on it.
pub(crate) enum CudaModel {}

/// As with CUDA.
pub(crate) fn describe(gpu: &Gpu) -> String {
    match *gpu {}
}

/// None.
pub(crate) fn find() -> Option<Gpu> {
    None
}

/// None is looked for.
pub(crate) fn driver() -> Option<String> {
    None
}

/// Refuses the GPU that was asked for.
pub(crate) fn open(_ordinal: usize) -> Result<Gpu, &'static str> {
    Err("this build has no CUDA (`cargo build -p onebit-cli --features cuda` has it)")
}

impl Placement {
    /// None: the CPU runs every model.
    pub(crate) fn upload(&mut self, _model: &PackedModel, _context: usize, _kv: KvType) -> Result<Option<CudaModel>> {
        Ok(None)
    }
    /// None, as [`upload`](Self::upload).
    pub(crate) fn upload_batch(
        &mut self,
        _model: &PackedModel,
        _options: &SessionOptions,
        _sequences: usize,
    ) -> Result<Option<CudaModel>> {
        Ok(None)
    }
}
