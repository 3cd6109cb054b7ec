//! Random valid configurations from a 64-bit linear congruential generator: writing and reading is the identity.

use super::*;

struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    fn flag(&mut self) -> bool {
        self.below(2) == 0
    }

    fn mode(&mut self, modes: &[LinearMode]) -> LinearMode {
        modes[self.below(modes.len() as u64) as usize]
    }

    fn config(&mut self) -> ModelConfig {
        let kv = 1 + self.below(4) as usize;
        let heads = kv * (1 + self.below(4) as usize);
        let head_dim = 2 * (1 + self.below(32) as usize);
        let square = self.flag();
        let hidden = if square {
            heads * head_dim
        } else {
            1 + self.below(300) as usize
        };
        let layers = 1 + self.below(14) as usize;
        let vocab = 300 + self.below(1000) as usize;
        let mut config = ModelConfig {
            vocab_size: vocab,
            hidden_size: hidden,
            intermediate_size: 1 + self.below(500) as usize,
            num_hidden_layers: layers,
            num_attention_heads: heads,
            num_key_value_heads: kv,
            head_dim,
            max_position_embeddings: 1 + self.below(5000) as usize,
            rms_norm_eps: f32::from_bits(0x3000_0000 + self.below(0x0800_0000) as u32),
            rope_theta: 1.0 + self.below(1 << 30) as f64 / 7.0,
            feed_forward: [FeedForward::Relu2Gated, FeedForward::SwiGlu, FeedForward::Relu2][self.below(3) as usize],
            tie_word_embeddings: self.flag(),
            sub_norms: self.flag(),
            qk_norm: self.flag(),
            residual_scaling: self.flag(),
            final_logit_softcapping: self
                .flag()
                .then(|| f32::from_bits(0x3b00_0000 + self.below(0x0e00_0000) as u32)),
            layer_modes: Vec::new(),
            embedding_mode: LinearMode::F16,
            head_mode: LinearMode::F16,
            bos_token_id: self.flag().then(|| self.below(300) as u32),
            eos_token_ids: (0..self.below(4)).map(|_| self.below(300) as u32).collect(),
            initializer_range: f32::from_bits(0x3c00_0000 + self.below(0x0200_0000) as u32),
            storage: WeightStorage::Master,
        };
        let pool: &[LinearMode] = match self.below(4) {
            0 => &[LinearMode::Ternary],
            1 => &[LinearMode::F16],
            2 => &[LinearMode::F16, LinearMode::Ternary],
            _ => &LinearMode::ALL,
        };
        for _ in 0..layers {
            let mut modes = LayerModes::uniform(self.mode(pool));
            if self.flag() {
                LinearKind::ALL
                    .into_iter()
                    .for_each(|kind| modes.set(kind, self.mode(pool)));
            }
            config.layer_modes.push(modes);
        }
        if self.flag() {
            config.embedding_mode = self.mode(&LinearMode::ALL);
            config.head_mode = match config.tie_word_embeddings {
                true => config.embedding_mode,
                false => self.mode(&LinearMode::ALL),
            };
        }
        if config.uses_mode(LinearMode::Ternary) {
            let all = [
                WeightStorage::Master,
                WeightStorage::PackedMultiply,
                WeightStorage::PackedDivide,
            ];
            config.storage = all[self.below(3) as usize];
        }
        config
    }
}

#[test]
fn writing_then_reading_is_the_identity() {
    let mut rng = Lcg(7);
    let mut kinds = [0usize; 3];
    for round in 0..2000 {
        let config = rng.config();
        config
            .validate()
            .unwrap_or_else(|e| panic!("round {round}: {e}\n{config:?}"));
        let text = config.to_json();
        let back = json::parse(&text).unwrap_or_else(|e| panic!("round {round}: {e}\n{text}"));
        assert_eq!(back.config, config, "round {round}:\n{text}");
        assert_eq!(back.notes, Vec::<String>::new(), "round {round}");
        assert_eq!(back.config.to_json(), text, "round {round}");
        let mut plain = config.clone();
        plain.set_all_modes(LinearMode::F16);
        let mapped = plain.with_layer_bit_map(&config.layer_bit_map()).unwrap();
        let storage = WeightStorage::Master;
        assert_eq!(
            mapped,
            ModelConfig {
                storage,
                ..config.clone()
            },
            "round {round}"
        );
        kinds[0] += usize::from(text.contains("\"llama\""));
        kinds[1] += usize::from(text.contains("layer_bit_map"));
        kinds[2] += usize::from(!text.contains("\"onebit\""));
    }
    assert!(
        kinds.iter().all(|&n| n > 50),
        "every way of writing must occur: {kinds:?}"
    );
}

#[test]
fn parameter_count_is_the_sum_over_the_tensors() {
    let mut rng = Lcg(11);
    for _ in 0..300 {
        let config = rng.config();
        let sum: u64 = config.tensors().iter().map(|spec| spec.len() as u64).sum();
        assert_eq!(sum, config.parameter_count(), "{config:?}");
    }
}

#[test]
fn a_changed_byte_never_panics() {
    let text = presets_config("wikitext2-production").to_json();
    let mut rng = Lcg(3);
    for _ in 0..3000 {
        let mut bytes = text.clone().into_bytes();
        for _ in 0..1 + rng.below(3) {
            let at = rng.below(bytes.len() as u64) as usize;
            bytes[at] = b" \"{}[]:,0129eE-+.xntf"[rng.below(21) as usize];
        }
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(config) = ModelConfig::from_json(&text)
        {
            config.validate().unwrap();
        }
    }
    for end in 0..text.trim_end().len() {
        assert!(
            text.is_char_boundary(end) && ModelConfig::from_json(&text[..end]).is_err(),
            "cut at {end}"
        );
    }
}
