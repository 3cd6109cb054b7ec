//! What is written comes back bit for bit, and nothing else is accepted.

use std::fs;

use safetensors::SafeTensors;
use tempfile::TempDir;

use super::*;
use crate::chat::ChatTemplate;
use crate::config::{LinearMode, ModelConfig, TensorKind};
use crate::files::tests::{container, edit, small, weights_of};
use crate::files::{Extras, FileError, GenerationConfig, ModelSource, NamedTensor, StoredAs, save_master};
use crate::runtime::{
    FloatStorage, FloatValues, Linear, PackedModel, Serial, Session, SessionOptions, SharedBytes, TensorSource, Top,
    Values,
};
use crate::tokenizer::train_bpe;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::ternary::Layout;

mod attacks;
mod bytes;
mod c_header;
mod columns;
mod int4;
mod sketch;

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

/// Writes a model that is in memory, as it is: its layouts, its columns, its sketch.
fn save(dir: &TempDir, model: &PackedModel, parts: &Parts<'_>) -> std::path::PathBuf {
    let path = dir.path().join("model.1bit");
    let linears = || model.blocks().iter().flat_map(|block| block.linears());
    let layout = linears().find_map(|linear| match linear {
        Linear::Ternary { layout, .. } => Some(*layout),
        _ => None,
    });
    let options = OneFileOptions {
        layout: TernaryLayout::All(layout.unwrap_or_default()),
        columns: model.bytes().columns > 0,
        sketch_above: model.sketch().map(|_| 0),
        ..Default::default()
    };
    save_one_file(&path, &Held(model), &options, parts, &|_, _| ()).unwrap();
    path
}

/// A packed model as a source.
struct Held<'m>(&'m PackedModel);

impl Held<'_> {
    fn linear(&self, name: &str) -> Option<&Linear> {
        let config = self.0.config();
        let names = (0..config.num_hidden_layers).flat_map(|layer| config.linears(layer));
        let at = names.map(|linear| linear.name).position(|other| other == name)?;
        self.0.blocks().iter().flat_map(|block| block.linears()).nth(at)
    }

    fn floats(&self, name: &str) -> FloatValues {
        let norms = { self.0.config().tensors().into_iter() }.filter(|spec| spec.kind == TensorKind::Norm);
        match (name, self.linear(name)) {
            ("model.embed_tokens.weight", _) => self.0.embedding().values.clone(),
            ("lm_head.weight", _) => self.0.head().values.clone(),
            (_, Some(Linear::Float(matrix))) => matrix.values.clone(),
            _ => {
                let at = norms.map(|spec| spec.name).position(|other| other == name).unwrap();
                let blocks = self.0.blocks().iter().flat_map(|block| {
                    let after = [&block.q_norm, &block.k_norm, &block.attn_sub_norm]
                        .into_iter()
                        .flatten();
                    let rest = std::iter::once(&block.post_attention_norm).chain(&block.ffn_sub_norm);
                    std::iter::once(&block.input_norm).chain(after).chain(rest)
                });
                let last = Values::from(self.0.norm().to_vec());
                FloatValues::F32(blocks.chain([&last]).nth(at).unwrap().clone())
            }
        }
    }
}

impl ModelSource for Held<'_> {
    fn path(&self) -> &std::path::Path {
        std::path::Path::new("memory")
    }

    fn config(&self) -> &ModelConfig {
        self.0.config()
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        Ok(match (self.linear(name), self.tensor(name)?) {
            (Some(Linear::Ternary { .. }), _) => StoredAs::Trits,
            (Some(Linear::Int8 { .. }), _) => StoredAs::Int8,
            (Some(Linear::Int4 { .. }), _) => StoredAs::Int4,
            (_, TensorSource::Trits { .. }) => StoredAs::Trits,
            (_, TensorSource::Float(values)) => match values.type_name() {
                "f16" => StoredAs::F16,
                "bf16" => StoredAs::Bf16,
                "int8" => StoredAs::Int8,
                "int4" => StoredAs::Int4,
                _ => StoredAs::F32,
            },
            _ => panic!("{name}"),
        })
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        Ok(match self.linear(name) {
            Some(Linear::Ternary {
                rows,
                cols,
                layout,
                packed,
                scale,
                ..
            }) => {
                let mut values = vec![0; rows * cols];
                layout.unpack(packed, *rows, *cols, &mut values);
                TensorSource::Trits { values, scale: *scale }
            }
            Some(Linear::Int8 { values, steps, .. }) => TensorSource::Integers {
                values: values.to_vec(),
                steps: steps.to_vec(),
            },
            Some(Linear::Int4 { cols, codes, steps, .. }) => TensorSource::Float(FloatValues::Int4 {
                codes: codes.clone(),
                steps: steps.clone(),
                cols: *cols,
            }),
            _ => match self.floats(name) {
                FloatValues::Trits {
                    layout,
                    packed,
                    scale,
                    rows,
                    cols,
                } => {
                    let mut values = vec![0; rows * cols];
                    layout.unpack(&packed, rows, cols, &mut values);
                    TensorSource::Trits { values, scale }
                }
                floats => TensorSource::Float(floats),
            },
        })
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
    modes[1].o = LinearMode::Binary;
    config
}

/// A model whose embedding and head are no floats.
fn narrow(embedding: LinearMode) -> ModelConfig {
    ModelConfig {
        embedding_mode: embedding,
        head_mode: LinearMode::Ternary,
        ..mixed()
    }
}

/// That with capped logits.
fn capped() -> ModelConfig {
    ModelConfig {
        final_logit_softcapping: Some(0.3),
        ..mixed()
    }
}

#[test]
fn a_model_comes_back_bit_for_bit_and_lies_in_the_file() {
    let storages = FloatStorage::ALL.map(|(_, storage)| storage);
    let mut models = vec![sketched(), sketched().without_sketch()];
    for config in [
        small(),
        mixed(),
        capped(),
        narrow(LinearMode::Ternary),
        narrow(LinearMode::Binary),
    ] {
        models.extend(storages.map(|storage| packed(&config, storage)));
    }
    for model in models {
        let expected = logits(&model);
        for layout in Layout::TERNARY {
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
                Linear::Ternary { packed, layout: l, .. } => packed.is_shared() && (*l == layout || *l == Layout::B1),
                Linear::Int8 { values, steps, .. } => values.is_shared() && steps.is_shared(),
                Linear::Int4 { codes, steps, .. } => codes.is_shared() && steps.is_shared(),
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

#[test]
fn a_model_runs_from_memory_that_lives_as_long_as_the_program() {
    let bytes = whole();
    let model = open(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    fs::write(&path, &bytes).unwrap();
    assert_eq!(logits(&model), logits(&OneFile::open(&path).unwrap().model().unwrap()));
}
