//! What a run reports of a model in training: weights that are zero, clipped or flipped, and where a number stopped being one.

use onebit_kernels_cuda::weights::COUNTS;
use onebit_kernels_cuda::{DeviceArray, Pinned};

use super::CudaNetwork;
use crate::config::{LinearMode, TensorSpec};
use crate::network::{NetworkError, Result};

/// What [`CudaNetwork::count`] found, on the host.
#[derive(Debug)]
pub struct CountsOnHost {
    counts: Pinned<u32>,
    gammas: Pinned<f32>,
}

impl CudaNetwork {
    /// Launches the counting of zeros, clipped weights and trits that differ from those of the last forward, for each ternary matrix of the master weights as they
    /// are now; [`CudaNetwork::read_counts`] copies the result.
    ///
    /// # Errors
    /// The driver's.
    pub fn count(&self) -> Result<()> {
        let (a, blocks) = (&self.arrays, 0..self.layout.matrix_count());
        if let Some(divided) = &self.divided {
            return divided.count(&self.gpu, a);
        }
        self.table
            .measure(&self.gpu, blocks.clone(), &a.parameters, &a.scales)?;
        Ok(self
            .table
            .statistics(&self.gpu, blocks, &a.parameters, Some(&a.codes), &a.counts)?)
    }

    /// Launches the quantisation of the master weights for [`CudaNetwork::count`] to compare with, in stages whose forward does not do it.
    ///
    /// # Errors
    /// The driver's.
    pub fn quantize_codes(&self) -> Result<()> {
        let (a, blocks) = (&self.arrays, 0..self.layout.matrix_count());
        if let Some(divided) = &self.divided {
            return divided.quantize_codes(&self.gpu, a);
        }
        self.table
            .measure(&self.gpu, blocks.clone(), &a.parameters, &a.scales)?;
        Ok(self.table.write(
            &self.gpu,
            blocks,
            &a.parameters,
            &a.scales,
            Some(&a.codes),
            None,
            &a.anneal,
        )?)
    }

    /// Room on the host for what [`CudaNetwork::count`] finds.
    ///
    /// # Errors
    /// No memory.
    pub fn counts_on_host(&self) -> Result<CountsOnHost> {
        Ok(CountsOnHost {
            counts: self.gpu.pinned(self.arrays.counts.len())?,
            gammas: self.gpu.pinned(self.gammas().len())?,
        })
    }

    /// Starts copying what [`CudaNetwork::count`] found.
    ///
    /// # Errors
    /// The driver's.
    pub fn read_counts(&self, to: &mut CountsOnHost) -> Result<()> {
        self.gpu.read_pinned(&self.arrays.counts, &mut to.counts)?;
        Ok(self.gpu.read_pinned(self.gammas(), &mut to.gammas)?)
    }

    /// γ of the blocks' matrices, in order.
    fn gammas(&self) -> &DeviceArray<f32> {
        match &self.divided {
            Some(divided) => divided.gammas(),
            None => self.table.gammas(),
        }
    }

    /// Of each ternary matrix the index of its parameter, γ, and how many weights are zero, clipped and flipped.
    pub fn ternary_counts<'a>(
        &'a self,
        from: &'a CountsOnHost,
    ) -> impl Iterator<Item = (usize, f32, [u32; COUNTS])> + 'a {
        let matrices = self.layout.blocks.iter().flat_map(|b| &b.matrices);
        let counts = from.counts.as_slice().chunks_exact(COUNTS);
        matrices
            .zip(counts.zip(from.gammas.as_slice()))
            .filter(|(m, _)| m.mode == LinearMode::Ternary)
            .map(|(m, (counts, gamma))| (m.index, *gamma, [counts[0], counts[1], counts[2]]))
    }

    /// The first place in the last forward, or else the first gradient of its backward, with a number that is not finite.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn first_not_finite(&self, specs: &[TensorSpec]) -> Result<Option<String>> {
        let finite =
            |array: &DeviceArray<f32>| Ok::<_, NetworkError>(self.gpu.download(array)?.iter().all(|x| x.is_finite()));
        let b = &self.buffers;
        for (i, block) in b.blocks.iter().enumerate() {
            let before = match i.checked_sub(1) {
                Some(before) => format!("model.layers.{before}.mlp"),
                None => "model.embed_tokens".into(),
            };
            if !finite(&block.x_in)? {
                return Ok(Some(before));
            }
            // With recomputation the blocks share this array.
            if !self.shape.recompute && !finite(&block.x_mid)? {
                return Ok(Some(format!("model.layers.{i}.self_attn")));
            }
        }
        if !finite(&b.x_last)? {
            return Ok(Some(format!("model.layers.{}.mlp", b.blocks.len() - 1)));
        }
        if !finite(&b.nll)? {
            return Ok(Some("lm_head".into()));
        }
        for (index, spec) in specs.iter().enumerate() {
            let finite = match self.matrix_gradients().zip(self.layout.codes_range(index)) {
                Some((narrow, range)) => self.gpu.download(&narrow.slice(range))?.iter().all(|x| x.is_finite()),
                None => finite(&self.gradient(index))?,
            };
            if !finite {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
    }
}
