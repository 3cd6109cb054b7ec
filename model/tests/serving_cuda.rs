//! The scheduler over a batch on a GPU: the answers are those of the CPU's.

mod common;

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};

use common::{config, random_model};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cuda::Gpu;
use onebit_model::config::ModelConfig;
use onebit_model::files::OneFile;
use onebit_model::generation::{Finish, Logprobs};
use onebit_model::runtime::cuda::{CudaBatch, CudaModel};
use onebit_model::runtime::{FloatStorage, KvType, Pool};
use onebit_model::sampling::{SamplingParams, StopStrings};
use onebit_model::serving::{Event, Job, Load, Options, serve, serve_with};

/// Jobs that all wait when the loop begins, and where their events come.
fn jobs(prompt: &[u32]) -> (Receiver<Job>, Vec<Receiver<Event>>) {
    let (jobs, coming) = channel();
    let events = (0..9).map(|seed| {
        let (to, from) = channel();
        let sampling = match seed % 3 {
            0 => SamplingParams::greedy(),
            _ => SamplingParams {
                seed,
                ..SamplingParams::default()
            },
        };
        let job = Job {
            // Beginnings that some have in common.
            prompt: prompt[..1 + (5 * seed as usize) % prompt.len()].to_vec(),
            max_tokens: 4 + seed as usize,
            sampling,
            stops: StopStrings::new(Vec::<String>::new()).unwrap(),
            logprobs: (seed % 2 == 0).then_some(2),
            deadline: None,
            sink: Box::new(move |event| to.send(event).is_ok()),
        };
        jobs.send(job).unwrap();
        from
    });
    (coming, events.collect())
}

/// The answers: tokens, how likely each was, and why they ended.
fn told(events: Vec<Receiver<Event>>) -> Vec<(Vec<u32>, Vec<Logprobs>, Finish)> {
    let answer = |events: Receiver<Event>| {
        let (mut ids, mut logprobs) = (Vec::new(), Vec::new());
        loop {
            match events.recv().unwrap() {
                Event::Piece(piece) => {
                    ids.extend(piece.ids);
                    logprobs.extend(piece.logprobs);
                }
                Event::End(end) => return (ids, logprobs, end.finish),
                Event::Failed(failure) => panic!("{failure}"),
            }
        }
    };
    events.into_iter().map(answer).collect()
}

#[test]
fn cuda_answers_are_those_of_the_cpu() {
    let gpu = match Gpu::open(0) {
        Ok(gpu) => gpu,
        Err(error) => {
            println!("SKIPPED (no GPU): answers on a GPU; {error}");
            return;
        }
    };
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/stories-mcu/stories-mcu.1bit"
    ));
    let file = OneFile::open(&path).unwrap();
    // That model has heads that no kernel takes; another one with its vocabulary.
    let tokenizer = file.tokenizer().unwrap();
    let config = ModelConfig {
        vocab_size: tokenizer.vocab_size(),
        max_position_embeddings: 64,
        ..config()
    };
    let model = random_model(&config, 3, FloatStorage::F16);
    let on_gpu = CudaModel::new(&gpu, &model).unwrap();
    let prompt = tokenizer.encode("The cow and the dog were in the garden.").unwrap();
    for (kv, sequences) in KvType::ALL.into_iter().zip([4, 1, 9]) {
        let options = Options {
            isa: Isa::best(),
            sequences,
            context: 64,
            prefill: 20,
            kv,
            ends: tokenizer.eos().into_iter().collect(),
            suppress: vec![3],
        };
        let (coming, events) = jobs(&prompt);
        let pool = Pool::new(1).unwrap();
        serve(&model, pool, &tokenizer, options.clone(), coming, &Load::default()).unwrap();
        let expected = told(events);
        assert!(expected.iter().any(|(ids, _, _)| ids.len() > 4));

        let (coming, events) = jobs(&prompt);
        let batch = CudaBatch::new(&on_gpu, options.session(), sequences).unwrap();
        serve_with(batch, &tokenizer, options, coming, &Load::default()).unwrap();
        assert_eq!(told(events), expected, "{kv:?}");
    }
}
