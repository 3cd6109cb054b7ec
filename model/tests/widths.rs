//! A model under other `layer_bit_map`s: written, measured beforehand, put together from others, and read from the middle.
#![cfg(feature = "std")]

mod common;

use std::path::Path;

use common::{bits, every_option, random_ids, values};
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::rng::Key;
use onebit_model::config::{LinearMode, MatrixSite, ModelConfig};
use onebit_model::files::{
    FileError, ModelSource, OneFile, OneFileOptions, Parts, Recast, StoredAs, one_file_bytes, save_one_file,
};
use onebit_model::runtime::{
    FloatStorage, FloatValues, PackedModel, Resume, RuntimeError, Serial, Session, SessionOptions, TensorSource,
};

/// Random master weights.
struct Masters(ModelConfig);

impl ModelSource for Masters {
    fn path(&self) -> &Path {
        Path::new("memory")
    }

    fn config(&self) -> &ModelConfig {
        &self.0
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, _name: &str) -> Result<StoredAs, FileError> {
        Ok(StoredAs::F32)
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let specs = self.0.tensors();
        let spec = specs
            .iter()
            .find(|spec| spec.name == name)
            .expect("a tensor of the config");
        Ok(TensorSource::Float(FloatValues::F32(
            values(5, name, spec.len()).into(),
        )))
    }
}

const OPTIONS: OneFileOptions = OneFileOptions::SMALLEST;

fn saved(dir: &Path, name: &str, source: &dyn ModelSource) -> OneFile {
    let path = dir.join(name);
    save_one_file(&path, source, &OPTIONS, &Parts::default(), &|_, _| ()).unwrap();
    let file = OneFile::open(&path).unwrap();
    file.verify().unwrap();
    file
}

fn logits(model: &PackedModel, ids: &[u32]) -> Vec<u32> {
    let mut session = Session::new(model, Serial, Isa::best(), SessionOptions::new(64)).unwrap();
    let mut all = Vec::new();
    session.prefill_all(ids, |_, row| all.extend(bits(row))).unwrap();
    all
}

/// A mode for each site, drawn from all.
fn random_map(config: &ModelConfig, key: Key) -> Vec<(MatrixSite, LinearMode)> {
    let mode = |i: usize| LinearMode::ALL[key.below(i as u64, 5) as usize];
    config
        .sites()
        .into_iter()
        .enumerate()
        .map(|(i, site)| (site, mode(i)))
        .collect()
}

#[test]
fn a_map_is_a_file_of_known_size_and_a_choice_among_uniform_models() {
    for (at, (name, mut config)) in every_option().into_iter().enumerate() {
        config.set_all_modes(LinearMode::F16);
        (config.embedding_mode, config.head_mode) = (LinearMode::F16, LinearMode::F16);
        let dir = tempfile::tempdir().unwrap();
        let masters = Masters(config.clone());
        let uniform: Vec<PackedModel> = LinearMode::ALL
            .iter()
            .map(|mode| {
                let recast = Recast::new(&masters, |_| *mode).unwrap();
                saved(dir.path(), &format!("{}.1bit", mode.name()), &recast)
                    .model()
                    .unwrap()
            })
            .collect();
        let ids = random_ids(config.vocab_size, 37, 3);
        for seed in 0..3 {
            let map = random_map(&config, Key::new(seed, 9, at as u64));
            let of = |site: MatrixSite| map.iter().find(|(other, _)| *other == site).unwrap().1;
            let recast = Recast::new(&masters, of).unwrap();
            for (site, mode) in &map {
                assert_eq!(recast.config().mode_at(*site), *mode, "{name}");
            }
            let bytes = one_file_bytes(&recast, &OPTIONS, &Parts::default()).unwrap();
            let file = saved(dir.path(), "mixed.1bit", &recast);
            assert_eq!(file.file_bytes() as u64, bytes, "{name}");
            let whole = file.model().unwrap();
            let number = |site| LinearMode::ALL.iter().position(|mode| *mode == of(site)).unwrap();
            let picked = PackedModel::picked(&uniform, number).unwrap();
            assert_eq!(
                (picked.config(), picked.blocks()),
                (whole.config(), whole.blocks()),
                "{name}"
            );
            assert_eq!(
                (picked.embedding(), picked.head()),
                (whole.embedding(), whole.head()),
                "{name}"
            );
            assert!(
                picked
                    .blocks()
                    .iter()
                    .flat_map(|block| block.norms())
                    .all(|norm| norm.is_shared())
            );
            assert_eq!(logits(&picked, &ids), logits(&whole, &ids), "{name}");
            // What is in its form already goes on as it is: a second recast to the same map gives the same file.
            let again = Recast::new(&file, of).unwrap();
            saved(dir.path(), "again.1bit", &again);
            let read = |name: &str| std::fs::read(dir.path().join(name)).unwrap();
            assert!(read("again.1bit") == read("mixed.1bit"), "{name}");
        }
    }
}

#[test]
fn models_of_other_shapes_are_not_mixed() {
    let model = |config: ModelConfig| common::random_model(&config, 1, FloatStorage::F16);
    let one = common::config();
    let other = ModelConfig {
        qk_norm: true,
        ..one.clone()
    };
    let models = [model(one), model(other)];
    let refused = PackedModel::picked(&models, |site| usize::from(site == MatrixSite::Embedding)).unwrap_err();
    assert!(matches!(refused, RuntimeError::Unfit { found: 1, .. }), "{refused}");
    let refused = PackedModel::picked(&models, |_| 2).unwrap_err();
    assert!(matches!(refused, RuntimeError::Unfit { found: 2, .. }), "{refused}");
}

#[test]
fn a_pass_goes_on_from_the_stream_behind_any_block() {
    for (name, config) in every_option() {
        let model = common::random_model(&config, 2, FloatStorage::F16);
        let (ids, hidden) = (random_ids(config.vocab_size, 37, 4), config.hidden_size);
        let options = SessionOptions {
            chunk: 16,
            logit_rows: 5,
            ..SessionOptions::new(64)
        };
        let mut session = Session::new(&model, Serial, Isa::best(), options).unwrap();
        let expected = logits(&model, &ids);
        let mut streams = vec![vec![0.0; ids.len() * hidden]; config.num_hidden_layers + 1];
        let mut found = Vec::new();
        let keep = |n: usize, first: usize, stream: &[f32]| {
            streams[n][first * hidden..][..stream.len()].copy_from_slice(stream);
        };
        session
            .pass_from(&ids, None, keep, |_, row| found.extend(bits(row)))
            .unwrap();
        assert!(found == expected, "{name}");
        for blocks in 0..streams.len() {
            let (mut found, mut rows) = (Vec::new(), Vec::new());
            let mut last = Vec::new();
            let from = Resume {
                blocks,
                stream: &streams[blocks],
            };
            let keep = |n: usize, _, stream: &[f32]| {
                assert!(n > blocks);
                if n + 1 == streams.len() {
                    last.extend_from_slice(stream);
                }
            };
            let each = |i, row: &[f32]| {
                rows.push(i);
                found.extend(bits(row));
            };
            session.pass_from(&ids, Some(from), keep, each).unwrap();
            assert!(found == expected, "{name}, from {blocks}");
            assert!(rows.into_iter().eq(0..ids.len()));
            if blocks + 1 < streams.len() {
                assert!(last == streams[streams.len() - 1], "{name}, from {blocks}");
            }
        }
        let short = Resume {
            blocks: 1,
            stream: &streams[1][hidden..],
        };
        let refused = session
            .pass_from(&ids, Some(short), |_, _, _| (), |_, _| ())
            .unwrap_err();
        assert!(matches!(refused, RuntimeError::Unfit { .. }));
    }
}
