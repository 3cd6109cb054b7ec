//! A model on the GPU that was chosen, or the reason why the CPU runs it.

use onebit_kernels_cuda::CudaError;
pub(crate) use onebit_kernels_cuda::Gpu;
use onebit_model::runtime::cuda::{CudaMemory, CudaModel};
use onebit_model::runtime::{FloatMatrix, KvType, PackedModel};

use crate::device::Placement;
use crate::{CliError, Result, output};

/// What kernels and recordings take beside arrays.
const RESERVE: u64 = 256 << 20;

/// One line that names the GPU.
pub(crate) fn describe(gpu: &Gpu) -> String {
    let (properties, at) = (gpu.properties(), gpu.ordinal());
    format!("cuda:{at} ({}, {} MiB)", properties.name, properties.memory >> 20)
}

/// The first GPU, if there is one that can be used.
pub(crate) fn find() -> Option<Gpu> {
    match Gpu::open(0) {
        Ok(gpu) => Some(gpu),
        Err(CudaError::NoDriver | CudaError::NoSuchDevice { .. }) => None,
        Err(error) => {
            output::note(&format!("note: the GPU is not used: {error}"));
            None
        }
    }
}

/// GPUs of this machine, none without a driver.
#[cfg(feature = "train")]
pub(crate) fn count() -> usize {
    onebit_kernels_cuda::driver().map_or(0, |driver| driver.devices.len())
}

/// The GPU of a number.
pub(crate) fn open(ordinal: usize) -> Result<Gpu, CudaError> {
    Gpu::open(ordinal)
}

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
                "--device cuda:{at}: {why}; otherwise use --device cpu"
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
    let free = gpu.free_memory().map_err(|e| e.to_string())?.saturating_sub(RESERVE);
    check(model, (context, kv), free)?;
    CudaModel::new(gpu, model).map_err(|e| e.to_string())
}

/// Whether a GPU has the kernels and, with `free` bytes, the memory.
fn check(model: &PackedModel, (context, kv): (usize, KvType), free: u64) -> Result<(), String> {
    let needed = CudaModel::memory(model, context, kv).map_err(|e| e.to_string())?;
    if needed.total() <= free {
        return Ok(());
    }
    Err(format!(
        "the model with a context of {context} tokens needs {} of GPU memory and {} is available; {}",
        output::bytes(needed.total()),
        output::bytes(free),
        advice(model, (context, kv), needed, free)
    ))
}

/// What would fit in `free` bytes.
fn advice(model: &PackedModel, (context, kv): (usize, KvType), needed: CudaMemory, free: u64) -> String {
    let memory = |context, kv| CudaModel::memory(model, context, kv).unwrap_or(needed);
    // Embedding and head with a byte a value.
    let int8_bytes = |matrix: &FloatMatrix| (matrix.rows * (matrix.cols + 4)) as u64;
    let mut int8 = int8_bytes(model.embedding());
    if !std::ptr::eq(model.embedding(), model.head()) {
        int8 += int8_bytes(model.head());
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

#[cfg(test)]
mod tests {
    use onebit_model::config::presets;
    use onebit_model::runtime::FloatStorage;

    use super::*;
    use crate::random;

    #[test]
    fn what_does_not_fit_is_told_with_what_would() {
        let config = presets::by_name("quickstart").unwrap().config;
        let context = config.max_position_embeddings;
        let model = random::model(config.clone(), 1, FloatStorage::F32, true).unwrap();
        let memory = |kv| CudaModel::memory(&model, context, kv).unwrap();
        let needed = memory(KvType::F32);
        assert_eq!(check(&model, (context, KvType::F32), needed.total()), Ok(()));
        let why = |free| check(&model, (context, KvType::F32), free).unwrap_err();
        let told = why(needed.total() - 1);
        for part in [
            "is available",
            "--head int8",
            "--kv-type f16",
            "--kv-type int8",
            "a context of",
        ] {
            assert!(told.contains(part), "{part:?} is not in {told:?}");
        }
        let told = why(memory(KvType::Int8).total());
        assert!(
            told.contains("--kv-type int8") && !told.contains("--kv-type f16"),
            "{told}"
        );
        assert!(why(1000).contains("nothing smaller"), "{}", why(1000));
        let model = random::model(config, 1, FloatStorage::Int4, true).unwrap();
        assert_eq!(check(&model, (context, KvType::F32), u64::MAX), Ok(()));
    }
}
