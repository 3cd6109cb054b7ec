//! Dropout at its places, in the forward and, with the same masks, in the backward.

use half::bf16;
use onebit_kernels_cuda::DeviceArray;
use onebit_kernels_cuda::dropout::{Dropout, Droppable, RowNumbers, drop_in_place, drop_rows_in_place};

use super::CudaNetwork;
use crate::network::dropout::{BRANCHES, ELEMENTS, EMBEDDING_SITE, OUTPUT, PROBABILITIES, WORDS, attention_site};
use crate::network::{DropoutRates, Result};

impl CudaNetwork {
    /// Dropout with the numbers of `purpose`, if the run drops anything there.
    fn drop<'a>(
        &self,
        p: impl Fn(&DropoutRates) -> f32,
        purpose: u32,
        number: &'a DeviceArray<u32>,
    ) -> Option<Dropout<'a>> {
        let run = self.dropout?;
        let p = p(&run.rates);
        (p > 0.0).then_some(Dropout {
            p,
            seed: run.seed,
            purpose,
            step: number,
        })
    }

    /// The number of the micro-batch.
    pub(super) fn number(&self) -> DeviceArray<u32> {
        self.arrays.numbers.slice(..1)
    }

    /// Hidden dropout behind place `site`.
    pub(super) fn hidden_dropout<'a>(&self, site: u32, number: &'a DeviceArray<u32>) -> Option<Dropout<'a>> {
        self.drop(|rates| rates.hidden, ELEMENTS.wrapping_add(site), number)
    }

    /// Dropout of the probabilities of the attention of `block`.
    pub(super) fn probability_dropout<'a>(&self, block: usize, number: &'a DeviceArray<u32>) -> Option<Dropout<'a>> {
        let purpose = PROBABILITIES.wrapping_add(attention_site(block));
        self.drop(|rates| rates.attention, purpose, number)
    }

    /// Launches word and input dropout on the embedded tokens or their gradient.
    pub(super) fn drop_embedded(&self, x: &DeviceArray<f32>) -> Result<()> {
        let number = self.number();
        if let Some(drop) = self.drop(|rates| rates.word, WORDS, &number) {
            let ids = RowNumbers::Ids(&self.arrays.ids);
            drop_rows_in_place(&self.gpu, x, self.config.hidden_size, ids, &drop)?;
        }
        match self.drop(|rates| rates.input, ELEMENTS.wrapping_add(EMBEDDING_SITE), &number) {
            Some(drop) => Ok(drop_in_place(&self.gpu, x, &drop)?),
            None => Ok(()),
        }
    }

    /// Launches stochastic depth on the branch of `block` that ends at `site`, or on its gradient.
    pub(super) fn drop_branch(&self, x: &DeviceArray<bf16>, block: usize, site: u32) -> Result<()> {
        let (number, blocks) = (self.number(), self.buffers.blocks.len());
        match self.drop(
            |rates| rates.depth_of(block, blocks),
            BRANCHES.wrapping_add(site),
            &number,
        ) {
            Some(drop) => {
                let sequences = RowNumbers::Together(self.shape.seq);
                Ok(drop_rows_in_place(
                    &self.gpu,
                    x,
                    self.config.hidden_size,
                    sequences,
                    &drop,
                )?)
            }
            None => Ok(()),
        }
    }

    /// Launches output dropout on the head's input or its gradient.
    pub(super) fn drop_output<T: Droppable>(&self, x: &DeviceArray<T>) -> Result<()> {
        let number = self.number();
        match self.drop(|rates| rates.output, OUTPUT, &number) {
            Some(drop) => Ok(drop_in_place(&self.gpu, x, &drop)?),
            None => Ok(()),
        }
    }
}
