//! What the writer of directories writes: bytes as the `safetensors` crate would, shards, and models that come back as they were.

use onebit_kernels_cpu::int4_gemv;
use std::collections::HashMap;
use std::fs;

use super::whole::read_whole;
use super::*;
use crate::config::{LinearMode, WeightStorage};
use crate::runtime::{FloatStorage, FloatValues, PackedModel, TensorSource};

const QUIET: &dyn Fn(u64, u64) = &|_, _| ();

fn packed_small(dir: &Path, precision: HighPrecision) -> ModelConfig {
    let config = ModelConfig {
        tie_word_embeddings: false,
        ..small()
    };
    let tensors = weights_of(&config);
    save_packed(dir, &config, &NamedTensor::all(&tensors), Extras::default(), precision).unwrap();
    config
}

#[test]
fn the_container_is_the_one_of_the_safetensors_crate() {
    for precision in [HighPrecision::F32, HighPrecision::BF16] {
        let dir = tempfile::tempdir().unwrap();
        packed_small(dir.path(), precision);
        let ours = fs::read(dir.path().join(WEIGHTS_FILE)).unwrap();
        let theirs = safetensors::SafeTensors::deserialize(&ours).unwrap();
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let again = safetensors::serialize(theirs.iter(), Some(metadata)).unwrap();
        assert!(ours == again);
    }
}

#[test]
fn shards_hold_what_one_file_holds() {
    let (one, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    packed_small(one.path(), HighPrecision::F16);
    let source = HfDirectory::open(one.path()).unwrap();
    let options = DirectoryOptions {
        shard_bytes: 3000,
        ..Default::default()
    };
    // A model in one file is there before.
    packed_small(out.path(), HighPrecision::F32);
    save_directory(out.path(), &source, &options, Extras::default(), QUIET).unwrap();
    assert!(!out.path().join(WEIGHTS_FILE).exists());
    let index: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(out.path().join(WEIGHTS_INDEX_FILE)).unwrap()).unwrap();
    let map = index["weight_map"].as_object().unwrap();
    let mut total = 0;
    let mut shards: Vec<&str> = map.values().map(|v| v.as_str().unwrap()).collect();
    shards.sort_unstable();
    shards.dedup();
    assert!(shards.len() > 3, "{shards:?}");
    for (i, shard) in shards.iter().enumerate() {
        assert_eq!(*shard, format!("model-{:05}-of-{:05}.safetensors", i + 1, shards.len()));
        let weights = Weights::open_file(&out.path().join(shard)).unwrap();
        let bytes: usize = weights.names().map(|name| weights.get(name).unwrap().bytes.len()).sum();
        assert!(bytes <= 3000, "{shard}: {bytes}");
        total += bytes;
        // A linear and its scale are in the same file.
        for name in weights.names().filter(|name| name.ends_with("_scale")) {
            assert!(weights.get(name.trim_end_matches("_scale")).is_some(), "{name}");
        }
    }
    assert_eq!(index["metadata"]["total_size"], total);
    assert_eq!(load_model(out.path()).unwrap(), load_model(one.path()).unwrap());
    // And back into one file: the index is gone.
    let back = HfDirectory::open(out.path()).unwrap();
    save_directory(
        out.path(),
        &back,
        &DirectoryOptions::default(),
        Extras::default(),
        QUIET,
    )
    .unwrap();
    assert!(!out.path().join(WEIGHTS_INDEX_FILE).exists());
    assert_eq!(
        fs::read(out.path().join(WEIGHTS_FILE)).unwrap(),
        fs::read(one.path().join(WEIGHTS_FILE)).unwrap()
    );
}

/// Directory, one file, directory: the same bytes, norms in the type of the embedding among them.
#[test]
fn through_a_one_file_model_and_back_is_the_identity() {
    for precision in [HighPrecision::F16, HighPrecision::BF16, HighPrecision::F32] {
        let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        packed_small(a.path(), precision);
        let path = b.path().join("m.1bit");
        let source = HfDirectory::open(a.path()).unwrap();
        save_one_file(&path, &source, &OneFileOptions::default(), &Parts::default(), QUIET).unwrap();
        let file = OneFile::open(&path).unwrap();
        save_directory(b.path(), &file, &DirectoryOptions::default(), Extras::default(), QUIET).unwrap();
        for name in [CONFIG_FILE, WEIGHTS_FILE] {
            let read = |dir: &Path| fs::read(dir.join(name)).unwrap();
            assert!(read(a.path()) == read(b.path()), "{precision:?} {name}");
        }
        assert_eq!(read_whole(&file).unwrap().linears, read_whole(&source).unwrap().linears);
    }
}

/// Norms whose values need f32 keep it, whatever the embedding is.
#[test]
fn a_norm_is_not_rounded() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save_small(a.path());
    let source = HfDirectory::open(a.path()).unwrap();
    let path = b.path().join("m.1bit");
    let options = OneFileOptions {
        storage: FloatStorage::F16,
        ..Default::default()
    };
    save_one_file(&path, &source, &options, &Parts::default(), QUIET).unwrap();
    let file = OneFile::open(&path).unwrap();
    save_directory(b.path(), &file, &DirectoryOptions::default(), Extras::default(), QUIET).unwrap();
    let (before, after) = (load_model(a.path()).unwrap(), load_model(b.path()).unwrap());
    assert_eq!(after.tensors["model.embed_tokens.weight"].stored, Dtype::F16);
    assert_eq!(after.tensors["model.norm.weight"], before.tensors["model.norm.weight"]);
}

/// Integers and binary weights have no place in the packed layout: they go out as the floats that they stand for, and are the same again.
#[test]
fn other_modes_come_back() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = small();
    let modes = &mut config.layer_modes[0];
    (modes.q, modes.k, modes.v) = (LinearMode::Int8, LinearMode::Int4, LinearMode::F16);
    config.layer_modes[1].down = LinearMode::Binary;
    let tensors = weights_of(&config);
    save_master(a.path(), &config, &NamedTensor::all(&tensors), Extras::default()).unwrap();
    let path = b.path().join("m.1bit");
    let source = HfDirectory::open(a.path()).unwrap();
    save_one_file(&path, &source, &OneFileOptions::default(), &Parts::default(), QUIET).unwrap();
    let file = OneFile::open(&path).unwrap();
    save_directory(b.path(), &file, &DirectoryOptions::default(), Extras::default(), QUIET).unwrap();
    let read = HfDirectory::open(b.path()).unwrap();
    assert_eq!(read.config().storage, WeightStorage::PackedMultiply);
    assert_eq!(read.config().layer_modes, config.layer_modes);
    let (one, two) = (
        file.model().unwrap().with_layout(Default::default()),
        PackedModel::from_source(&read, FloatStorage::Stored).unwrap(),
    );
    for (a, b) in one.blocks().iter().zip(two.blocks()) {
        use crate::runtime::Linear::{Int4, Int8, Ternary};
        for (a, b) in a.linears().zip(b.linears()) {
            match (a, b) {
                (
                    Ternary {
                        packed: a, scale: x, ..
                    },
                    Ternary {
                        packed: b, scale: y, ..
                    },
                ) => {
                    assert!(a == b && (x / y - 1.0).abs() < 1e-6, "{x} {y}");
                }
                (
                    Int8 {
                        values: a, steps: x, ..
                    },
                    Int8 {
                        values: b, steps: y, ..
                    },
                ) => {
                    assert_eq!(a, b);
                    assert!(x.iter().zip(&**y).all(|(x, y)| (x / y - 1.0).abs() < 1e-6));
                }
                // What is int4 is written as floats, and whoever packs them rounds again: by less than a step.
                (
                    Int4 {
                        codes: a,
                        steps: x,
                        cols,
                        ..
                    },
                    Int4 { codes: b, steps: y, .. },
                ) => {
                    let floats = |codes: &[u8], steps: &[half::f16]| {
                        let mut out = vec![0.0; codes.len() / int4_gemv::row_bytes(*cols) * cols];
                        int4_gemv::dequantize(codes, steps, *cols, &mut out);
                        out
                    };
                    let step = x.iter().fold(0.0, |most: f32, step| most.max(step.to_f32().abs()));
                    let (one, two) = (floats(a, x), floats(b, y));
                    assert!(one.iter().zip(&two).all(|(a, b)| (a - b).abs() < step));
                }
                (a, b) => assert_eq!(a, b),
            }
        }
    }
    let gaps = |config: &ModelConfig| config.beyond_transformers().len();
    assert_eq!(
        (gaps(&config), gaps(&by_name("2b4t").unwrap().config)),
        (gaps(&small()) + 3, 0)
    );
}

/// A model that is told by what is in it, whatever it is called.
#[test]
fn kinds_are_told_by_content() {
    let dir = tempfile::tempdir().unwrap();
    save_small(dir.path());
    assert_eq!(ModelKind::of(dir.path()).unwrap(), ModelKind::Directory);
    assert_eq!(open_source(dir.path()).unwrap().config(), &small());
    let path = dir.path().join("no-extension");
    let source = HfDirectory::open(dir.path()).unwrap();
    save_one_file(&path, &source, &OneFileOptions::default(), &Parts::default(), QUIET).unwrap();
    assert_eq!(ModelKind::of(&path).unwrap(), ModelKind::OneFile);
    assert_eq!(open_source(&path).unwrap().config(), &small());
    let refused = |path: &Path, what: &str| {
        let error = ModelKind::of(path).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    };
    refused(&dir.path().join(WEIGHTS_FILE), "without the configuration");
    refused(&dir.path().join("none"), "cannot open");
    let write = |bytes: &[u8]| fs::write(&path, bytes).unwrap();
    write(b"GGUF\x03\0\0\0");
    assert_eq!(ModelKind::of(&path).unwrap(), ModelKind::Gguf);
    write(b"some text that is long enough");
    refused(&path, "unknown kind");
    write(b"");
    refused(&path, "unknown kind");
    fs::remove_file(dir.path().join(CONFIG_FILE)).unwrap();
    refused(dir.path(), "without config.json");
}

/// A source that gives another tensor than its headers say.
struct Other<'s> {
    source: &'s HfDirectory,
    name: &'static str,
    given: TensorSource,
}

impl ModelSource for Other<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn config(&self) -> &ModelConfig {
        self.source.config()
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        self.source.stored(name)
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        match name == self.name {
            true => Ok(self.given.clone()),
            false => self.source.tensor(name),
        }
    }
}

#[test]
fn a_tensor_that_is_not_what_was_announced_is_refused() {
    let (a, b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    packed_small(a.path(), HighPrecision::F32);
    let source = &HfDirectory::open(a.path()).unwrap();
    let (embedding, linear) = ("model.embed_tokens.weight", "model.layers.0.mlp.up_proj.weight");
    let save = |name, given| {
        let other = Other { source, name, given };
        let options = DirectoryOptions::default();
        save_directory(b.path(), &other, &options, Extras::default(), QUIET).unwrap_err()
    };
    let floats = |len| TensorSource::Float(FloatValues::F32(vec![0.5; len].into()));
    let short = save(embedding, floats(39 * 32));
    assert!(
        matches!(&short, FileError::Changed { name, expected: 5120, found: 4992 } if name == embedding),
        "{short}"
    );
    let trits = save(
        embedding,
        TensorSource::Packed {
            bytes: Vec::new(),
            scale: 1.0,
        },
    );
    assert!(
        matches!(&trits, FileError::Type { name, .. } if name == embedding),
        "{trits}"
    );
    let integers = TensorSource::Integers {
        values: vec![1; 48 * 32],
        steps: vec![1.0; 48],
    };
    for given in [integers, floats(47 * 32)] {
        let error = save(linear, given);
        assert!(
            matches!(&error, FileError::Weights { .. }) && error.to_string().contains(linear),
            "{error}"
        );
    }
    assert!(!b.path().join(WEIGHTS_FILE).exists());
}
