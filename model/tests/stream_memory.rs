//! A conversion holds a few of the largest tensors and never the model: counted in a process of its own.

#[path = "common/counting.rs"]
mod counting;

use std::path::Path;

use counting::peak_of_all_threads;
use onebit_model::config::{FeedForward, LayerModes, LinearMode, ModelConfig, TensorKind, WeightStorage};
use onebit_model::files::gguf::{GgufModel, GgufOptions, TensorType, save_gguf};
use onebit_model::files::{
    DirectoryOptions, Extras, FileError, HfDirectory, ModelSource, OneFile, OneFileOptions, Parts, StoredAs,
    save_directory, save_one_file,
};
use onebit_model::runtime::{FloatStorage, FloatValues, PackedModel, TensorSource};

/// A BitNet b1.58 2B4T at a tenth of its widths, with a vocabulary so small that the embedding is a sixth of the packed model.
fn config() -> ModelConfig {
    ModelConfig {
        vocab_size: 2048,
        hidden_size: 256,
        intermediate_size: 704,
        num_hidden_layers: 30,
        num_attention_heads: 4,
        num_key_value_heads: 1,
        head_dim: 64,
        max_position_embeddings: 128,
        rms_norm_eps: 1e-5,
        rope_theta: 500_000.0,
        feed_forward: FeedForward::Relu2Gated,
        tie_word_embeddings: true,
        sub_norms: true,
        qk_norm: false,
        residual_scaling: false,
        final_logit_softcapping: None,
        layer_modes: vec![LayerModes::uniform(LinearMode::Ternary); 30],
        embedding_mode: LinearMode::F16,
        head_mode: LinearMode::F16,
        bos_token_id: None,
        eos_token_ids: Vec::new(),
        initializer_range: 0.02,
        storage: WeightStorage::PackedMultiply,
    }
}

/// Made as it is read.
struct Made(ModelConfig);

impl ModelSource for Made {
    fn path(&self) -> &Path {
        Path::new("made")
    }

    fn config(&self) -> &ModelConfig {
        &self.0
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        Ok(match self.tensor(name)? {
            TensorSource::Trits { .. } => StoredAs::Trits,
            _ => StoredAs::Bf16,
        })
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let spec = self.0.tensors().into_iter().find(|spec| spec.name == name).unwrap();
        let value = |i: usize| (i * 7919 % 3) as i8 - 1;
        Ok(match spec.kind {
            TensorKind::Linear(_) => TensorSource::Trits {
                values: (0..spec.len()).map(value).collect(),
                scale: 0.5,
            },
            _ => TensorSource::Float(FloatValues::Bf16(
                (0..spec.len())
                    .map(|i| half::bf16::from_f32(f32::from(value(i)) + 2.0))
                    .collect(),
            )),
        })
    }
}

fn most(work: impl FnOnce()) -> usize {
    peak_of_all_threads(work).1
}

#[test]
fn a_conversion_holds_a_few_tensors_and_never_the_model() {
    let out = tempfile::tempdir().unwrap();
    let (hf, one, back) = (
        out.path().join("hf"),
        out.path().join("m.1bit"),
        out.path().join("back"),
    );
    let config = config();
    let largest = 2 * config.vocab_size * config.hidden_size;
    let options = OneFileOptions {
        storage: FloatStorage::F16,
        columns: true,
        ..Default::default()
    };
    let (quiet, directory) = (|_, _| (), DirectoryOptions::default());
    save_directory(&hf, &Made(config), &directory, Extras::default(), &quiet).unwrap();
    let to_one = most(|| {
        let source = HfDirectory::open(&hf).unwrap();
        save_one_file(&one, &source, &options, &Parts::default(), &quiet).unwrap();
    });
    let to_hf = most(|| {
        let file = OneFile::open(&one).unwrap();
        save_directory(&back, &file, &directory, Extras::default(), &quiet).unwrap();
    });
    let gguf = out.path().join("m.gguf");
    let to_gguf = most(|| {
        let source = HfDirectory::open(&hf).unwrap();
        let options = GgufOptions {
            linears: Some(TensorType::F16),
            head: Some(TensorType::Q8_0),
            ..GgufOptions::default()
        };
        save_gguf(&gguf, &source, &options, &quiet).unwrap();
    });
    let from_gguf = most(|| {
        let file = GgufModel::open(&gguf).unwrap();
        save_directory(&back, &file, &directory, Extras::default(), &quiet).unwrap();
    });
    println!("to GGUF {to_gguf}, from GGUF {from_gguf}");
    let whole = most(|| {
        PackedModel::open(&hf, FloatStorage::Stored).unwrap();
    });
    println!("largest {largest}; to one file {to_one}, to a directory {to_hf}, the model in memory {whole}");
    // Three of the largest, and what headers and tables of names take.
    let bound = 3 * largest + (1 << 20);
    assert!(to_one <= bound && to_hf <= bound, "{to_one} and {to_hf} of {bound}");
    // The embedding is two bytes a value in the directory and four while it is rounded to blocks.
    assert!(to_gguf <= bound + largest, "{to_gguf} of {bound}");
    assert!(from_gguf <= bound, "{from_gguf} of {bound}");
    // The bound says something: the model is larger, and what makes it in memory does not keep it.
    assert!(whole > bound, "{whole} of {bound}");
}
