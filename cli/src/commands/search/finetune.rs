//! Training under the map that was found: the weights get used to it, and learn from the model that it was made of.

use std::path::Path;

use onebit_model::config::{LinearMode, MatrixSite};
use onebit_model::files::{HfDirectory, OneFile, held_mode};
use onebit_model::network::Network;
use onebit_trainer::finetune::{FineTune, Text, finetune};
use onebit_trainer::run::Event;
use onebit_trainer::search::{Candidate, Evaluator};

use super::options::Finetune;
use super::outcome::Finetuned;
use super::setup::{Work, interruption};
use crate::commands::eval::read_corpus;
use crate::device::Placement;
use crate::progress::Progress;
use crate::{CliError, Result, interrupt};

/// The trained weights, as floats in a directory of the work folder. A run that is there goes on, and one that is done is done.
pub(super) fn tune(work: &Work<'_>, map: &Candidate, how: &Finetune, place: &Placement) -> Result<HfDirectory> {
    let (source, device) = (work.subject.source(), place.device());
    let tokenizer = work.subject.tokenizer.as_ref();
    let tokenizer = tokenizer.ok_or_else(|| CliError::Failed("--model: it has no tokenizer".into()))?;
    let network = Network::from_source(work.palette.config_of(map), device, source)?;
    let corpus = read_corpus(&how.data, tokenizer, source.config().vocab_size)?;
    let options = format!("{} {} {} {}", how.steps, how.lr, how.batch_size, work.plan.seed);
    let name = work.palette.name_of(map, &options, &corpus.ids);
    let directory = work.plan.in_work(&format!("finetune-{name}"));
    let tune = FineTune {
        steps: how.steps,
        lr: how.lr,
        seed: work.plan.seed,
        teacher: Some(teacher(work, place)?),
        batch_size: how.batch_size,
        seq_len: work.context,
        gpu: place.gpu.clone(),
        tokenizer: tokenizer.json().to_vec(),
        generation: Default::default(),
    };
    let progress = Progress::new("fine-tuning", how.steps);
    let mut told = |event: Event<'_>| {
        if let Event::Step(step) = event {
            progress.set(step.step, || format!("loss {:.4}", step.loss));
        }
    };
    let stop = interrupt::poll();
    let done = finetune(network, Text::Ids(&corpus.ids), &tune, &directory, stop, &mut told)?;
    interrupt::forget();
    match done {
        Some(_) => Ok(HfDirectory::open(&directory)?),
        None => Err(interruption(work.plan)),
    }
}

/// The model that is compressed: what it was trained in, full precision or trits.
fn teacher(work: &Work<'_>, place: &Placement) -> Result<Network> {
    let source = work.subject.source();
    let mut config = source.config().clone();
    for site in config.sites() {
        let (name, ..) = config.matrix_at(site);
        let trits = held_mode(source, site, &name)?.is_ternary() && matches!(site, MatrixSite::Linear { .. });
        let mode = if trits { config.mode_at(site) } else { LinearMode::F16 };
        config.set_mode_at(site, mode);
    }
    Ok(Network::from_source(config, place.device(), source)?)
}

/// What the packed model scores.
pub(super) fn scored(work: &Work<'_>, how: &Finetune, path: &Path) -> Result<Finetuned> {
    let model = OneFile::open(path)?.model()?;
    let some = work
        .evaluator
        .calibration
        .ids(work.evaluator.stages().last().copied().unwrap_or(1));
    let loss = work.evaluator.score(&model, some, &|_| ())?;
    let whole = work.score_whole(&model)?;
    Ok(Finetuned {
        steps: how.steps,
        loss,
        ppl: loss.exp(),
        whole_loss: whole,
        whole_ppl: whole.exp(),
    })
}
