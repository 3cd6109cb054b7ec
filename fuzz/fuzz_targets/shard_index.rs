//! `model.safetensors.index.json`: whatever it says, each shard is a file beside it, and each tensor is in one shard.
#![no_main]

use std::collections::BTreeSet;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use onebit_model::files::ShardIndex;

fuzz_target!(|text: &str| {
    let Ok(index) = ShardIndex::from_json(text) else { return };
    let mut seen = BTreeSet::new();
    for (shard, names) in index.shards() {
        let path = Path::new("model").join(shard);
        assert_eq!(path.parent(), Some(Path::new("model")), "{shard:?}");
        assert_eq!(path.file_name().and_then(|name| name.to_str()), Some(shard));
        let before = seen.len();
        for name in names {
            assert!(seen.insert(name), "{name:?} is in two shards");
        }
        assert!(seen.len() > before, "{shard:?} has no tensor");
    }
    assert!(!seen.is_empty());
});
