//! A prompt cache: what is taken up is no more than the prompt, is the same after it was written and read again, and the text goes on from it or says
//! why not.
#![no_main]

use std::cell::RefCell;
use std::fs;
use std::sync::atomic::AtomicBool;

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::scratch;
use onebit_kernels_cpu::Isa;
use onebit_model::config::json;
use onebit_model::generation::{GenerationError, Generator, GeneratorOptions, Request};
use onebit_model::runtime::{FloatStorage, FloatValues, KvType, PackedModel, RuntimeError, TensorSource};
use onebit_model::sampling::{Sampler, SamplingParams, StopStrings};
use onebit_model::tokenizer::train_word;

/// The sizes of the model that wrote the first inputs.
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
    "num_key_value_heads": 1, "vocab_size": 12, "max_position_embeddings": 16, "hidden_act": "silu", "rms_norm_eps": 1e-6,
    "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}}"#;
const REQUEST: Request<'static> = Request {
    prompt: &[1, 7, 3, 11, 2],
    max_tokens: 2,
    logprobs: Some(1),
};
/// Magic and fingerprint.
const BEGINNING: usize = 8 + 32;

struct Reader {
    generator: Generator,
    sampler: Sampler,
    /// How a cache of this model begins.
    beginning: Vec<u8>,
}

impl Reader {
    fn new() -> Self {
        let config = json::parse(CONFIG).expect("a good configuration").config;
        let sampler = Sampler::new(SamplingParams::default(), config.vocab_size).expect("the defaults");
        let options = GeneratorOptions {
            isa: Isa::best(),
            threads: 1,
            context: config.max_position_embeddings,
            lookahead: Some(0),
            exact_head: true,
            kv: KvType::F16,
        };
        let specs = config.tensors();
        let model = PackedModel::from_parts(config, FloatStorage::Stored, |name| {
            let spec = specs
                .iter()
                .find(|spec| spec.name == name)
                .expect("a tensor of the config");
            let values: Vec<f32> = (0..spec.len()).map(|i| (i * 7919 % 5) as f32 - 1.5).collect();
            Ok::<_, RuntimeError>(TensorSource::Float(FloatValues::F32(values.into())))
        });
        let tokenizer = train_word(["one two three"], None).expect("three words");
        let generator = Generator::new(model.expect("a good model"), tokenizer, Vec::new(), &sampler, options)
            .expect("memory for a small model");
        let path = scratch("empty.kv");
        generator
            .save_prompt_cache(&path)
            .expect("there is room for a small file");
        let beginning = fs::read(&path).expect("it was just written")[..BEGINNING].to_vec();
        Self {
            generator,
            sampler,
            beginning,
        }
    }

    fn check(&mut self, bytes: &[u8]) {
        let (path, again) = (scratch("prompt.kv"), scratch("again.kv"));
        fs::write(&path, bytes).expect("there is room for a small file");
        let Ok(taken) = self.generator.load_prompt_cache(&path, REQUEST.prompt) else {
            return;
        };
        assert!(taken <= REQUEST.prompt.len());
        let mut save = || {
            self.generator
                .save_prompt_cache(&again)
                .expect("there is room for a small file");
            let found = self.generator.load_prompt_cache(&again, REQUEST.prompt);
            assert_eq!(found.expect("a cache that was written can be read"), taken);
            fs::read(&again).expect("it was just written")
        };
        let written = save();
        assert!(save() == written, "the same tokens are another file");
        self.sampler.reset();
        let mut stops = StopStrings::new([""; 0]).expect("none");
        let (sampler, stop) = (&mut self.sampler, AtomicBool::new(false));
        if let Ok(made) = self
            .generator
            .generate::<GenerationError>(REQUEST, sampler, &mut stops, &stop, &mut |_| Ok(()))
        {
            assert_eq!(made.reused, taken.min(REQUEST.prompt.len() - 1));
        }
    }

    /// As one of this model, with the checksum of what stands there, so that a mutation gets past both.
    fn sealed(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = bytes.to_vec();
        let (content, checksum) = bytes.split_last_chunk_mut::<32>()?;
        content.get_mut(..BEGINNING)?.copy_from_slice(&self.beginning);
        *checksum = *blake3::hash(content).as_bytes();
        Some(bytes)
    }
}

thread_local! {
    static READER: RefCell<Reader> = RefCell::new(Reader::new());
}

fuzz_target!(|bytes: &[u8]| {
    READER.with_borrow_mut(|reader| {
        reader.check(bytes);
        if let Some(bytes) = reader.sealed(bytes) {
            reader.check(&bytes);
        }
    });
});
