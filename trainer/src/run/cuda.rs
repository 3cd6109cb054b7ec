//! Steps on a GPU. The host runs ahead: it fills batches, launches a recording of the whole step, and reads losses a step or two later.

mod plan;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use onebit_engine::Tensor;
use onebit_kernels_cuda::optimizer::{GUARD_WORDS, Guard, STEP_WORDS};
use onebit_kernels_cuda::{CudaError, Event, Gpu, Graph, Pinned, Staging};
use onebit_model::config::TensorSpec;
use onebit_model::network::cuda::{CountsOnHost, CudaDropout, CudaNetwork, CudaTeachers, HostBatch, Layout, Stage};
use onebit_model::network::{Network, NetworkError};

use super::metrics::LayerMetrics;
use crate::optimizer::cuda::{CudaCopy, CudaOptimizer};
use crate::optimizer::{Optimizer, Rates};
use crate::options::TrainOptions;
use crate::parallel::World;
use crate::parallel::nccl::CudaRanks;
use crate::{Result, TrainError};

pub use plan::cuda_memory_estimate;
use plan::{batch_shape, micro_batches};

/// Steps that the host may be ahead.
const AHEAD: usize = 2;

/// What a launched step will tell, and what must stay until it has.
struct Slot {
    batches: Vec<HostBatch>,
    scalars: Pinned<u32>,
    guard: Pinned<u32>,
    losses: Pinned<f32>,
    /// Whether this rank wants to stop: 1, or 0.
    wish: Pinned<f32>,
    counts: CountsOnHost,
}

/// A step that was launched.
struct Launched {
    slot: Slot,
    done: Event,
    step: u64,
    logged: bool,
    stop: bool,
}

/// A copy of weights and moments on the GPU on its way to the host.
pub struct Leaving {
    copy: Arc<CudaCopy>,
    made: Event,
}

impl Leaving {
    /// Waits for the copy and brings it to `parameters` and `optimizer`, beside what training launches.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn arrive(self, parameters: &mut [Tensor], optimizer: &mut Optimizer) -> Result<()> {
        self.made.wait()?;
        self.copy.download(parameters, optimizer)
    }
}

/// What a step told.
#[derive(Clone, Debug)]
pub struct StepResult {
    /// The step, counted from 0.
    pub step: u64,
    /// Mean loss in nats.
    pub loss: f64,
    /// Global norm of the gradients.
    pub grad_norm: f64,
    /// Whether it changed nothing, because a number was not finite.
    pub skipped: bool,
    /// Whether a rank was asked to stop when it launched the step.
    pub stop: bool,
    /// Of the quantised matrices, if the step is logged.
    pub layers: Vec<LayerMetrics>,
}

/// The parts of a step that are recorded.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Part {
    stage: Stage,
    /// Gradients are added to those of micro-batches before.
    accumulate: bool,
    /// The optimiser follows.
    last: bool,
}

/// A run's side on the GPU.
pub struct CudaRun {
    /// First, because fields go in their order: NCCL does not let go of a communicator as long as a recording refers to it.
    graphs: HashMap<Part, Graph>,
    network: CudaNetwork,
    teachers: Option<CudaTeachers>,
    optimizer: CudaOptimizer,
    /// The other ranks, if there are any.
    ranks: Option<CudaRanks>,
    specs: Vec<TensorSpec>,
    tokens: usize,
    free: Vec<Slot>,
    launched: VecDeque<Launched>,
    staging: Staging,
    /// What the last checkpoint was made of, and the next will be.
    copy: Option<Arc<CudaCopy>>,
}

impl std::fmt::Debug for CudaRun {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CudaRun")
            .field("network", &self.network)
            .finish_non_exhaustive()
    }
}

impl CudaRun {
    /// The run of `network`, what it has for `teachers` and the moments of `optimizer` on `gpu`, as a rank of `world`, after `skipped_in_a_row` steps that changed nothing. All ranks come here.
    ///
    /// # Errors
    /// A model that the kernels have no form for, no memory.
    pub fn new(
        (gpu, world): (&Gpu, &World),
        (network, teachers): (&Network, &[Network]),
        optimizer: &Optimizer,
        options: &TrainOptions,
        skipped_in_a_row: u64,
    ) -> Result<Self> {
        let rates = options.dropout_rates();
        let dropout = rates.any().then_some(CudaDropout {
            rates,
            seed: options.seed,
        });
        let accumulation = options.accumulation_steps;
        let extras = (dropout, options.loss_terms());
        let ranks = match world.is_single() {
            true => None,
            false => {
                let layout = Layout::new(network.config(), network.specs())?;
                Some(CudaRanks::new(world, gpu, &layout, options.shard)?)
            }
        };
        let links = ranks.as_ref().and_then(CudaRanks::divides_weights);
        let cuda = CudaNetwork::new_divided(
            gpu,
            network,
            batch_shape(options),
            micro_batches(options),
            extras,
            links,
        )?;
        let teachers = match teachers {
            [] => None,
            teachers => Some(CudaTeachers::new(&cuda, teachers, options.teacher_weight)?),
        };
        let slot = || -> Result<Slot> {
            Ok(Slot {
                batches: (0..accumulation)
                    .map(|_| cuda.host_batch())
                    .collect::<std::result::Result<_, _>>()?,
                scalars: gpu.pinned(STEP_WORDS)?,
                guard: gpu.pinned(GUARD_WORDS)?,
                losses: gpu.pinned(cuda.losses().len())?,
                wish: gpu.pinned(1)?,
                counts: cuda.counts_on_host()?,
            })
        };
        Ok(CudaRun {
            optimizer: CudaOptimizer::new(
                options,
                network.specs(),
                &cuda,
                optimizer,
                (world.rank(), skipped_in_a_row),
            )?,
            specs: network.specs().to_vec(),
            tokens: options.tokens_per_step() as usize,
            free: (0..AHEAD).map(|_| slot()).collect::<Result<_>>()?,
            launched: VecDeque::new(),
            graphs: HashMap::new(),
            staging: Staging::new(gpu)?,
            copy: None,
            network: cuda,
            teachers,
            ranks,
        })
    }

    /// Launches step `step` (counted from 0) on `batches`, one for each micro-batch with its number, and returns what an earlier step told, if one had to be
    /// waited for. `logged` steps tell of the matrices; with `stop` this rank says that it was asked to stop, and the step's result tells whether any was.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn launch(
        &mut self,
        options: &TrainOptions,
        (step, rates, anneal): (u64, Rates, f32),
        batches: impl Iterator<Item = Result<(u64, Vec<u32>, Vec<u32>)>>,
        (logged, stop): (bool, bool),
    ) -> Result<Option<StepResult>> {
        let earlier = if self.free.is_empty() { self.collect()? } else { None };
        let Some(mut slot) = self.free.pop() else {
            return Ok(earlier);
        };
        let gpu = self.network.gpu().clone();
        let stage = Stage::of(anneal);
        slot.scalars
            .as_mut_slice()
            .copy_from_slice(&CudaOptimizer::scalars(options, step, rates));
        self.optimizer.send(&gpu, &slot.scalars)?;
        let mut first_slot = 0;
        if let Some(ranks) = &self.ranks {
            first_slot = ranks.deal().rank * slot.batches.len();
            let losses = self.network.losses();
            slot.wish.as_mut_slice()[0] = f32::from(u8::from(stop));
            gpu.write_pinned(&losses.slice(losses.len() - 1..), &slot.wish)?;
        }
        let last = slot.batches.len() - 1;
        for (i, batch) in batches.enumerate() {
            let (number, ids, targets) = batch?;
            let host = &mut slot.batches[i];
            host.fill((&ids, &targets), number, first_slot + i, anneal)?;
            self.network.send(host)?;
            if let Some(teachers) = &self.teachers {
                teachers.send(host)?;
            }
            if logged && i == 0 && stage != Stage::Hard {
                self.network.quantize_codes()?;
            }
            let part = Part {
                stage,
                accumulate: i > 0,
                last: i == last,
            };
            self.part(part)?;
        }
        if logged {
            self.network.count()?;
            self.network.read_counts(&mut slot.counts)?;
        }
        self.optimizer.read(&gpu, &mut slot.guard)?;
        gpu.read_pinned(self.network.losses(), &mut slot.losses)?;
        self.launched.push_back(Launched {
            slot,
            done: gpu.mark()?,
            step,
            logged,
            stop,
        });
        Ok(earlier)
    }

    /// Launches a part from its recording, which is made the first time.
    fn part(&mut self, part: Part) -> Result<()> {
        if let Some(graph) = self.graphs.get(&part) {
            return Ok(graph.launch()?);
        }
        let (network, teachers, optimizer) = (&self.network, self.teachers.as_ref(), &self.optimizer);
        let ranks = self.ranks.as_ref();
        let launches = || -> Result<()> {
            network.forward_backward_taught::<TrainError>(part.stage, part.accumulate, teachers, &mut |bucket| {
                match ranks.filter(|_| part.last) {
                    Some(ranks) => ranks.reduce(network, bucket),
                    None => Ok(()),
                }
            })?;
            if part.last {
                optimizer.step(network, ranks)
            } else {
                Ok(())
            }
        };
        let mut failed = None;
        let graph = network.gpu().record(|| {
            launches().map_err(|error| match error {
                TrainError::Cuda(error) | TrainError::Network(NetworkError::Cuda(error)) => error,
                other => {
                    let text = other.to_string();
                    failed = Some(other);
                    CudaError::Recording(text)
                }
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        Ok(self.graphs.entry(part).or_insert(graph?).launch()?)
    }

    /// Waits for the oldest step under way, if there is one.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn collect(&mut self) -> Result<Option<StepResult>> {
        let Some(Launched {
            slot,
            done,
            step,
            logged,
            stop,
        }) = self.launched.pop_front()
        else {
            return Ok(None);
        };
        done.wait()?;
        let mut guard = [0; GUARD_WORDS];
        guard.copy_from_slice(slot.guard.as_slice());
        let guard = Guard::from_words(guard);
        let losses = slot.losses.as_slice();
        let loss = losses.chunks_exact(2).map(|l| f64::from(l[0])).sum::<f64>() / self.tokens as f64;
        // Several ranks have summed what they were asked.
        let stop = match losses.chunks_exact(2).remainder() {
            [asked] => *asked > 0.0,
            _ => stop,
        };
        let layers = if logged && guard.applies {
            self.layers(&slot.counts)
        } else {
            Vec::new()
        };
        self.free.push(slot);
        Ok(Some(StepResult {
            step,
            loss,
            grad_norm: f64::from(guard.norm),
            skipped: !guard.applies,
            stop,
            layers,
        }))
    }

    /// Waits for all steps under way and forgets what they told.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn drain(&mut self) -> Result<()> {
        while let Some(launched) = self.launched.pop_front() {
            launched.done.wait()?;
            self.free.push(launched.slot);
        }
        Ok(())
    }

    fn layers(&self, counts: &CountsOnHost) -> Vec<LayerMetrics> {
        let of = |count: u32, len: usize| f64::from(count) / len as f64;
        let matrices = self.network.ternary_counts(counts);
        matrices
            .map(|(index, scale, [zero, clip, flip])| {
                let spec = &self.specs[index];
                LayerMetrics {
                    name: LayerMetrics::short_name(&spec.name),
                    zero: of(zero, spec.len()),
                    plus: None,
                    flip: of(flip, spec.len()),
                    scale,
                    clip: of(clip, spec.len()),
                }
            })
            .collect()
    }

    /// Whether ranks divide moments or weights, and a save takes all of them.
    pub fn is_divided(&self) -> bool {
        self.ranks.as_ref().is_some_and(CudaRanks::divides_moments)
    }

    /// The GPU.
    pub fn gpu(&self) -> &Gpu {
        self.network.gpu()
    }

    /// Copies weights and moments to the host; nothing may be under way that is still to be collected. Where ranks divide them, all call it, and the first of them gets the moments.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn download(&mut self, network: &mut Network, optimizer: &mut Optimizer) -> Result<()> {
        self.network.download(&mut self.staging, network)?;
        self.optimizer
            .download(&self.network, self.ranks.as_ref(), &mut self.staging, optimizer)
    }

    /// Copies weights and moments beside themselves, for a checkpoint that leaves the GPU while training goes on; none where there is no room for a copy, or where ranks divide the moments. That of
    /// the checkpoint before must have left.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn copy(&mut self, options: &TrainOptions) -> Result<Option<Leaving>> {
        if self.is_divided() {
            return Ok(None);
        }
        let copy = match self.copy.take() {
            Some(copy) => copy,
            None => match CudaCopy::new(options.optimizer, &self.network) {
                Ok(copy) => Arc::new(copy),
                Err(TrainError::Cuda(CudaError::OutOfMemory { .. })) => return Ok(None),
                Err(error) => return Err(error),
            },
        };
        copy.fill(&self.network, &self.optimizer)?;
        self.copy = Some(copy.clone());
        Ok(Some(Leaving {
            copy,
            made: self.gpu().mark()?,
        }))
    }

    /// Losses of the tokens of one batch at `anneal`, without dropout.
    ///
    /// # Errors
    /// An id outside the vocabulary, a step that is still to be collected.
    pub fn token_losses(&mut self, ids: &[u32], targets: &[u32], anneal: f32) -> Result<Vec<f32>> {
        let host = match self.free.last_mut().and_then(|slot| slot.batches.first_mut()) {
            Some(host) => host,
            None => return Err(TrainError::Runtime("a step is under way".into())),
        };
        host.fill((ids, targets), 0, 0, anneal)?;
        self.network.send(host)?;
        self.network.evaluate(Stage::of(anneal))?;
        Ok(self.network.gpu().download(self.network.token_losses())?)
    }

    /// The first part of the network whose output is not finite on this batch, or the first parameter whose gradient is not.
    ///
    /// # Errors
    /// What a kernel ran into.
    pub fn not_finite_in(&mut self, batch: (u64, &[u32], &[u32]), anneal: f32) -> Result<Option<String>> {
        let Some(host) = self.free.last_mut().and_then(|slot| slot.batches.first_mut()) else {
            return Ok(None);
        };
        host.fill((batch.1, batch.2), batch.0, 0, anneal)?;
        self.network.send(host)?;
        self.network.forward_backward(Stage::of(anneal), false)?;
        Ok(self.network.first_not_finite(&self.specs)?)
    }
}
