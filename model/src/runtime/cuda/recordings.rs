//! A token, and several, as recordings, for contexts of growing length.

use onebit_kernels_cuda::Graph;
use onebit_kernels_cuda::decode::{DecodeState, Logits};

use super::{CudaModel, CudaRuntimeError};

/// Tokens of the longer recording.
pub(super) const STEPS: usize = 8;
/// Positions of the first recordings; those behind them have twice as many each.
const FIRST: usize = 128;

/// Recordings for tokens below a position.
pub(super) struct Recorded {
    /// One token: its logits, the next id and position.
    pub step: Graph,
    /// [`STEPS`] tokens, each the one with the largest logit, all that is known of them: between recordings the GPU waits for some microseconds.
    pub steps: Graph,
}

/// Recordings of a session, made when they are first needed: their grids fit the positions that are seen, not those that there is room for.
pub(super) struct Recordings(Vec<Option<Recorded>>);

impl Recordings {
    /// Those for the first positions; the kernels of all are compiled.
    pub fn new(model: &CudaModel, state: &DecodeState, context: usize) -> Result<Self, CudaRuntimeError> {
        let all = context.div_ceil(FIRST).next_power_of_two().trailing_zeros() as usize + 1;
        let mut recordings = Recordings((0..all).map(|_| None).collect());
        if all > 1 {
            model
                .gpu
                .compile_for(|| model.model.step(&model.gpu, state, 1, Logits::Largest))?;
        }
        recordings.up_to(1, model, state)?;
        Ok(recordings)
    }

    /// Those for tokens below `positions`, at least 1 and at most the session's context.
    pub fn up_to(
        &mut self,
        positions: usize,
        model: &CudaModel,
        state: &DecodeState,
    ) -> Result<&Recorded, CudaRuntimeError> {
        let index = positions.div_ceil(FIRST).next_power_of_two().trailing_zeros() as usize;
        let recorded = match self.0[index].take() {
            Some(recorded) => recorded,
            None => Recorded::new(model, &state.expecting(FIRST << index))?,
        };
        Ok(self.0[index].insert(recorded))
    }
}

impl Recorded {
    fn new(model: &CudaModel, state: &DecodeState) -> Result<Self, CudaRuntimeError> {
        let record = |count: usize, logits: Logits| {
            let gpu = &model.gpu;
            gpu.record(|| (0..count).try_for_each(|_| model.model.step(gpu, state, 1, logits)))
        };
        Ok(Recorded {
            step: record(1, Logits::Next)?,
            steps: record(STEPS, Logits::Largest)?,
        })
    }
}
