//! Small good files of every format: the first inputs of the fuzz targets, which find the rest of a format from there. See `fuzz/src/lib.rs`.

use std::fs;

use onebit_model::chat::{ChatTemplate, DEFAULT_TEMPLATE, Message, Role};
use onebit_model::config::json::parse;
use onebit_model::config::presets;
use onebit_model::files::{CONFIG_FILE, GenerationConfig, ShardIndex, WEIGHTS_FILE, Weights};
use onebit_model::tokenizer::{Tokenizer, train_bpe, train_word};

use crate::harness::seed;
use crate::{generation_config, gguf, one_file, prompt_cache, shard_index, small};

/// The targets that read safetensors.
const CONTAINERS: [&str; 3] = ["safetensors", "safetensors_header", "safetensors_differential"];

#[test]
fn seeds_of_containers() {
    for (name, save) in [
        ("floats", small::save_floats as fn(&std::path::Path)),
        ("trits", small::save_trits),
    ] {
        let dir = tempfile::tempdir().unwrap();
        save(dir.path());
        let bytes = fs::read(dir.path().join(WEIGHTS_FILE)).unwrap();
        Weights::from_bytes(bytes.clone(), name).unwrap();
        for target in CONTAINERS {
            seed(target, name, &bytes);
        }
        let text = fs::read(dir.path().join(CONFIG_FILE)).unwrap();
        seed("config_json", name, &text);
    }
    let tiny = br#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}}"#;
    let tiny = [&(tiny.len() as u64).to_le_bytes()[..], tiny, &[0; 8]].concat();
    Weights::from_bytes(tiny.clone(), "tiny").unwrap();
    for target in CONTAINERS {
        seed(target, "tiny", &tiny);
    }
    for (name, tokenizer) in [("model", false), ("tokenizer", true)] {
        let bytes = one_file::whole(tokenizer);
        one_file::use_all(&bytes).unwrap();
        seed("one_file", name, &bytes);
        seed("one_file_header", name, &bytes);
        seed("board", name, &bytes);
    }
    let bytes = gguf::whole();
    assert!(gguf::use_all(&bytes));
    seed("gguf", "model", &bytes);
    seed("gguf_container", "model", &bytes);
    seed("prompt_cache", "five", &prompt_cache::whole());
}

#[test]
fn seeds_of_texts() {
    for preset in presets::all() {
        let text = preset.config.to_json();
        assert_eq!(parse(&text).unwrap().config, preset.config);
        seed("config_json", preset.name, text.as_bytes());
    }
    // The older keys, and what `transformers` says of packed weights.
    for (name, text) in [
        (
            "llama",
            r#"{"model_type": "llama", "hidden_size": 16, "intermediate_size": 20, "num_hidden_layers": 1, "num_attention_heads": 2,
                "vocab_size": 12, "max_position_embeddings": 16, "rope_scaling": null, "hidden_act": "silu", "rms_norm_eps": 1e-6,
                "quantization_config": {"quant_method": "bitnet", "modules_to_not_convert": ["lm_head"]}}"#,
        ),
        (
            "older",
            r#"{"hidden_size": 16, "intermediate_size": 20, "num_layers": 1, "num_heads": 2, "vocab_size": 12, "max_seq_len": 16,
                "use_ternary": true, "use_swiglu": true}"#,
        ),
    ] {
        parse(text).unwrap();
        seed("config_json", name, text.as_bytes());
    }
    GenerationConfig::from_json(generation_config::GOOD).unwrap();
    seed("generation_config", "all", generation_config::GOOD.as_bytes());
    seed(
        "generation_config",
        "greedy",
        b"{\"do_sample\": false, \"eos_token_id\": 2}",
    );
    ShardIndex::from_json(shard_index::GOOD).unwrap();
    seed("shard_index", "two", shard_index::GOOD.as_bytes());
}

#[test]
fn seeds_of_tokenizers_and_templates() {
    let texts = ["one two three, one two. ".repeat(20)];
    for (name, tokenizer) in [
        ("bpe", train_bpe(&texts, 290).unwrap()),
        ("word", train_word(&texts, None).unwrap()),
    ] {
        let json = tokenizer.json();
        let again = Tokenizer::from_bytes(json).unwrap();
        assert_eq!(again.encode("one two").unwrap(), tokenizer.encode("one two").unwrap());
        seed("tokenizer_json", name, json);
    }
    for name in ["bpe.model", "unigram.model"] {
        let path = format!("{}/tests/sentencepiece/{name}", env!("CARGO_MANIFEST_DIR"));
        let bytes = fs::read(path).unwrap();
        Tokenizer::from_sentencepiece(&bytes).unwrap();
        seed("sentencepiece", name, &bytes);
    }
    let conversation = [Message::new(Role::System, "Be brief."), Message::new(Role::User, "Hi")];
    for (name, text) in [
        ("default", DEFAULT_TEMPLATE),
        (
            "chatml",
            "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' }}\
             {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
        ),
        (
            "macro",
            "{%- macro turn(m, last=false) -%}[{{ m.role|upper }}]{{ m.content.strip().split(' ')|join('_') }}{%- endmacro -%}\
             {% set ns = namespace(n=0) %}{% for m in messages if m.role != 'system' %}{% set ns.n = ns.n + loop.index0 * 2 %}{{ turn(m) }}\
             {% else %}{{ bos_token }}{% endfor %}{{ ns.n }}{{ {'a': [1, 2.5, none]} | tojson }}{# end #}",
        ),
        (
            "refusing",
            "{% if messages[0].role != 'user' %}{{ raise_exception('user first') }}{% endif %}{{ messages[:1] | length }}",
        ),
    ] {
        let template = ChatTemplate::from_text(text, name, "<s>", "</s>").unwrap();
        assert_eq!(
            template.render(&conversation, true).is_ok(),
            name != "refusing",
            "{name}"
        );
        seed("chat_template", name, text.as_bytes());
    }
}
