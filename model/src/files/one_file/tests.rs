//! What is written comes back bit for bit, and nothing else is accepted.

use std::fs;

use safetensors::SafeTensors;
use tempfile::TempDir;

use super::*;
use crate::chat::ChatTemplate;
use crate::config::{LinearMode, ModelConfig};
use crate::files::tests::{container, edit, small, weights_of};
use crate::files::{Extras, FileError, GenerationConfig, NamedTensor, save_master};
use crate::runtime::{FloatStorage, Linear, PackedModel, Serial, Session, SessionOptions, SharedBytes, Top};
use crate::tokenizer::train_bpe;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::ternary::Layout;

fn packed(config: &ModelConfig, storage: FloatStorage) -> PackedModel {
    let dir = tempfile::tempdir().unwrap();
    let tensors = weights_of(config);
    save_master(dir.path(), config, &NamedTensor::all(&tensors), Extras::default()).unwrap();
    PackedModel::open(dir.path(), storage).unwrap().0
}

/// As [`mixed`], with a head that can have a sketch, and with it.
fn sketched() -> PackedModel {
    let config = ModelConfig {
        tie_word_embeddings: false,
        hidden_size: 128,
        vocab_size: 43,
        num_hidden_layers: 1,
        layer_modes: small().layer_modes[..1].to_vec(),
        ..small()
    };
    let mut model = packed(&config, FloatStorage::F16);
    model.sketch_head(&Serial, Isa::best());
    assert!(model.sketch().is_some());
    model
}

/// The bits of the logits after a few tokens.
fn logits(model: &PackedModel) -> Vec<u32> {
    let mut session = Session::new(model, Serial, Isa::best(), SessionOptions::new(8)).unwrap();
    let mut bits = Vec::new();
    let mut each = |_, row: &[f32]| bits.extend(row.iter().map(|x| x.to_bits()));
    session.prefill_all(&[1, 5, 39, 7, 7], &mut each).unwrap();
    bits
}

fn save(dir: &TempDir, model: &PackedModel, parts: &Parts<'_>) -> std::path::PathBuf {
    let path = dir.path().join("model.1bit");
    save_one_file(&path, model, parts, &|_, _| ()).unwrap();
    path
}

/// A model with every kind of tensor: ternary, binary, int8, int4 and float linears, untied head, all norms.
fn mixed() -> ModelConfig {
    let mut config = ModelConfig {
        tie_word_embeddings: false,
        qk_norm: true,
        sub_norms: true,
        // Neither a multiple of 64 bytes nor of a block.
        vocab_size: 43,
        intermediate_size: 44,
        ..small()
    };
    let modes = &mut config.layer_modes;
    (modes[0].q, modes[0].k, modes[0].v) = (LinearMode::Int8, LinearMode::Int4, LinearMode::F16);
    modes[1].down = LinearMode::Binary;
    config
}

#[test]
fn a_model_comes_back_bit_for_bit_and_lies_in_the_file() {
    let storages = FloatStorage::ALL.map(|(_, storage)| storage);
    let mut models = vec![sketched(), sketched().without_sketch()];
    for config in [small(), mixed()] {
        models.extend(storages.map(|storage| packed(&config, storage)));
    }
    for model in models {
        let expected = logits(&model);
        for layout in Layout::ALL {
            let dir = tempfile::tempdir().unwrap();
            let model = model.clone().with_layout(layout);
            let file = OneFile::open(&save(&dir, &model, &Parts::default())).unwrap();
            file.verify().unwrap();
            let read = file.model().unwrap();
            assert_eq!(read.config(), model.config());
            assert_eq!(read.blocks(), model.blocks());
            assert_eq!(
                (read.embedding(), read.head(), read.norm()),
                (model.embedding(), model.head(), model.norm())
            );
            assert_eq!(read.sketch(), model.sketch());
            assert_eq!(logits(&read), expected, "{layout:?}");
            let sketch = read.sketch().into_iter().flat_map(|sketch| sketch.parts());
            assert!({ sketch }.all(|(plane, figures)| plane.is_shared() && figures.is_shared()));
            let shared = |linear: &Linear| match linear {
                Linear::Ternary { packed, layout: l, .. } => packed.is_shared() && *l == layout,
                Linear::Int8 { values, steps, .. } => values.is_shared() && steps.is_shared(),
                Linear::Float(matrix) => matrix.values.is_shared(),
            };
            let mut linears = read.blocks().iter().flat_map(|block| block.linears());
            assert!(linears.all(shared), "nothing is copied");
            assert!(read.blocks().iter().flat_map(|b| b.norms()).all(|w| w.is_shared()));
            // The model holds the map.
            drop(file);
            drop(dir);
            assert_eq!(logits(&read), expected);
        }
    }
}

#[test]
fn the_file_is_safetensors_and_every_tensor_begins_at_a_cache_line() {
    let dir = tempfile::tempdir().unwrap();
    let model = packed(&mixed(), FloatStorage::F16);
    let path = save(&dir, &model, &Parts::default());
    let bytes = fs::read(&path).unwrap();
    let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let theirs = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "1bit");
    let mut seen = 0;
    for (name, view) in theirs.tensors() {
        let start = 8 + length + metadata.info(&name).unwrap().data_offsets.0;
        if name.starts_with(PADDING) {
            assert!(view.data().len() < ALIGNMENT && view.data().iter().all(|b| *b == 0));
        } else {
            assert_eq!(start % ALIGNMENT, 0, "{name}");
            seen += 1;
        }
    }
    assert!(seen > 20 && theirs.len() > seen, "{seen} tensors, and padding");
    assert_eq!(bytes.len() % ALIGNMENT, 0);
}

#[test]
fn the_same_model_gives_the_same_bytes_and_its_parts_come_back() {
    let tokenizer = train_bpe(["one two three, one two. ".repeat(20)], 290).unwrap();
    let template = ChatTemplate::from_text("{{ bos_token }}x{{ eos_token }}", "here", "<s>", "</s>").unwrap();
    let generation = GenerationConfig {
        top_k: Some(7),
        ..Default::default()
    };
    let table = tokenizer.pack().unwrap();
    let parts = Parts {
        tokenizer: Some(tokenizer.json()),
        packed_tokenizer: Some(&table),
        generation: Some(&generation),
        chat_template: Some(&template),
    };
    let model = packed(&small(), FloatStorage::Stored);
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (a, b) = (save(&a, &model, &parts), save(&b, &model, &parts));
    assert_eq!(fs::read(&a).unwrap(), fs::read(b).unwrap());
    let file = OneFile::open(&a).unwrap();
    file.verify().unwrap();
    assert_eq!(file.generation(), Some(&generation));
    assert_eq!(file.chat_template().unwrap().render(&[], false).unwrap(), "<s>x</s>");
    let read = file.tokenizer().unwrap();
    assert_eq!(read.json(), tokenizer.json());
    assert_eq!(read.fingerprint(), tokenizer.fingerprint());
    assert_eq!(
        read.encode("one two, three").unwrap(),
        tokenizer.encode("one two, three").unwrap()
    );
    let names: Vec<&str> = file.parts().map(|(name, _)| name).collect();
    assert_eq!(names, [SCALES, TOKENIZER_JSON, TOKENIZER_PACKED]);
}

/// The bytes of a file with a sketch, and where in it the tensor `name` begins.
fn sketched_file(name: &str) -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(save(&dir, &sketched(), &Parts::default())).unwrap();
    let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    (bytes, 8 + length + metadata.info(name).unwrap().data_offsets.0)
}

/// A sketch in a file is as good as one that is made: the likeliest tokens come out, and the rest of the logits do not.
#[test]
fn a_mapped_sketch_finds_the_largest_logits() {
    let (bytes, _) = sketched_file(SKETCH[0].0);
    let (model, made) = (open(&bytes).unwrap(), sketched());
    let some = |model: &PackedModel| {
        let mut session = Session::new(model, Serial, Isa::best(), SessionOptions::new(8)).unwrap();
        let top = Some(Top { count: 1, except: &[] });
        let mut bits = Vec::new();
        for id in [1, 5, 39, 7, 7] {
            bits.extend(session.prefill_top(&[id], top).unwrap().iter().map(|x| x.to_bits()));
        }
        (bits, session.sketch_counts())
    };
    let (bits, counts) = some(&model);
    assert_eq!((&bits, counts), (&some(&made).0, some(&made).1));
    assert_eq!(counts.searched, 5);
}

#[test]
fn sketches_that_are_none_are_refused() {
    for (plane, figures) in SKETCH {
        let (bytes, at) = sketched_file(figures);
        for (place, value) in [(0, f32::NAN), (4, -1.0), (8, f32::INFINITY), (12 * 42 + 8, -f32::NAN)] {
            let mut bytes = bytes.clone();
            bytes[at + place..at + place + 4].copy_from_slice(&value.to_le_bytes());
            let error = open(&bytes).map(drop).unwrap_err().to_string();
            assert!(error.contains("onebit.sketch.plane1: is no sketch"), "{value}: {error}");
        }
        // Another number of rows, and a part that is missing.
        for name in [plane, figures] {
            for (from, to, expected) in [
                (
                    "\"shape\":[43,3]",
                    "\"shape\":[3,43]",
                    "figures1: expected shape [43, 3]",
                ),
                (name, "onebit.sketch.another!", "is missing"),
            ] {
                let mut bytes = bytes.clone();
                let header = header_end(&bytes);
                let to = &to[..to.len().min(from.len())];
                let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
                let changed = text.replace(from, &format!("{to:!<width$}", width = from.len()));
                bytes[8..header].copy_from_slice(changed.as_bytes());
                let error = open(&bytes).map(drop).unwrap_err().to_string();
                assert!(error.contains(expected), "{from} to {to}: {error}");
            }
        }
    }
}

/// Whatever a damaged sketch says, it is used without a panic; and verifying makes it once more.
#[test]
fn another_sketch_is_harmless_and_found_by_verifying() {
    for (plane, figures) in SKETCH {
        for (name, value) in [(plane, 0xff), (figures, 0x7e), (figures, 0)] {
            let (mut bytes, at) = sketched_file(name);
            bytes[at..at + 43 * 12].fill(value);
            let model = open(&bytes).unwrap();
            let mut session = Session::new(&model, Serial, Isa::best(), SessionOptions::new(8)).unwrap();
            for count in [1, 2] {
                let top = Some(Top { count, except: &[1] });
                session.prefill_top(&[3], top).unwrap();
            }
            let path = std::path::Path::new("attack.1bit");
            let file = OneFile::from_shared(aligned(&with_checksum(bytes)), path).unwrap();
            let error = file.verify().unwrap_err().to_string();
            assert!(
                error.contains("onebit.sketch.plane1: is not the sketch of this head"),
                "{error}"
            );
        }
    }
}

/// The file with the checksum of what is in it.
fn with_checksum(mut bytes: Vec<u8>) -> Vec<u8> {
    let header = header_end(&bytes);
    let text = str::from_utf8(&bytes[8..header]).unwrap();
    let place = 8 + text.find("\"checksum\":\"").unwrap() + 12;
    bytes[place..place + CHECKSUM_LEN].fill(b'0');
    let checksum = blake3::hash(&bytes).to_hex();
    bytes[place..place + CHECKSUM_LEN].copy_from_slice(checksum.as_bytes());
    bytes
}

/// A file in memory that is aligned as a map would be.
fn aligned(bytes: &[u8]) -> SharedBytes {
    // Leaked: a few kilobytes of a test.
    let words = vec![0u128; bytes.len().div_ceil(16) + ALIGNMENT / 16].leak();
    let memory: &'static mut [u8] = bytemuck::cast_slice_mut(words);
    let first = memory.as_ptr().align_offset(ALIGNMENT);
    memory[first..first + bytes.len()].copy_from_slice(bytes);
    SharedBytes::from_static(&memory[first..first + bytes.len()])
}

fn open(bytes: &[u8]) -> Result<PackedModel, FileError> {
    OneFile::from_shared(aligned(bytes), std::path::Path::new("attack.1bit"))?.model()
}

fn whole() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = train_bpe(["one two three, one two. ".repeat(20)], 290).unwrap();
    let table = tokenizer.pack().unwrap();
    let parts = Parts {
        tokenizer: Some(tokenizer.json()),
        packed_tokenizer: Some(&table),
        ..Default::default()
    };
    let config = ModelConfig {
        num_hidden_layers: 1,
        layer_modes: mixed().layer_modes[..1].to_vec(),
        ..mixed()
    };
    fs::read(save(&dir, &packed(&config, FloatStorage::F16), &parts)).unwrap()
}

fn header_end(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(*bytes.first_chunk().unwrap()) as usize
}

#[test]
fn a_model_runs_from_memory_that_lives_as_long_as_the_program() {
    let bytes = whole();
    let model = open(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(logits(&model), logits(&OneFile::open(&path).unwrap().model().unwrap()));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = whole();
    let header = header_end(&whole);
    let beyond = (header..whole.len()).step_by(61).chain([whole.len() - 1]);
    for end in (0..header).chain(beyond) {
        let error = open(&whole[..end]).map(drop).unwrap_err().to_string();
        assert!(error.contains("attack.1bit"), "cut at {end}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(open(&longer).is_err());
    open(&whole).unwrap();
}

#[test]
fn a_changed_byte_never_panics_and_is_found_by_verifying() {
    let whole = whole();
    let header = header_end(&whole);
    let places = (0..header).chain((header..whole.len()).step_by(37));
    let mut opened = 0;
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let shared = aligned(&bytes);
        let Ok(file) = OneFile::from_shared(shared, std::path::Path::new("flip.1bit")) else {
            continue;
        };
        assert!(file.verify().is_err(), "byte {at} was changed and nobody saw it");
        let _ = file.tokenizer().map(|tokenizer| tokenizer.encode("one two three"));
        if let Ok(model) = file.model()
            && model.config().vocab_size == 43
        {
            opened += 1;
            let options = SessionOptions::new(model.config().max_position_embeddings.min(4));
            let mut session = Session::new(&model, Serial, Isa::best(), options).unwrap();
            session.decode(3).unwrap();
        }
    }
    assert!(opened > 100, "{opened} changed files could be run");
}

/// The refusal of a file whose header had `from` replaced by `to`; the data stay.
fn refused(from: &str, to: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    fs::write(&path, whole()).unwrap();
    edit(&path, from, to);
    let error = open(&fs::read(&path).unwrap()).map(drop).unwrap_err();
    error.to_string()
}

#[test]
fn every_refusal_names_the_file_and_the_part() {
    let wide = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "offsets stay");
        refused(from, to)
    };
    let cases = [
        (
            wide("\"format\":\"1bit\"", "\"format\":\"2bit\""),
            "format: expected \"1bit\"",
        ),
        (
            wide("\"version\":\"1\"", "\"version\":\"2\""),
            "version: expected \"1\", found \"2\"",
        ),
        (wide("\"checksum\"", "\"checksun\""), "checksun: no entry"),
        (wide("\"config\"", "\"confih\""), "confih: no entry"),
        (
            wide("onebit.scales", "onebit.skales"),
            "onebit.scales: is missing (did you mean onebit.skales?)",
        ),
        (
            wide(
                "layers.0.self_attn.o_proj.weight.t",
                "layers.0.self_attn.p_proj.weight.t",
            ),
            "o_proj.weight.t2: is missing (did you mean model.layers.0.self_attn.p_proj.weight.",
        ),
        (
            wide("onebit.padding.1\"", "onebit.matting.1\""),
            "onebit.matting.1: is no part",
        ),
        (
            wide("onebit.tokenizer.json", "onebit.tokenizer.yaml"),
            "onebit.tokenizer.yaml: is no part",
        ),
        (
            wide(
                "embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[43,32]",
                "embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[32,43]",
            ),
            "embed_tokens.weight: expected shape [43, 32], found [32, 43]",
        ),
        (
            wide(
                "embed_tokens.weight\":{\"dtype\":\"F16\"",
                "embed_tokens.weight\":{\"dtype\":\"I16\"",
            ),
            "embed_tokens.weight: expected F32, found I16",
        ),
        (
            wide(
                "q_proj.weight.i8\":{\"dtype\":\"I8\"",
                "q_proj.weight.i8\":{\"dtype\":\"U8\"",
            ),
            "q_proj.weight.i8: expected I8, found U8",
        ),
        (
            wide("\\\"vocab_size\\\": 43", "\\\"vocab_size\\\": 44"),
            "expected shape [44, 32]",
        ),
        (wide("\\\"hidden_act\\\"", "\\\"hidden_akt\\\""), "hidden_akt"),
    ];
    for (message, expected) in cases {
        assert!(
            message.starts_with("attack.1bit: ") && message.contains(expected),
            "{expected}: {message}"
        );
    }
    // Three texts of the format are there; any other container is refused at once.
    let other = container(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4);
    let error = open(&other).map(drop).unwrap_err().to_string();
    assert!(error.contains("format: expected \"1bit\", found nothing"), "{error}");
}

#[test]
fn misplaced_data_and_bad_scales_are_refused() {
    let bytes = whole();
    // One space less in the header moves all data by one byte.
    let header = header_end(&bytes);
    let mut moved = ((header - 9) as u64).to_le_bytes().to_vec();
    assert_eq!(bytes[header - 1], b' ', "this header ends in a space");
    moved.extend(&bytes[8..header - 1]);
    moved.extend(&bytes[header..]);
    let error = open(&moved).map(drop).unwrap_err().to_string();
    assert!(
        error.contains("onebit.scales: begins at byte") && error.contains("no multiple of 64"),
        "{error}"
    );

    for value in [0.0, -1.0, f32::NAN, f32::INFINITY] {
        let mut bytes = bytes.clone();
        // The scales are the first tensor.
        bytes[header..header + 4].copy_from_slice(&value.to_le_bytes());
        let error = open(&bytes).map(drop).unwrap_err().to_string();
        assert!(
            error.contains("onebit.scales") && error.contains("o_proj.weight"),
            "{value}: {error}"
        );
    }
}

#[test]
fn codes_that_stand_for_nothing_are_harmless_and_found_by_verifying() {
    let model = packed(&small(), FloatStorage::Stored).with_layout(Layout::T2);
    let dir = tempfile::tempdir().unwrap();
    let path = save(&dir, &model, &Parts::default());
    let mut bytes = fs::read(&path).unwrap();
    let at = {
        let Linear::Ternary { packed, .. } = &model.blocks()[1].up else {
            panic!("ternary")
        };
        bytes
            .windows(packed.len())
            .position(|window| window == &**packed)
            .unwrap()
    };
    bytes[at..at + 32].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let file = OneFile::open(&path).unwrap();
    assert_eq!(logits(&file.model().unwrap()).len(), 5 * 40);
    assert!(file.verify().unwrap_err().to_string().contains("checksum"));
    // With the right checksum the codes themselves are seen.
    fs::write(&path, with_checksum(bytes)).unwrap();
    let error = OneFile::open(&path).unwrap().verify().unwrap_err().to_string();
    assert!(error.contains("layers.1.mlp.up_proj.weight: holds a code"), "{error}");
}
