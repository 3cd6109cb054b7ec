//! A model on the GPU that was chosen, or the reason why the CPU runs it.

use onebit_kernels_cuda::Gpu;
use onebit_model::runtime::cuda::{CudaMemory, CudaModel};
use onebit_model::runtime::{FloatValues, KvType, PackedModel};

use crate::device::Placement;
use crate::{CliError, Result, output};

/// What kernels and recordings take beside arrays.
const RESERVE: u64 = 256 << 20;

impl Placement {
    /// Copies `model` to the GPU that was chosen, if one was, after a look at what it and a session of `context` tokens need. Where the GPU cannot run it, a GPU that
    /// was asked for by name is an error; one that was only found is let go with a note, and the CPU does the work.
    pub(crate) fn upload(&mut self, model: &PackedModel, context: usize, kv: KvType) -> Result<Option<CudaModel>> {
        let Some(gpu) = &self.gpu else {
            return Ok(None);
        };
        let at = gpu.ordinal();
        match upload(gpu, model, context, kv) {
            Ok(model) => Ok(Some(model)),
            Err(why) if self.gpu_by_name => Err(CliError::Failed(format!(
                "--device cuda:{at}: {why}; or use --device cpu"
            ))),
            Err(why) => {
                output::note(&format!("note: cuda:{at} is not used: {why}; the CPU runs this model"));
                self.gpu = None;
                Ok(None)
            }
        }
    }
}

/// The model on `gpu`, or why not and what would be possible.
fn upload(gpu: &Gpu, model: &PackedModel, context: usize, kv: KvType) -> Result<CudaModel, String> {
    let needed = CudaModel::memory(model, context, kv).map_err(|e| match matches_int4(model) {
        true => format!("{e}: give --head int8"),
        false => e.to_string(),
    })?;
    let free = gpu.free_memory().map_err(|e| e.to_string())?.saturating_sub(RESERVE);
    if needed.total() > free {
        return Err(format!(
            "the model with a context of {context} tokens needs {} of GPU memory and {} is available; {}",
            output::bytes(needed.total()),
            output::bytes(free),
            advice(model, (context, kv), needed, free)
        ));
    }
    CudaModel::new(gpu, model).map_err(|e| e.to_string())
}

fn matches_int4(model: &PackedModel) -> bool {
    [model.embedding(), model.head()]
        .iter()
        .any(|matrix| matches!(matrix.values, FloatValues::Int4 { .. }))
}

/// What would fit in `free` bytes.
fn advice(model: &PackedModel, (context, kv): (usize, KvType), needed: CudaMemory, free: u64) -> String {
    let memory = |context, kv| CudaModel::memory(model, context, kv).unwrap_or(needed);
    // Bytes that an int8 head would save: embedding and head are whole bytes a value then.
    let values = |matrix: &onebit_model::runtime::FloatMatrix| (matrix.rows * (matrix.cols + 4)) as u64;
    let mut int8 = values(model.embedding());
    if !std::ptr::eq(model.embedding(), model.head()) {
        int8 += values(model.head());
    }
    let mut fits = Vec::new();
    if needed.head > int8 && needed.total() - needed.head + int8 <= free {
        fits.push("--head int8".to_string());
    }
    let smaller = KvType::ALL.into_iter().filter(|t| t.value_bytes() < kv.value_bytes());
    fits.extend(
        smaller
            .filter(|&kv| memory(context, kv).total() <= free)
            .map(|kv| format!("--kv-type {}", kv.name())),
    );
    let shorter = std::iter::successors(Some(context / 2), |n| (*n > 1).then_some(n / 2));
    if let Some(shorter) = shorter.filter(|&n| n > 0).find(|&n| memory(n, kv).total() <= free) {
        fits.push(format!("a context of {shorter} tokens"));
    }
    match fits.is_empty() {
        true => "nothing smaller of this model fits".to_string(),
        false => format!("this would fit: {}", fits.join("; or ")),
    }
}
