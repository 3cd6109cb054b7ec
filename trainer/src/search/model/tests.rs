//! What a search is told of a model is what its files say.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use onebit_engine::Isa;
use onebit_engine::rng::Key;
use onebit_model::config::{FeedForward, LinearMode, MatrixSite, ModelConfig, presets};
use onebit_model::evaluation;
use onebit_model::files::{FileError, ModelSource, OneFile, OneFileOptions, Parts, Recast, StoredAs, save_one_file};
use onebit_model::runtime::{FloatValues, KvType, PackedModel, TensorSource};

use super::*;
use crate::Result;
use crate::search::{Candidate, Evaluator, Sites};

/// Random master weights of a small model.
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

    fn stored(&self, _name: &str) -> std::result::Result<StoredAs, FileError> {
        Ok(StoredAs::F32)
    }

    fn tensor(&self, name: &str) -> std::result::Result<TensorSource, FileError> {
        let (at, spec) = { self.0.tensors().into_iter().enumerate() }
            .find(|(_, spec)| spec.name == name)
            .expect("a tensor of the config");
        let key = Key::new(3, 11, at as u64);
        let norm = name.contains("norm");
        let value = |i| if norm { 1.0 } else { 0.3 * key.normal(i) };
        Ok(TensorSource::Float(FloatValues::F32(
            (0..spec.len() as u64).map(value).collect::<Vec<f32>>().into(),
        )))
    }
}

fn masters(tied: bool, modes: LinearMode) -> Masters {
    let preset = presets::by_name("25m").expect("a preset");
    let mut config = ModelConfig {
        vocab_size: 61,
        hidden_size: 64,
        intermediate_size: 96,
        num_hidden_layers: 3,
        num_attention_heads: 4,
        num_key_value_heads: 2,
        head_dim: 16,
        max_position_embeddings: 32,
        feed_forward: FeedForward::Relu2Gated,
        tie_word_embeddings: tied,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        ..preset.config
    };
    config.set_all_modes(modes);
    Masters(config)
}

fn ids(count: usize) -> Vec<u32> {
    let key = Key::new(5, 12, 0);
    (0..count as u64).map(|i| key.below(i, 61)).collect()
}

fn random_map(sites: &Sites, seed: u64) -> Candidate {
    let key = Key::new(seed, 13, 0);
    let digit = |(i, site): (usize, &crate::search::Site)| key.below(i as u64, site.choices.len() as u32) as u8;
    Candidate::new(sites.all().iter().enumerate().map(digit).collect::<Vec<u8>>())
}

/// Everything of a model and a text in a folder.
struct Bench {
    dir: tempfile::TempDir,
    source: Masters,
    ids: Vec<u32>,
}

impl Bench {
    fn new(tied: bool, modes: LinearMode) -> Self {
        Bench {
            dir: tempfile::tempdir().unwrap(),
            source: masters(tied, modes),
            ids: ids(200),
        }
    }

    fn palette(&self) -> Palette {
        Palette::open(&self.source, self.dir.path(), &LinearMode::ALL, &|_, _| ()).unwrap()
    }
}

const CONTEXT: usize = 24;

fn score(model: &PackedModel, ids: &[u32], progress: &(dyn Fn(u64) + Sync)) -> Result<f64> {
    let window = (CONTEXT, CONTEXT);
    Ok(evaluation::score(model, Isa::best(), ids, window, KvType::F32, progress)?.loss())
}

fn quietly(model: &PackedModel, ids: &[u32]) -> f64 {
    score(model, ids, &|_| ()).unwrap()
}

#[test]
fn promises_are_what_the_files_say() {
    for tied in [false, true] {
        let bench = Bench::new(tied, LinearMode::F16);
        let palette = bench.palette();
        let parts = Parts {
            tokenizer: Some(b"{\"some\": \"text\"}"),
            ..Parts::default()
        };
        let weighing = Weighing::new(&bench.source, parts).unwrap();
        let sites = weighing.sites(&palette).unwrap();
        assert_eq!(sites.len(), 3 * 7 + 2 - usize::from(tied));
        let calibration = Calibration::new(&palette, &bench.ids, 150, CONTEXT).unwrap();
        assert_eq!(calibration.stages(), [24, 48, 150]);
        let evaluator = ModelEvaluator::new(&palette, calibration, &weighing, Box::new(score));
        for seed in 0..6 {
            let map = random_map(&sites, seed);
            let path = bench.dir.path().join("found.1bit");
            let config = palette.config_of(&map);
            let recast = Recast::new(&bench.source, |site| config.mode_at(site)).unwrap();
            save_one_file(&path, &recast, &OneFileOptions::SMALLEST, &parts, &|_, _| ()).unwrap();
            let file = OneFile::open(&path).unwrap();
            file.verify().unwrap();
            assert_eq!(file.file_bytes() as u64, evaluator.bytes(&map));
            let near = sites.sum(&map).abs_diff(evaluator.bytes(&map));
            assert!(near < 8192, "only the header differs: {near}");
            assert_eq!(file.config().layer_bit_map(), config.layer_bit_map());
            for &tokens in evaluator.stages() {
                let said = quietly(&file.model().unwrap(), &bench.ids[..=tokens]);
                assert_eq!(evaluator.loss(&map, tokens).unwrap().to_bits(), said.to_bits());
            }
        }
    }
}

#[test]
fn a_palette_is_made_once_and_knows_its_model() {
    let bench = Bench::new(false, LinearMode::Ternary);
    let first = bench.palette();
    let held: Vec<&str> = { first.sites().iter() }
        .map(|site| first.config_of(first.held()).mode_at(*site).name())
        .collect();
    assert_eq!((held[0], held[1], held[held.len() - 1]), ("f16", "ternary", "f16"));
    let told = AtomicU64::new(0);
    let count = |_, _| {
        told.fetch_add(1, Ordering::Relaxed);
    };
    let again = Palette::open(&bench.source, bench.dir.path(), &LinearMode::ALL, &count).unwrap();
    assert_eq!((again.hash(), told.load(Ordering::Relaxed)), (first.hash(), 0));
    // Another model has files of its own.
    let other = Masters(ModelConfig {
        rms_norm_eps: 2e-5,
        ..bench.source.0.clone()
    });
    let other = Palette::open(&other, bench.dir.path(), &LinearMode::ALL, &count).unwrap();
    assert!(other.hash() != first.hash() && told.load(Ordering::Relaxed) > 0);
    assert!(Palette::open(&bench.source, bench.dir.path(), &[], &count).is_err());
    assert!(Palette::open(&bench.source, bench.dir.path(), &[LinearMode::Int8; 2], &count).is_err());
}

#[test]
fn each_width_alone_is_measured_once_and_as_scoring_does() {
    for (tied, modes) in [(false, LinearMode::F16), (true, LinearMode::Ternary)] {
        let bench = Bench::new(tied, modes);
        let palette = bench.palette();
        let calibration = Calibration::new(&palette, &bench.ids, 150, CONTEXT).unwrap();
        let folder = bench.dir.path();
        let never = || false;
        let quiet = |_, _| ();
        let tokens = 100;
        // Interrupted after a few, it goes on where it was.
        let asked = AtomicU64::new(0);
        let soon = || asked.fetch_add(1, Ordering::Relaxed) >= 9;
        assert_eq!(
            measure(&palette, &calibration, tokens, folder, &soon, &quiet).unwrap(),
            None
        );
        let mut files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let path = files
            .find(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .unwrap();
        let lines = std::fs::read_to_string(&path).unwrap().lines().count();
        assert_eq!(lines, 2 + 9, "a header, the reference and nine widths");
        // Torn in the middle of a line.
        let content = std::fs::read(&path).unwrap();
        std::fs::write(&path, &content[..content.len() - 5]).unwrap();
        let measured = measure(&palette, &calibration, tokens, folder, &never, &quiet)
            .unwrap()
            .unwrap();
        let all = palette.sites().len() as u64 * 4;
        assert_eq!(measured.passes, all - 8);
        let again = measure(&palette, &calibration, tokens, folder, &never, &quiet)
            .unwrap()
            .unwrap();
        assert_eq!((again.passes, &again.cells), (0, &measured.cells));

        let ids = &bench.ids[..=tokens];
        let of = |map: &Candidate| quietly(&palette.model(map).unwrap(), ids);
        assert_eq!(measured.loss.to_bits(), of(palette.held()).to_bits());
        for (site, row) in measured.cells.iter().enumerate() {
            for (width, cell) in row.iter().enumerate() {
                let map = palette.held().with(site, width as u8);
                assert_eq!(cell.loss.to_bits(), of(&map).to_bits(), "{:?}", palette.sites()[site]);
                let same = map == *palette.held();
                assert_eq!(cell.error == 0.0, same, "{:?} {width}: {cell:?}", palette.sites()[site]);
            }
            if modes == LinearMode::F16 {
                // Eight bits err less than four, four less than trits.
                assert!(row[1].error < row[2].error && row[2].error < row[3].error, "{row:?}");
            }
        }
        // Other tokens are another measurement.
        let other = measure(&palette, &calibration, 50, folder, &never, &quiet)
            .unwrap()
            .unwrap();
        assert_eq!(other.passes, all + 1);
    }
}

#[test]
fn a_linear_knows_its_own_block() {
    // The error of q in the last block is not seen by those before it: its pass begins there, with the bits of the whole.
    let bench = Bench::new(false, LinearMode::F16);
    let palette = bench.palette();
    let at = { palette.sites().iter() }
        .position(|site| matches!(site, MatrixSite::Linear { layer: 2, .. }))
        .unwrap();
    let map = palette.held().with(at, 4);
    let model = palette.model(&map).unwrap();
    let plain = palette.model(palette.held()).unwrap();
    assert_eq!(model.blocks()[..2], plain.blocks()[..2]);
    assert!(model.blocks()[2] != plain.blocks()[2]);
}
