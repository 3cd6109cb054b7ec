//! `onebit train`: a training run.

mod disk;
mod dry_run;
mod local;
mod memory;
mod prepare;
mod ranks;
mod running;
mod shards;
mod teacher;

use std::path::PathBuf;

use argh::FromArgs;

pub(super) use memory::Memory;
pub(super) use ranks::{Ranks, ranks_on_gpus};
pub(crate) use ranks::{checkpoint_step, newest_checkpoint};
pub(super) use shards::Shards;

/// Trains a model on a token file: full precision, then annealing, then ternary.
#[derive(FromArgs, argh::ArgsInfo, Clone, Debug)]
#[argh(
    subcommand,
    name = "train",
    example = "{command_name} --config wikitext2-cpu --data train.tokens --val valid.tokens --tokenizer tokenizer.json --output-dir model",
    note = "Where a default is the preset's, `--dry-run` shows it. Presets: quickstart, shakespeare-tiny, wikitext2-cpu, wikitext2-production, wikitext2-25m, wikitext2-35m, stories-3m, stories-mcu, 25m, 125m, 350m, 0.7b, 1b3, 2b4t, 8b, 0.3b-stack, 0.7b-stack, 1.3b-stack, 8b-gcp.",
    note = "Several GPUs: --gpus 2 starts two ranks on this machine; torchrun, srun and mpirun start them on several, each with a GPU of its own. A step then has the micro-batches of all ranks. Ranks of other machines need a secret: the same random text in ONEBIT_SECRET, or --secret-file. If one is lost, all end within a minute; --resume goes on, also with another number of ranks.",
    note = "While it trains a line says step, loss, phase, learning rate, tokens a second, the share of the machine's peak (6 operations a weight and token, and attention's, over what the CPU was measured to do in the run's arithmetic, or the data sheet of a known GPU) and the time left.",
    note = "The output directory becomes a model directory, with metrics.jsonl, run.json (what it ran on and took), curves.svg, layers.svg and checkpoints beside the weights; `onebit report` makes one page of them. Ctrl-C saves a checkpoint and ends with status 130; --resume with the same options goes on from it, byte for byte."
)]
pub struct Train {
    /// preset, config.json or model directory; with --init-from what becomes of its weights (default: as they are there)
    #[argh(option)]
    config: Option<String>,
    /// token file to train on
    #[argh(option)]
    data: Option<PathBuf>,
    /// the same as --data
    #[argh(option)]
    data_dir: Option<PathBuf>,
    /// token file to validate on (default: none)
    #[argh(option)]
    val: Option<PathBuf>,
    /// the same as --val
    #[argh(option)]
    val_data_dir: Option<PathBuf>,
    /// the tokenizer.json that made the token files
    #[argh(option)]
    tokenizer: PathBuf,
    /// where the run and its model go
    #[argh(option)]
    output_dir: Option<PathBuf>,
    /// go on from the newest whole checkpoint in --output-dir
    #[argh(switch)]
    resume: bool,
    /// first weights: normal, or mimetic for attention that begins as matching and copying (default: the preset's; not with --init-from)
    #[argh(option)]
    init: Option<String>,
    /// soft-cap of a new model's logits: C * tanh(logits / C), such as 30 (default: as the configuration says; not with --init-from)
    #[argh(option)]
    logit_softcap: Option<f32>,
    /// begin with the weights of this model, a directory or a file, floats or packed; --config may give its tensors other modes
    #[argh(option)]
    init_from: Option<PathBuf>,
    /// check everything that a run needs, print what it would be and take, and stop
    #[argh(switch)]
    dry_run: bool,
    /// sequences of a micro-batch (default: the preset's)
    #[argh(option)]
    batch_size: Option<usize>,
    /// tokens of a sequence (default: the preset's)
    #[argh(option)]
    seq_len: Option<usize>,
    /// micro-batches of an optimiser step, of each rank if there are several (default: the preset's)
    #[argh(option)]
    accumulation_steps: Option<usize>,
    /// optimiser steps; 0 for as many as --max-epochs takes (default: the preset's)
    #[argh(option)]
    max_steps: Option<u64>,
    /// passes over the data; 0 for no limit (default: 0)
    #[argh(option)]
    max_epochs: Option<u64>,
    /// peak learning rate (default: the preset's)
    #[argh(option)]
    lr: Option<f32>,
    /// learning rate at the end (default: the preset's)
    #[argh(option)]
    lr_min: Option<f32>,
    /// steps of linear warm-up (default: the preset's)
    #[argh(option)]
    lr_warmup_steps: Option<u64>,
    /// cosine, linear, wsd, two-stage or none (default: cosine)
    #[argh(option)]
    lr_decay: Option<String>,
    /// adamw, adamw8bit for moments in a quarter of the memory, or muon for the blocks' matrices (default: the preset's)
    #[argh(option)]
    optimizer: Option<String>,
    /// what gradients of the blocks' matrices are rounded to: f32, or on a GPU bf16 for half the memory (default: f32)
    #[argh(option)]
    gradients: Option<String>,
    /// arithmetic of the matrix products: f32, bf16, or auto for bf16 where the CPU is faster with it (default: auto)
    #[argh(option)]
    precision: Option<String>,
    /// decoupled weight decay of the linears (default: the preset's)
    #[argh(option)]
    weight_decay: Option<f32>,
    /// the part of the run for which weight decay lasts, from 0 to 1 (default: 1; BitNet's two stages: 0.5)
    #[argh(option)]
    weight_decay_until: Option<f32>,
    /// largest global gradient norm; 0 for any (default: the preset's)
    #[argh(option)]
    grad_clip_max_norm: Option<f32>,
    /// label smoothing of the minimised loss (default: the preset's)
    #[argh(option)]
    label_smoothing: Option<f32>,
    /// factor of the squared log-sum-exp in the minimised loss, such as 1e-4 (default: 0)
    #[argh(option)]
    z_loss: Option<f32>,
    /// a model directory whose probabilities are learned beside the text, again for each of several (default: none)
    #[argh(option)]
    teacher: Vec<PathBuf>,
    /// the teachers' share of what is learned, above 0 and at most 1 (default: the preset's, else 0.5)
    #[argh(option)]
    teacher_weight: Option<f32>,
    /// train a teacher first, the preset's or else the same model in full precision, for so many steps, in the folder teacher of --output-dir; 0 for none (default: the preset's)
    #[argh(option)]
    teacher_steps: Option<u64>,
    /// teachers that are trained first, from seeds that follow --seed, in the folders teacher-1, teacher-2 and so on if there are several (default: the preset's, else 1)
    #[argh(option)]
    teacher_count: Option<usize>,
    /// dropout on residual branches, and on the embedded tokens unless --input-dropout says otherwise (default: the preset's)
    #[argh(option)]
    dropout: Option<f32>,
    /// dropout on the embedded tokens (default: as --dropout, or the preset's)
    #[argh(option)]
    input_dropout: Option<f32>,
    /// dropout of attention's probabilities, behind the softmax (default: 0)
    #[argh(option)]
    attention_dropout: Option<f32>,
    /// dropout on the input of the head (default: the preset's)
    #[argh(option)]
    output_dropout: Option<f32>,
    /// dropout of whole words: each is gone everywhere in a micro-batch with this probability (default: the preset's)
    #[argh(option)]
    word_dropout: Option<f32>,
    /// probability that a sequence passes by a branch of the last block; less for the blocks before it (default: 0)
    #[argh(option)]
    stochastic_depth: Option<f32>,
    /// what the linears become: ternary, binary, or none for the same model in full precision, without phases (default: as the configuration says)
    #[argh(option)]
    quant: Option<String>,
    /// steps in full precision (default: the preset's; its share of --max-steps if that is given)
    #[argh(option)]
    quant_warmup_steps: Option<u64>,
    /// steps from full precision to ternary (default: as --quant-warmup-steps)
    #[argh(option)]
    quant_anneal_steps: Option<u64>,
    /// steps between checkpoints; 0 for one at the end (default: the preset's)
    #[argh(option)]
    save_every: Option<u64>,
    /// checkpoints kept (default: 2)
    #[argh(option)]
    keep: Option<usize>,
    /// keep the checkpoint with the lowest validation loss on ternary weights besides
    #[argh(switch)]
    keep_best: bool,
    /// steps in a row with a loss or gradient that is not finite after which the run stops; those before are skipped (default: 3)
    #[argh(option)]
    max_skipped_steps: Option<u64>,
    /// go back to the newest checkpoint, and on with other data, after three losses so many standard deviations above the mean (default: 0, never)
    #[argh(option)]
    spike_guard: Option<f32>,
    /// steps between validations; 0 for one at the end (default: the preset's)
    #[argh(option)]
    eval_every: Option<u64>,
    /// validation windows of one validation; 0 for all (default: 64)
    #[argh(option)]
    eval_windows: Option<usize>,
    /// begin every window at a document, not anywhere: for short documents that do not belong together
    #[argh(switch)]
    align_documents: bool,
    /// write scalars for TensorBoard into this directory: loss, perplexity, learning rate, speed, zeros and flips of each matrix (default: none)
    #[argh(option)]
    tensorboard: Option<PathBuf>,
    /// take the terminal for curves, matrices and notes; q ends the run with a checkpoint. Where there is no terminal there are lines
    #[argh(switch)]
    tui: bool,
    /// have the model say something at each checkpoint, and keep it in samples.jsonl for `onebit report`; it takes a thread and the model's memory once more
    #[argh(switch)]
    samples: bool,
    /// steps between layer metrics (default: 10)
    #[argh(option)]
    log_every: Option<u64>,
    /// seed of weights, data order and dropout (default: 42)
    #[argh(option)]
    seed: Option<u64>,
    /// keep only the input of each block and compute blocks again for their gradients: less memory on a GPU, a third more work
    #[argh(switch)]
    recompute: bool,
    /// train on so many GPUs of this machine, each with micro-batches of its own (default: 1, or as a launcher says)
    #[argh(option)]
    gpus: Option<usize>,
    /// what ranks divide among them instead of all having it: none, optimizer for the moments, or on GPUs parameters for the master weights of the blocks as well (default: none)
    #[argh(option)]
    shard: Option<String>,
    /// how long ranks wait for one another at the beginning, in seconds (default: 600)
    #[argh(option)]
    rendezvous_timeout: Option<u64>,
    /// a file with the secret of the ranks (default: ONEBIT_SECRET; not needed on one machine)
    #[argh(option)]
    secret_file: Option<PathBuf>,
    /// replace what an earlier run left in --output-dir
    #[argh(switch)]
    force: bool,
    /// auto, cpu, cuda or cuda:N (default: auto)
    #[argh(option)]
    device: Option<String>,
    /// threads (default: physical cores)
    #[argh(option)]
    threads: Option<usize>,
    /// print the result as JSON
    #[argh(switch)]
    json: bool,
}
