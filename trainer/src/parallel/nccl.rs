//! Ranks on GPUs, a GPU each: what of a step goes between them, over NCCL.
//!
//! ```text
//! backward      a bucket's gradients are complete      its sum begins, beside the backward of the blocks before it
//!                 nothing sharded                        every rank gets all sums
//!                 the optimiser sharded                  every rank gets the sums of its part, and of the tail
//! losses        of all ranks' micro-batches, and whether a rank wants to stop
//! norm          each rank squares its parts; the ranks' sums, an f64 each, are gathered
//! update        of this rank's pieces
//! weights       where the optimiser is sharded: every rank's parts are gathered; where the blocks' matrices are too, what products read of them is, when the next step begins
//! ```
//! All of it is part of a step's recording. The norm is put together in the same order whether the optimiser is sharded or not, so that the bytes of a run do not depend on that.

use std::ops::Range;
use std::sync::Arc;

use onebit_kernels_cuda::Gpu;
use onebit_kernels_cuda::nccl::{Communicator, Summed, UniqueId};
use onebit_kernels_cuda::optimizer::Gradients;
use onebit_kernels_cuda::{DeviceArray, Element};
use onebit_model::network::cuda::{Bucket, CudaNetwork, Deal, Layout};

use super::{ParallelError, World};
use crate::options::Sharding;
use crate::{Result, TrainError};

/// One rank's side.
#[derive(Debug)]
pub(crate) struct CudaRanks {
    links: Arc<Communicator>,
    deal: Deal,
    sharding: Sharding,
}

impl CudaRanks {
    /// Joins the ranks of `world`, with `gpu`. Waits for all of them.
    ///
    /// # Errors
    /// No NCCL on one of them, what NCCL finds wrong with the links.
    pub fn new(world: &World, gpu: &Gpu, layout: &Layout, sharding: Sharding) -> Result<Self> {
        let id = exchanged_id(world)?;
        Ok(CudaRanks {
            links: Arc::new(Communicator::new(gpu, &id, world.rank(), world.size())?),
            deal: Deal::new(layout, (world.rank(), world.size())),
            sharding,
        })
    }

    /// What is dealt to whom.
    pub fn deal(&self) -> &Deal {
        &self.deal
    }

    /// The links to the ranks that divide master weights, if they do.
    pub fn divides_weights(&self) -> Option<Arc<Communicator>> {
        (self.sharding == Sharding::Parameters).then(|| self.links.clone())
    }

    /// Whether moments are divided.
    pub fn divides_moments(&self) -> bool {
        self.sharding != Sharding::None
    }

    /// Whether this is the rank that saves.
    pub fn is_first(&self) -> bool {
        self.deal.rank == 0
    }

    /// Begins the sum of a bucket's gradients, which are complete.
    ///
    /// # Errors
    /// NCCL's.
    pub fn reduce(&self, network: &CudaNetwork, elements: &Range<usize>) -> Result<()> {
        let Some(bucket) = self.deal.buckets.iter().find(|b| b.elements == *elements) else {
            return Err(TrainError::Runtime(format!("{elements:?} is no bucket")));
        };
        self.links.fork()?;
        match GradientSlice::of(network, &bucket.elements) {
            GradientSlice::F32(array) => self.reduce_bucket(bucket, &array),
            GradientSlice::Bf16(array) => self.reduce_bucket(bucket, &array),
        }
    }

    fn reduce_bucket<T: Summed>(&self, bucket: &Bucket, gradients: &DeviceArray<T>) -> Result<()> {
        if self.sharding == Sharding::None {
            return Ok(self.links.all_reduce(gradients)?);
        }
        let dealt = bucket.dealt().len();
        self.links.reduce_scatter(&gradients.slice(..dealt))?;
        Ok(self.links.all_reduce(&gradients.slice(dealt..))?)
    }

    /// Adds up the losses, and lets what follows wait for all sums.
    ///
    /// # Errors
    /// NCCL's.
    pub fn losses(&self, network: &CudaNetwork) -> Result<()> {
        self.links.fork()?;
        self.links.all_reduce(network.losses())?;
        Ok(self.links.join()?)
    }

    /// Brings the parts of an array that is as many equal parts to all, in its place in the order of launches.
    ///
    /// # Errors
    /// NCCL's.
    pub fn gather<T: Element>(&self, array: &DeviceArray<T>) -> Result<()> {
        self.links.fork()?;
        self.links.all_gather(array)?;
        Ok(self.links.join()?)
    }

    /// Brings the weights that each rank has updated to all, but for those that stay where they are.
    ///
    /// # Errors
    /// NCCL's.
    pub fn gather_weights(&self, network: &CudaNetwork) -> Result<()> {
        self.links.fork()?;
        let stays = |bucket: &&Bucket| network.is_divided() && bucket.elements.start >= network.layout().matrices;
        for bucket in self.deal.buckets.iter().filter(|bucket| !stays(bucket)) {
            self.links.all_gather(&network.parameters().slice(bucket.dealt()))?;
        }
        Ok(self.links.join()?)
    }
}

/// Gradients of a stretch of the arenas, in the type that they have.
#[derive(Clone, Debug)]
pub(crate) enum GradientSlice {
    F32(DeviceArray<f32>),
    Bf16(DeviceArray<half::bf16>),
}

impl GradientSlice {
    /// Those of `elements`, which do not lie on both sides of where the blocks' matrices begin.
    pub fn of(network: &CudaNetwork, elements: &Range<usize>) -> Self {
        let matrices = network.layout().matrices;
        match network.matrix_gradients() {
            Some(narrow) if elements.start >= matrices => {
                GradientSlice::Bf16(narrow.slice(elements.start - matrices..elements.end - matrices))
            }
            _ => GradientSlice::F32(network.gradients().slice(elements.clone())),
        }
    }

    /// As the optimiser's kernels take them.
    pub fn as_gradients(&self) -> Gradients<'_> {
        match self {
            GradientSlice::F32(array) => Gradients::F32(array),
            GradientSlice::Bf16(array) => Gradients::Bf16(array),
        }
    }
}

/// The id that rank 0 made. Every rank says whether it has NCCL, and if one has not, all end with that.
fn exchanged_id(world: &World) -> Result<UniqueId> {
    let own = match world.is_first() {
        true => UniqueId::new().map(|id| id.to_bytes().to_vec()),
        false => onebit_kernels_cuda::nccl::version().map(|_| Vec::new()),
    };
    let told = match &own {
        Ok(id) => [&[1], id.as_slice()].concat(),
        Err(error) => [&[0], error.to_string().as_bytes()].concat(),
    };
    let all = world.link().all_gather(&told)?;
    own?;
    for (rank, told) in all.iter().enumerate() {
        if let Some((0, why)) = told.split_first() {
            let why = String::from_utf8_lossy(why).into_owned();
            let host = String::from("its GPU");
            return Err(ParallelError::Failed { rank, host, why }.into());
        }
    }
    let id = all
        .first()
        .and_then(|told| <[u8; UniqueId::BYTES]>::try_from(told.get(1..)?).ok());
    id.map(UniqueId::from_bytes).ok_or_else(|| {
        let what = String::from("no id of NCCL");
        ParallelError::Protocol { rank: 0, what }.into()
    })
}
