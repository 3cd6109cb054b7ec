//! The scheduler: answers are those of a generator, whoever else is answered, and what was read is not read again.
#![cfg(feature = "std")]

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use onebit_kernels_cpu::Isa;
use onebit_model::files::OneFile;
use onebit_model::generation::{Finish, GenerationError, Generator, GeneratorOptions, Logprobs, Request};
use onebit_model::runtime::{FloatStorage, KvType, PackedModel, Pool};
use onebit_model::sampling::{Sampler, SamplingParams, StopStrings};
use onebit_model::serving::{End, Event, Failure, Job, Load, Options, serve};
use onebit_model::tokenizer::Tokenizer;

/// The stories of `models/stories-mcu`.
fn model() -> (PackedModel, Tokenizer, Vec<u32>) {
    let path = PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../models/stories-mcu/stories-mcu.1bit"
    ));
    let file = OneFile::open(&path).unwrap();
    let (model, tokenizer) = (file.model_as(FloatStorage::F32).unwrap(), file.tokenizer().unwrap());
    let ends = tokenizer.eos().into_iter().collect();
    (model, tokenizer, ends)
}

/// What came of a job.
#[derive(Clone, Debug, Default)]
struct Told {
    text: String,
    ids: Vec<u32>,
    logprobs: Vec<Logprobs>,
    end: Option<End>,
    failure: Option<Failure>,
}

/// Waits for the end of an answer.
fn all(events: &Receiver<Event>) -> Told {
    let mut told = Told::default();
    loop {
        match events.recv_timeout(Duration::from_secs(120)).unwrap() {
            Event::Piece(piece) => {
                assert!(!piece.text.is_empty() || !piece.ids.is_empty());
                told.text.push_str(&piece.text);
                told.ids.extend(piece.ids);
                told.logprobs.extend(piece.logprobs);
            }
            Event::End(end) => {
                told.end = Some(end);
                return told;
            }
            Event::Failed(failure) => {
                told.failure = Some(failure);
                return told;
            }
        }
    }
}

/// A job and where its events come.
fn job(prompt: &[u32], max_tokens: usize, sampling: SamplingParams) -> (Job, Receiver<Event>) {
    let (to, from) = channel();
    let sink = move |event| to.send(event).is_ok();
    let job = Job {
        prompt: prompt.to_vec(),
        max_tokens,
        sampling,
        stops: StopStrings::new(Vec::<String>::new()).unwrap(),
        logprobs: None,
        deadline: None,
        sink: Box::new(sink),
    };
    (job, from)
}

/// Runs a scheduler of `sequences` while `f` sends jobs.
fn scheduled<T>(sequences: usize, prefill: usize, f: impl FnOnce(&Sender<Job>, &Tokenizer, &Load) -> T) -> T {
    let (model, tokenizer, ends) = model();
    let options = Options {
        isa: Isa::best(),
        sequences,
        context: model.config().max_position_embeddings,
        prefill,
        kv: KvType::F32,
        ends,
        suppress: Vec::new(),
    };
    let load = Load::default();
    let (jobs, coming) = channel();
    std::thread::scope(|scope| {
        let thread = scope.spawn({
            let (model, tokenizer, load) = (&model, &tokenizer, &load);
            move || serve(model, Pool::new(2).unwrap(), tokenizer, options, coming, load)
        });
        let result = f(&jobs, &tokenizer, &load);
        drop(jobs);
        thread.join().unwrap().unwrap();
        result
    })
}

/// The same by a generator, alone.
fn alone(prompt: &[u32], max_tokens: usize, sampling: SamplingParams, stops: &[&str], logprobs: Option<usize>) -> Told {
    let (model, tokenizer, ends) = model();
    let context = model.config().max_position_embeddings;
    let mut sampler = Sampler::new(sampling, model.config().vocab_size).unwrap();
    let options = GeneratorOptions {
        isa: Isa::best(),
        threads: 1,
        context,
        lookahead: None,
        exact_head: false,
        kv: KvType::F32,
    };
    let mut generator = Generator::new(model, tokenizer, ends, &sampler, options).unwrap();
    let mut stops = StopStrings::new(stops.iter().copied()).unwrap();
    let request = Request {
        prompt,
        max_tokens: max_tokens.min(context - prompt.len()),
        logprobs,
    };
    let never = AtomicBool::new(false);
    let made = generator
        .generate::<GenerationError>(request, &mut sampler, &mut stops, &never, &mut |_| Ok(()))
        .unwrap();
    Told {
        text: made.text,
        ids: made.ids,
        logprobs: made.logprobs,
        end: Some(End {
            finish: made.finish,
            prompt: prompt.len(),
            reused: 0,
            tokens: 0,
        }),
        failure: None,
    }
}

fn params(seed: u64) -> SamplingParams {
    match seed % 4 {
        0 => SamplingParams::greedy(),
        1 => SamplingParams {
            seed,
            ..SamplingParams::default()
        },
        2 => SamplingParams {
            seed,
            top_k: 0,
            repetition_penalty: 1.0,
            temperature: 1.2,
            ..SamplingParams::default()
        },
        _ => SamplingParams {
            seed,
            top_k: 3,
            ..SamplingParams::default()
        },
    }
}

fn prompts(tokenizer: &Tokenizer) -> Vec<Vec<u32>> {
    let (story, _) = tokenizer_story(tokenizer);
    (0..12).map(|i| story[..1 + (7 * i) % 40].to_vec()).collect()
}

/// Ids of a story that the model tells itself, and its text.
fn tokenizer_story(tokenizer: &Tokenizer) -> (Vec<u32>, String) {
    let begin = tokenizer.encode("The").unwrap();
    let story = alone(&begin, 60, params(1), &[], None);
    ([begin, story.ids].concat(), story.text)
}

#[test]
fn answers_side_by_side_are_those_of_a_generator_alone() {
    for (sequences, prefill) in [(1, 128), (3, 5), (12, 128)] {
        scheduled(sequences, prefill, |jobs, tokenizer, load| {
            let prompts = prompts(tokenizer);
            let running: Vec<_> = prompts
                .iter()
                .zip(0..)
                .map(|(prompt, seed)| {
                    let (mut job, events) = job(prompt, 5 + 3 * seed as usize, params(seed));
                    job.logprobs = (seed % 3 == 0).then_some(2);
                    if seed == 5 {
                        job.stops = StopStrings::new(["."]).unwrap();
                    }
                    jobs.send(job).unwrap();
                    // Some come while others are being answered.
                    if seed % 4 == 3 {
                        std::thread::sleep(Duration::from_millis(3));
                    }
                    events
                })
                .collect();
            for ((prompt, events), seed) in prompts.iter().zip(&running).zip(0..) {
                let told = all(events);
                let stops: &[&str] = if seed == 5 { &["."] } else { &[] };
                let logprobs = (seed % 3 == 0).then_some(2);
                let expected = alone(prompt, 5 + 3 * seed as usize, params(seed), stops, logprobs);
                let what = format!("{sequences} sequences, seed {seed}");
                assert_eq!((&told.ids, &told.text), (&expected.ids, &expected.text), "{what}");
                assert_eq!(told.logprobs, expected.logprobs, "{what}");
                let end = told.end.unwrap();
                assert_eq!(end.finish, expected.end.unwrap().finish, "{what}");
                assert_eq!((end.prompt, end.tokens), (prompt.len(), told.ids.len()));
            }
            let generated = load.generated.load(Ordering::Relaxed);
            assert!(generated > 12 * 5, "{generated}");
        });
    }
}

#[test]
fn a_second_message_reads_its_own_tokens_alone() {
    scheduled(2, 64, |jobs, tokenizer, load| {
        let (story, _) = tokenizer_story(tokenizer);
        let (first, events) = job(&story[..20], 8, params(0));
        jobs.send(first).unwrap();
        let told = all(&events);
        assert_eq!(told.end.unwrap().reused, 0);
        let more: Vec<u32> = [&story[..20], &told.ids[..], &story[..3]].concat();
        let read = load.read.load(Ordering::Relaxed);
        let (second, events) = job(&more, 4, params(0));
        jobs.send(second).unwrap();
        let end = all(&events).end.unwrap();
        // All but the last token of the answer had been read, and that one is read now.
        assert_eq!(end.reused, more.len() - 3 - 1);
        assert_eq!(load.read.load(Ordering::Relaxed) - read, 4);
        // Another conversation does not push this one out.
        let (other, events) = job(&story[30..45], 4, params(0));
        jobs.send(other).unwrap();
        all(&events);
        let (third, events) = job(&more, 4, params(0));
        jobs.send(third).unwrap();
        assert_eq!(all(&events).end.unwrap().reused, more.len() - 1);
    });
}

#[test]
fn several_answers_to_one_prompt_read_it_once() {
    scheduled(4, 16, |jobs, tokenizer, load| {
        let (story, _) = tokenizer_story(tokenizer);
        let prompt = &story[..50];
        let running: Vec<_> = (0..4)
            .map(|seed| {
                let (job, events) = job(prompt, 10, params(4 * seed + 1));
                jobs.send(job).unwrap();
                events
            })
            .collect();
        let told: Vec<Told> = running.iter().map(all).collect();
        for (told, seed) in told.iter().zip(0..) {
            assert_eq!(told.ids, alone(prompt, 10, params(4 * seed + 1), &[], None).ids);
        }
        let reused: usize = told.iter().map(|told| told.end.unwrap().reused).sum();
        // It is not worth waiting for the last few.
        assert!(reused >= 3 * (49 - 15), "{reused}");
        assert_eq!(load.read.load(Ordering::Relaxed) + reused as u64, 4 * 50);
    });
}

#[test]
fn who_goes_away_makes_room_and_what_makes_no_sense_is_said() {
    scheduled(1, 64, |jobs, tokenizer, load| {
        let (story, _) = tokenizer_story(tokenizer);
        // One that nobody listens to any more, before one that wants the only sequence.
        let (gone, events) = job(
            &story[..4],
            1_000_000,
            SamplingParams {
                temperature: 1.5,
                ..params(2)
            },
        );
        drop(events);
        jobs.send(gone).unwrap();
        let (next, events) = job(&story[..6], 3, params(0));
        jobs.send(next).unwrap();
        assert_eq!(all(&events).ids, alone(&story[..6], 3, params(0), &[], None).ids);
        for (prompt, tokens) in [(vec![], 1), (vec![1; 5000], 1), (vec![1], 0)] {
            let (bad, events) = job(&prompt, tokens, params(0));
            jobs.send(bad).unwrap();
            let failure = all(&events).failure.unwrap();
            assert_eq!(
                matches!(failure, Failure::TooLong { tokens: 5000, .. }),
                prompt.len() == 5000
            );
        }
        let (bad, events) = job(
            &[1],
            1,
            SamplingParams {
                top_p: 7.0,
                ..params(0)
            },
        );
        jobs.send(bad).unwrap();
        assert!(all(&events).failure.unwrap().to_string().contains("top_p"));
        let (mut late, events) = job(&story[..4], 1000, params(0));
        late.deadline = Some(Instant::now());
        jobs.send(late).unwrap();
        assert_eq!(all(&events).end.unwrap().finish, Finish::Interrupted);
        let (good, events) = job(&story[..5], 3, params(0));
        jobs.send(good).unwrap();
        assert_eq!(all(&events).ids.len(), 3);
        assert_eq!(load.waiting.load(Ordering::Relaxed), 0);
    });
}

#[test]
fn an_answer_ends_where_the_context_does() {
    let (model, ..) = model();
    let context = model.config().max_position_embeddings;
    drop(model);
    let seen = Arc::new(AtomicBool::new(false));
    scheduled(2, 64, |jobs, tokenizer, _| {
        let (story, _) = tokenizer_story(tokenizer);
        let long: Vec<u32> = story.iter().copied().cycle().take(context - 2).collect();
        let (job, events) = job(&long, 100, params(2));
        jobs.send(job).unwrap();
        let told = all(&events);
        assert!(told.ids.len() <= 2, "{told:?}");
        assert_eq!(told.end.unwrap().tokens, told.ids.len());
        seen.store(true, Ordering::Relaxed);
    });
    assert!(seen.load(Ordering::Relaxed));
}
