//! The board's model gives the tokens of its golden file (`models/stories-mcu/golden.txt`) on every instruction set. Needs no default feature, so that
//! little has to be built for another architecture.
//!
//! ```text
//! ONEBIT_BLESS=1 cargo test -p onebit-model --test board_golden      writes the file anew, by the scalar path
//! ```
#![allow(missing_docs)]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use onebit_kernels_cpu::Isa;
use onebit_model::decode::golden::{Case, GoldenError, cases};
use onebit_model::decode::{Ended, TextGenerator, TextOptions};
use onebit_model::image::Image;
use onebit_model::runtime::{KvType, SharedBytes};
use onebit_model::sampling::SamplingParams;

fn path(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/stories-mcu")).join(name)
}

fn model_bytes() -> Vec<u8> {
    fs::read(path("stories-mcu.1bit")).unwrap()
}

fn image_of(bytes: Vec<u8>) -> Image {
    Image::new(SharedBytes::new(Arc::new(bytes))).unwrap()
}

fn image() -> Image {
    image_of(model_bytes())
}

/// Every type of cache, every filter, a text that ends by itself, one that meets the end of its context, and letters that no training text had.
fn wanted() -> Vec<Case<'static>> {
    let chat = SamplingParams::default();
    let story = SamplingParams {
        temperature: 0.6,
        top_k: 50,
        top_p: 0.8,
        repetition_penalty: 1.0,
        ..chat
    };
    let case = |name, sampling, kv, context, max_tokens, prompt| Case {
        name,
        sampling,
        kv,
        context,
        max_tokens,
        prompt,
        ids: "",
    };
    vec![
        case("greedy", SamplingParams::greedy(), KvType::F32, 160, 150, "Anna was a"),
        case(
            "story",
            SamplingParams { seed: 1, ..story },
            KvType::F32,
            160,
            150,
            "Every mild afternoon, Anna",
        ),
        case(
            "cache in f16",
            SamplingParams { seed: 2, ..story },
            KvType::F16,
            160,
            150,
            "Do you know Zoe,",
        ),
        case(
            "cache in int8",
            SamplingParams { seed: 3, ..story },
            KvType::Int8,
            160,
            150,
            "A smart owl called Rusty",
        ),
        case(
            "repetition penalty",
            SamplingParams { seed: 4, ..chat },
            KvType::Int8,
            64,
            40,
            "Anna was a",
        ),
        case(
            "all tokens, those that are likely enough",
            SamplingParams {
                seed: 5,
                top_k: 0,
                top_p: 1.0,
                min_p: 0.05,
                temperature: 1.0,
                repetition_penalty: 0.9,
            },
            KvType::F32,
            64,
            40,
            "The dog",
        ),
        case(
            "end of the context",
            SamplingParams { seed: 6, ..story },
            KvType::Int8,
            24,
            100,
            "Anna was a",
        ),
        case(
            "other letters",
            SamplingParams { seed: 7, ..story },
            KvType::F16,
            96,
            24,
            "Zoë's 12 cats — 猫, \u{1f98a} <unk>?",
        ),
    ]
}

fn bless() {
    let image = image();
    let mut file = String::from(
        "# Tokens of stories-mcu.1bit, the same wherever it runs; the format is described in model/src/decode/golden.rs.\n# Written by: ONEBIT_BLESS=1 cargo test -p onebit-model --test board_golden\n",
    );
    for case in wanted() {
        let mut generator = case.begin(&image, Isa::SCALAR).unwrap();
        let mut ids = Vec::new();
        while let Some(id) = generator.next_token().unwrap() {
            ids.push(id.to_string());
        }
        let ids = ids.join(" ");
        file += &format!("\n{}", Case { ids: &ids, ..case });
    }
    fs::write(path("golden.txt"), file).unwrap();
}

fn golden() -> String {
    if std::env::var_os("ONEBIT_BLESS").is_some_and(|value| value == "1") {
        static ONCE: std::sync::Once = std::sync::Once::new();
        ONCE.call_once(bless);
    }
    fs::read_to_string(path("golden.txt")).unwrap()
}

#[test]
fn every_instruction_set_gives_the_tokens_of_the_file() {
    let (image, golden) = (image(), golden());
    let found: Vec<Case<'_>> = cases(&golden).collect::<Result<_, _>>().unwrap();
    assert_eq!(found.len(), wanted().len());
    for (case, wanted) in found.iter().zip(wanted()) {
        assert_eq!(
            Case { ids: "", ..*case },
            wanted,
            "the file is of other cases: write it anew"
        );
        assert!(case.ids.split(' ').count() >= 8, "{}: {}", case.name, case.ids);
        for isa in Isa::available() {
            case.check(&image, isa)
                .unwrap_or_else(|error| panic!("{}, {}: {error}", case.name, isa.name()));
        }
    }
    let paths: Vec<_> = Isa::available().map(Isa::name).collect();
    println!("paths compared: {}", paths.join(", "));
}

#[test]
fn chunks_and_a_second_answer_change_nothing() {
    let (image, golden) = (image(), golden());
    for case in cases(&golden).map(Result::unwrap) {
        let options = TextOptions {
            context: case.context,
            kv: case.kv,
            sampling: case.sampling,
            chunk: 5,
            ..TextOptions::of(&image)
        };
        let mut generator = TextGenerator::new(&image, options).unwrap();
        for _ in 0..2 {
            generator.begin(case.prompt, case.max_tokens).unwrap();
            let mut ids = Vec::new();
            let mut text = String::new();
            while let Some(id) = generator.next_token().unwrap() {
                ids.push(id.to_string());
                text += generator.text_of(id).unwrap();
            }
            text += generator.last_text();
            assert_eq!(ids.join(" "), case.ids, "{}", case.name);
            let last: u32 = ids.last().unwrap().parse().unwrap();
            let end = generator.tokenizer().is_special(last);
            let expected = match (end, ids.len() == case.max_tokens) {
                (true, _) => Ended::EndToken,
                (false, true) => Ended::Length,
                (false, false) => Ended::Context,
            };
            assert_eq!(generator.ended(), Some(expected), "{}", case.name);
            let all: Vec<u32> = ids
                .iter()
                .map(|id| id.parse().unwrap())
                .filter(|&id| id != last || !end)
                .collect();
            assert_eq!(text, generator.tokenizer().decode(&all).unwrap());
            assert_eq!(generator.next_token(), Ok(None), "an answer that has ended stays so");
        }
    }
}

/// With threads, reading ahead, and the tokenizer and files of a computer.
#[cfg(feature = "std")]
#[test]
fn the_generator_of_computers_gives_them_too() {
    use std::sync::atomic::AtomicBool;

    use onebit_model::files::OneFile;
    use onebit_model::generation::{GenerationError, Generator, GeneratorOptions, Request};
    use onebit_model::sampling::{Sampler, StopStrings};

    let (file, golden) = (OneFile::open(&path("stories-mcu.1bit")).unwrap(), golden());
    for case in cases(&golden).map(Result::unwrap) {
        let expected: Vec<u32> = case.ids.split(' ').map(|id| id.parse().unwrap()).collect();
        let mut sampler = Sampler::new(case.sampling, file.config().vocab_size).unwrap();
        let options = GeneratorOptions {
            isa: Isa::best(),
            threads: 2,
            context: case.context,
            lookahead: Some(4),
            exact_head: false,
            kv: case.kv,
        };
        let ends = file.config().eos_token_ids.clone();
        let (model, tokenizer) = (image().model().unwrap(), file.tokenizer().unwrap());
        let mut generator = Generator::new(model, tokenizer, ends, &sampler, options).unwrap();
        let prompt = generator.tokenizer().encode(case.prompt).unwrap();
        let request = Request {
            prompt: &prompt,
            max_tokens: expected.len(),
            logprobs: None,
        };
        let mut stops = StopStrings::new::<String>([]).unwrap();
        let mut ignored = |_: &str| Ok::<_, GenerationError>(());
        let found = generator
            .generate(request, &mut sampler, &mut stops, &AtomicBool::new(false), &mut ignored)
            .unwrap();
        assert_eq!(found.ids, expected, "{}", case.name);
    }
}

/// What compares is compared: another token, one too many, one too few, a damaged file.
#[test]
fn another_token_and_a_damaged_file_are_seen() {
    let (image, golden) = (image(), golden());
    let case = cases(&golden).next().unwrap().unwrap();
    let ids: Vec<u32> = case.ids.split(' ').map(|id| id.parse().unwrap()).collect();
    let text = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let error = |ids: &[u32]| {
        Case {
            ids: &text(ids),
            ..case
        }
        .check(&image, Isa::best())
        .unwrap_err()
    };
    let mut other = ids.clone();
    other[3] ^= 1;
    let (expected, found) = (other[3], ids[3]);
    assert_eq!(
        error(&other),
        GoldenError::Token {
            place: 3,
            expected,
            found
        }
    );
    let (last, place) = (ids[ids.len() - 1], ids.len() - 1);
    let (expected, found) = (u32::MAX, last);
    assert_eq!(error(&ids[..place]), GoldenError::Token { place, expected, found });
    let mut longer = ids.clone();
    longer.push(7);
    let (place, expected, found) = (ids.len(), 7, u32::MAX);
    assert_eq!(error(&longer), GoldenError::Token { place, expected, found });

    let sound = case.to_string();
    assert_eq!(cases(&sound).collect::<Vec<_>>(), [Ok(case)]);
    for (from, to, expected) in [
        ("temperature ", "warmth ", "temperature"),
        ("top_k 50", "top_k x", "top_k"),
        ("kv f32", "kv f64", "kv f32, f16 or int8"),
        ("ids ", "ids x ", "ids as decimal numbers"),
        ("case ", "text ", "case NAME"),
    ] {
        let damaged = sound.replacen(from, to, 1);
        let found: Vec<_> = cases(&damaged).collect();
        assert!(
            matches!(found[..], [Err(GoldenError::Line { expected: e, .. })] if e == expected),
            "{found:?}"
        );
    }
    let short = sound.split_once("ids").unwrap().0;
    let found = cases(short).next().unwrap().unwrap_err().to_string();
    assert!(found.contains("line 11: expected ids"), "{found}");
}

/// Bytes as a worn flash may hold them: an error value or other tokens.
#[test]
fn damaged_bytes_give_an_error_or_other_tokens_and_never_a_panic() {
    let bytes = model_bytes();
    let run = |bytes: Vec<u8>| -> Result<(), String> {
        let image = Image::new(SharedBytes::new(Arc::new(bytes))).map_err(|e| e.to_string())?;
        let options = TextOptions {
            context: 12,
            ..TextOptions::of(&image)
        };
        let mut generator = TextGenerator::new(&image, options).map_err(|e| e.to_string())?;
        generator.begin("Anna was", 3).map_err(|e| e.to_string())?;
        while let Some(id) = generator.next_token().map_err(|e| e.to_string())? {
            let _ = generator.text_of(id);
        }
        Ok(())
    };
    run(bytes.clone()).unwrap();
    let header = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let ends = (0..header).step_by(37).chain((header..bytes.len()).step_by(4099));
    for end in ends {
        run(bytes[..end].to_vec()).expect_err("a file that ends early");
    }
    let (mut refused, mut ran) = (0, 0);
    let places = (0..header).step_by(3).chain((header..bytes.len()).step_by(997));
    for (i, at) in places.enumerate() {
        let mut bytes = bytes.clone();
        bytes[at] ^= [1, 0x80, 0xff, 0x10][i % 4];
        match run(bytes) {
            Ok(()) => ran += 1,
            Err(message) => {
                refused += 1;
                assert!(!message.is_empty());
            }
        }
    }
    assert!(refused > 1000 && ran > 100, "{refused} refused, {ran} ran");
}

/// Memory that is not aligned as the weights ask is refused, not read.
#[test]
fn an_odd_address_is_refused() {
    struct Odd(Vec<u8>);
    impl AsRef<[u8]> for Odd {
        fn as_ref(&self) -> &[u8] {
            &self.0[1..]
        }
    }
    let mut bytes = vec![0];
    bytes.extend(model_bytes());
    let image = Image::new(SharedBytes::new(Arc::new(Odd(bytes)))).unwrap();
    let error = image.model().unwrap_err().to_string();
    assert!(
        error.contains("does not lie in memory as this machine reads it"),
        "{error}"
    );
}
