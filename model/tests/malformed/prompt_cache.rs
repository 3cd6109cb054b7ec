//! The prompt cache: every byte is under its checksum, and what has the right one may still hold any numbers. Its classes of damage are in
//! `cli/tests/prompt_cache.rs`.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use onebit_kernels_cpu::Isa;
use onebit_model::generation::{GenerationError, Generator, GeneratorOptions, PromptCacheError, Request};
use onebit_model::runtime::{FloatStorage, KvType};
use onebit_model::sampling::{Sampler, SamplingParams, StopStrings};
use onebit_model::tokenizer::train_word;

use crate::harness::{check_damage, check_truncations};
use crate::{common, small};

const REQUEST: Request<'static> = Request {
    prompt: &[1, 7, 3, 11, 2],
    max_tokens: 2,
    logprobs: Some(1),
};

fn sampler() -> Sampler {
    Sampler::new(SamplingParams::default(), small::config().vocab_size).unwrap()
}

fn generator() -> Generator {
    let config = small::config();
    let options = GeneratorOptions {
        isa: Isa::best(),
        threads: 1,
        context: config.max_position_embeddings,
        lookahead: Some(0),
        exact_head: true,
        kv: KvType::F16,
    };
    let model = common::random_model(&config, 5, FloatStorage::Stored);
    let tokenizer = train_word(["one two three"], None).unwrap();
    Generator::new(model, tokenizer, Vec::new(), &sampler(), options).unwrap()
}

/// A cache of a prompt of five tokens.
pub fn whole() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompt.kv");
    let mut generator = generator();
    generator.read(REQUEST).unwrap();
    generator.save_prompt_cache(&path).unwrap();
    fs::read(&path).unwrap()
}

/// Takes up a cache and goes on from it, as a program would.
fn use_all(generator: &mut Generator, path: &Path, bytes: &[u8]) -> Result<usize, PromptCacheError> {
    fs::write(path, bytes).unwrap();
    let taken = generator.load_prompt_cache(path, REQUEST.prompt)?;
    let (stop, mut stops) = (AtomicBool::new(false), StopStrings::new([""; 0]).unwrap());
    // Numbers that are none may end it, in an error.
    let _ = generator.generate::<GenerationError>(REQUEST, &mut sampler(), &mut stops, &stop, &mut |_| Ok(()));
    Ok(taken)
}

/// With the checksum of what stands there.
fn sealed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some((content, checksum)) = bytes.split_last_chunk_mut::<32>() {
        *checksum = *blake3::hash(content).as_bytes();
    }
    bytes
}

#[test]
fn damaged_caches_are_refused_or_used() {
    let whole = whole();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompt.kv");
    let generator = RefCell::new(generator());
    let read = |bytes: &[u8]| use_all(&mut generator.borrow_mut(), &path, bytes);
    assert_eq!(read(&whole).unwrap(), REQUEST.prompt.len());
    let refused = |bytes: &[u8]| assert!(read(bytes).is_err() || *bytes == *whole);
    check_truncations("prompt cache", &whole, refused);
    check_damage("prompt cache", &whole, 1000, refused);
    let used = RefCell::new(0);
    check_damage("sealed prompt cache", &whole, 3000, |bytes| {
        *used.borrow_mut() += usize::from(read(&sealed(bytes)).is_ok());
    });
    assert!(used.take() > 100, "damage that the checksum hides gets through");
}

#[cfg(unix)]
#[test]
fn a_pipe_is_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("prompt.kv");
    let made = std::process::Command::new("mkfifo").arg(&path).status();
    assert!(
        made.is_ok_and(|status| status.success()),
        "mkfifo is a part of every Unix"
    );
    let error = generator().load_prompt_cache(&path, REQUEST.prompt).unwrap_err();
    assert!(matches!(error, PromptCacheError::Read { .. }), "{error}");
}
