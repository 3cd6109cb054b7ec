//! `*.1bit`: what the container allows and a model does not.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use onebit_kernels_cpu::Isa;
use onebit_model::config::{LinearMode, ModelConfig};
use onebit_model::files::{
    FileError, HeaderProblem, HfDirectory, OneFile, OneFileOptions, PartProblem, Parts, save_one_file,
};
use onebit_model::runtime::{FloatStorage, Serial, Session, SessionOptions, SharedBytes};
use onebit_model::tokenizer::train_bpe;

use crate::harness::{check_damage, check_truncations, seed_damaged};
use crate::small;

/// Bytes that begin at a multiple of 64, as a mapped file does.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(bytes: &[u8]) -> Self {
        let mut memory = vec![0; bytes.len() + 64];
        let start = memory.as_ptr().align_offset(64);
        memory[start..start + bytes.len()].copy_from_slice(bytes);
        let len = bytes.len();
        Self { memory, start, len }
    }
}

impl AsRef<[u8]> for Aligned {
    fn as_ref(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.len]
    }
}

fn open(bytes: &[u8]) -> Result<OneFile, FileError> {
    OneFile::from_shared(
        SharedBytes::new(Arc::new(Aligned::new(bytes))),
        Path::new("attack.1bit"),
    )
}

/// Everything that a program does with a file: open it, build the model, decode a token, encode a text, verify.
pub fn use_all(bytes: &[u8]) -> Result<(), FileError> {
    let file = open(bytes)?;
    let verified = file.verify();
    let _ = file.chat_template();
    let _ = file.generation();
    if let Ok(tokenizer) = file.tokenizer() {
        let ids = tokenizer.encode("one two three").unwrap_or_default();
        let _ = tokenizer.decode(&ids);
    }
    let model = file.model()?;
    let options = SessionOptions::new(model.config().max_position_embeddings.min(4));
    if let Ok(mut session) = Session::new(&model, Serial, Isa::best(), options) {
        let _ = session.decode(3);
    }
    verified
}

/// Linears of four modes, untied head; with or without a tokenizer.
pub fn whole(tokenizer: bool) -> Vec<u8> {
    let mut config = ModelConfig {
        tie_word_embeddings: false,
        ..small::config()
    };
    let modes = &mut config.layer_modes[0];
    (modes.q, modes.k, modes.v) = (LinearMode::Int8, LinearMode::Int4, LinearMode::F16);
    let dir = tempfile::tempdir().unwrap();
    small::save(dir.path(), &config);
    let source = HfDirectory::open(dir.path()).unwrap();
    let options = OneFileOptions {
        storage: FloatStorage::F16,
        ..OneFileOptions::default()
    };
    let trained = train_bpe(["one two three, one two. ".repeat(20)], 290).unwrap();
    let table = trained.pack().unwrap();
    let parts = match tokenizer {
        true => Parts {
            tokenizer: Some(trained.json()),
            packed_tokenizer: Some(&table),
            ..Parts::default()
        },
        false => Parts::default(),
    };
    let path = dir.path().join("m.1bit");
    save_one_file(&path, &source, &options, &parts, &|_, _| ()).unwrap();
    fs::read(path).unwrap()
}

fn header_end(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize
}

/// The file with `from` in its header replaced by a text of the same length.
fn edited(from: &str, to: &str) -> Vec<u8> {
    assert_eq!(from.len(), to.len(), "offsets stay");
    let mut bytes = whole(true);
    let at = bytes.windows(from.len()).position(|window| window == from.as_bytes());
    let at = at.unwrap_or_else(|| panic!("{from} is in the header"));
    bytes[at..at + to.len()].copy_from_slice(to.as_bytes());
    bytes
}

/// The part that is refused, and why.
fn refused(bytes: &[u8]) -> (String, PartProblem) {
    seed_damaged(&["one_file_header", "board"], bytes);
    match open(bytes).and_then(|file| file.model().map(drop)) {
        Err(FileError::Part { part, problem, .. }) => (part, problem),
        other => panic!("{other:?}"),
    }
}

#[test]
fn each_class_of_part_has_its_own_error() {
    use PartProblem as P;
    type Is = fn(&PartProblem) -> bool;
    let embed = "embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[12,16]";
    let cases: [(&str, &str, &str, &str, Is); 9] = [
        (
            "another format",
            "\"format\":\"1bit\"",
            "\"format\":\"2bit\"",
            "format",
            |p| matches!(p, P::Format { expected: "1bit", .. }),
        ),
        (
            "a later version",
            "\"version\":\"1\"",
            "\"version\":\"2\"",
            "version",
            |p| matches!(p, P::Format { expected: "1", found } if found == "\"2\""),
        ),
        ("an unknown entry", "\"checksum\"", "\"checksun\"", "checksun", |p| {
            matches!(p, P::Unknown { version: "1" })
        }),
        (
            "no scales",
            "onebit.scales",
            "onebit.skales",
            "onebit.scales",
            |p| matches!(p, P::Missing { suggestion: Some(name) } if name == "onebit.skales"),
        ),
        (
            "an unknown part",
            "onebit.tokenizer.json",
            "onebit.tokenizer.yaml",
            "onebit.tokenizer.yaml",
            |p| matches!(p, P::Unknown { .. }),
        ),
        (
            "padding by another name",
            "onebit.padding.1\"",
            "onebit.matting.1\"",
            "onebit.matting.1",
            |p| matches!(p, P::Unknown { .. }),
        ),
        (
            "another type",
            "q_proj.weight.i8\":{\"dtype\":\"I8\"",
            "q_proj.weight.i8\":{\"dtype\":\"U8\"",
            "model.layers.0.self_attn.q_proj.weight.i8",
            |p| matches!(p, P::Type { .. }),
        ),
        (
            "another shape",
            embed,
            "embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[16,12]",
            "model.embed_tokens.weight",
            |p| matches!(p, P::Shape { expected, found } if *expected == [12, 16] && *found == [16, 12]),
        ),
        (
            "more tokens than rows",
            "\\\"vocab_size\\\": 12",
            "\\\"vocab_size\\\": 13",
            "model.embed_tokens.weight",
            |p| matches!(p, P::Shape { expected, .. } if expected[0] == 13),
        ),
    ];
    for (class, from, to, part, expected) in cases {
        let (found, problem) = refused(&edited(from, to));
        assert!(found == part && expected(&problem), "{class}: {found}: {problem:?}");
    }
    let config = open(&edited("\\\"hidden_act\\\"", "\\\"hidden_akt\\\"")).unwrap_err();
    assert!(matches!(&config, FileError::Config { .. }), "{config}");
}

#[test]
fn data_out_of_place() {
    let bytes = whole(false);
    let header = header_end(&bytes);
    // One space less in the header moves all data by one byte.
    let mut moved = ((header - 9) as u64).to_le_bytes().to_vec();
    assert_eq!(bytes[header - 1], b' ');
    moved.extend(&bytes[8..header - 1]);
    moved.extend(&bytes[header..]);
    let (part, problem) = refused(&moved);
    assert!(
        part == "onebit.scales" && matches!(problem, PartProblem::Misaligned { alignment: 64, .. }),
        "{problem:?}"
    );
    // At an odd address, as an embedding program could put it by mistake.
    let mut memory = Aligned::new(&[&[0], &bytes[..]].concat());
    (memory.start, memory.len) = (memory.start + 1, bytes.len());
    let file = OneFile::from_shared(SharedBytes::new(Arc::new(memory)), Path::new("odd")).unwrap();
    assert!(matches!(
        file.model(),
        Err(FileError::Part {
            problem: PartProblem::NotInPlace,
            ..
        })
    ));
    // The container's own classes are refused as those of any other.
    for (class, bytes) in [("cut", &bytes[..bytes.len() - 1]), ("cut header", &bytes[..header - 1])] {
        let error = open(bytes).unwrap_err();
        assert!(matches!(&error, FileError::Header { .. }), "{class}: {error}");
    }
    let longer = open(&[&bytes[..], &[0]].concat()).unwrap_err();
    assert!(
        matches!(
            &longer,
            FileError::Header {
                problem: HeaderProblem::Trailing { .. },
                ..
            }
        ),
        "{longer}"
    );
}

#[test]
fn values_that_stand_for_nothing() {
    let bytes = whole(false);
    let header = header_end(&bytes);
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -1.0] {
        let mut bytes = bytes.clone();
        // The scales are the first tensor.
        bytes[header..header + 4].copy_from_slice(&value.to_le_bytes());
        let (part, problem) = refused(&bytes);
        assert!(
            part == "onebit.scales"
                && matches!(&problem, PartProblem::Scale { linear, .. } if linear.ends_with("o_proj.weight")),
            "{value}: {problem:?}"
        );
    }
    // Padding that says something: the last byte of the file is padding where the last tensor is not a multiple of 64 long.
    let mut padded = bytes.clone();
    let text = String::from_utf8_lossy(&bytes[..header]).into_owned();
    let offsets = text
        .split("\"onebit.padding.1\":")
        .nth(1)
        .unwrap()
        .split("data_offsets\":[")
        .nth(1)
        .unwrap();
    let start: usize = offsets.split(',').next().unwrap().parse().unwrap();
    padded[header + start] = 1;
    let (part, problem) = refused(&padded);
    assert!(
        part == "onebit.padding.1" && matches!(problem, PartProblem::Padding { .. }),
        "{part}: {problem:?}"
    );
}

#[test]
fn what_verifying_finds() {
    let good = whole(true);
    open(&good).unwrap().verify().unwrap();
    let problem = |bytes: &[u8]| match open(bytes).unwrap().verify() {
        Err(FileError::Part { part, problem, .. }) => (part, problem),
        other => panic!("{other:?}"),
    };
    // Any byte of the data.
    for at in (header_end(&good) + 64..good.len()).step_by(509) {
        let mut bytes = good.clone();
        bytes[at] ^= 4;
        if let Ok(file) = open(&bytes) {
            let found = file.verify().unwrap_err();
            assert!(
                matches!(
                    &found,
                    FileError::Part {
                        problem: PartProblem::Checksum,
                        ..
                    }
                ),
                "{at}: {found}"
            );
        }
    }
    let at = good
        .windows(12)
        .position(|window| window == b"\"checksum\":\"")
        .unwrap()
        + 12;
    let mut bytes = good.clone();
    bytes[at] = b'g';
    assert!(matches!(problem(&bytes), (part, PartProblem::NoChecksum) if part == "checksum"));
}

#[test]
fn cut_or_damaged_files_never_panic() {
    let whole = whole(false);
    use_all(&whole).unwrap();
    check_truncations("model.1bit", &whole, |bytes| {
        assert!(use_all(bytes).is_err() || bytes.len() == whole.len());
    });
    check_damage("model.1bit", &whole, 3000, |bytes| drop(use_all(bytes)));
}

#[test]
fn a_damaged_tokenizer_never_panics() {
    let whole = whole(true);
    use_all(&whole).unwrap();
    // Damage in the parts alone, which lie behind the model: the model still opens, and the tokenizer is used.
    let start = whole.len() - (whole.len() - header_end(&whole)) / 2;
    let (front, parts) = whole.split_at(start);
    check_damage("model.1bit", parts, 400, |parts| {
        let mut bytes = [front, parts].concat();
        bytes.resize(whole.len(), 0);
        let _ = use_all(&bytes);
    });
}
