//! A model on the GPU that was chosen, or the reason why the CPU runs it.

use onebit_kernels_cuda::CudaError;
pub(crate) use onebit_kernels_cuda::Gpu;
use onebit_model::runtime::cuda::{CudaMemory, CudaModel, CudaRuntimeError};
use onebit_model::runtime::{FloatMatrix, KvType, PackedModel, SessionOptions};

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
        self.upload_for(&Need::of_session(model, context, kv))
    }

    /// As [`upload`](Self::upload), for many sequences side by side.
    pub(crate) fn upload_batch(
        &mut self,
        model: &PackedModel,
        options: &SessionOptions,
        sequences: usize,
    ) -> Result<Option<CudaModel>> {
        self.upload_for(&Need::of_batch(model, options, sequences))
    }

    fn upload_for(&mut self, need: &Need<'_>) -> Result<Option<CudaModel>> {
        let Some(gpu) = &self.gpu else {
            return Ok(None);
        };
        let at = gpu.ordinal();
        match need.upload(gpu) {
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

/// A model, and what is to be done with it on a GPU.
struct Need<'a> {
    model: &'a PackedModel,
    context: usize,
    kv: KvType,
    sequences: usize,
    /// What a context, a type of cache and a number of sequences take.
    memory: Box<Memory<'a>>,
}

/// Bytes of a context, a type of cache and a number of sequences.
type Memory<'a> = dyn Fn(usize, KvType, usize) -> Result<CudaMemory, CudaRuntimeError> + 'a;

impl<'a> Need<'a> {
    fn of_session(model: &'a PackedModel, context: usize, kv: KvType) -> Self {
        Self {
            model,
            context,
            kv,
            sequences: 1,
            memory: Box::new(|context, kv, _| CudaModel::memory(model, context, kv)),
        }
    }

    fn of_batch(model: &'a PackedModel, options: &'a SessionOptions, sequences: usize) -> Self {
        Self {
            model,
            context: options.context,
            kv: options.kv,
            sequences,
            memory: Box::new(|context, kv, sequences| {
                let options = SessionOptions {
                    context,
                    kv,
                    chunk: options.chunk.min(context.saturating_mul(sequences)),
                    logit_rows: options.logit_rows.min(sequences),
                };
                CudaModel::batch_memory(model, &options, sequences)
            }),
        }
    }

    /// The model on `gpu`, or why not and what would be possible.
    fn upload(&self, gpu: &Gpu) -> Result<CudaModel, String> {
        let free = gpu.free_memory().map_err(|e| e.to_string())?.saturating_sub(RESERVE);
        self.check(free)?;
        CudaModel::new(gpu, self.model).map_err(|e| e.to_string())
    }

    /// Whether a GPU has the kernels and, with `free` bytes, the memory.
    fn check(&self, free: u64) -> Result<(), String> {
        let needed = (self.memory)(self.context, self.kv, self.sequences).map_err(|e| e.to_string())?;
        if needed.total() <= free {
            return Ok(());
        }
        let each = match self.sequences {
            1 => String::new(),
            sequences => format!(" for each of {sequences} answers"),
        };
        Err(format!(
            "the model with a context of {} tokens{each} needs {} of GPU memory and {} is available; {}",
            self.context,
            output::bytes(needed.total()),
            output::bytes(free),
            self.advice(needed, free)
        ))
    }

    /// What would fit in `free` bytes.
    fn advice(&self, needed: CudaMemory, free: u64) -> String {
        let &Need {
            model,
            context,
            kv,
            sequences,
            ..
        } = self;
        let fit = |context, kv, sequences| (self.memory)(context, kv, sequences).unwrap_or(needed).total() <= free;
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
                .filter(|&kv| fit(context, kv, sequences))
                .map(|kv| format!("--kv-type {}", kv.name())),
        );
        let halves = |n: usize| std::iter::successors(Some(n / 2), |n| (*n > 1).then_some(n / 2)).filter(|n| *n > 0);
        let shorter = halves(context).find(|&n| fit(n, kv, sequences));
        fits.extend(shorter.map(|n| format!("a context of {n} tokens")));
        let fewer = halves(sequences).find(|&n| fit(context, kv, n));
        fits.extend(fewer.map(|n| format!("--parallel {n}")));
        match fits.is_empty() {
            true => "nothing smaller of this model fits".to_string(),
            false => format!("this would fit: {}", fits.join("; or ")),
        }
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
        let need = Need::of_session(&model, context, KvType::F32);
        assert_eq!(need.check(needed.total()), Ok(()));
        let why = |free| need.check(free).unwrap_err();
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

        // Of many sequences, fewer are an answer too.
        let options = SessionOptions {
            chunk: 32,
            logit_rows: 16,
            ..SessionOptions::new(context)
        };
        let memory = |sequences| (Need::of_batch(&model, &options, sequences).memory)(context, KvType::F32, sequences);
        let told = (Need::of_batch(&model, &options, 16).check(memory(8).unwrap().total())).unwrap_err();
        assert!(
            told.contains("each of 16 answers") && told.contains("--parallel 8"),
            "{told}"
        );
        assert_eq!(
            Need::of_batch(&model, &options, 16).check(memory(16).unwrap().total()),
            Ok(())
        );
        let model = random::model(config, 1, FloatStorage::Int4, true).unwrap();
        assert_eq!(Need::of_session(&model, context, KvType::F32).check(u64::MAX), Ok(()));
    }
}
