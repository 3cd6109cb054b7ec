use std::fs;

use super::*;

#[test]
fn shards_are_joined_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let (config, tensors) = save_small(dir.path());
    fs::remove_file(dir.path().join(WEIGHTS_FILE)).unwrap();
    let names: Vec<&String> = tensors.keys().collect();
    let shard_name = |i: usize| format!("model-0000{}-of-00002.safetensors", i + 1);
    let mut map = serde_json::Map::new();
    for (i, part) in names.chunks(names.len().div_ceil(2)).enumerate() {
        let views = part.iter().map(|name| {
            let t = &tensors[*name];
            map.insert((*name).clone(), shard_name(i).into());
            let bytes: Vec<u8> = t.data.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.to_string(), t.shape.clone(), bytes)
        });
        let views: Vec<_> = views.collect();
        let views = views.iter().map(|(n, s, b)| {
            (
                n.clone(),
                safetensors::tensor::TensorView::new(Dtype::F32, s.clone(), b).unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &dir.path().join(shard_name(i))).unwrap();
    }
    let write_index = |map: &serde_json::Map<String, serde_json::Value>| {
        let index = serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map });
        fs::write(dir.path().join(WEIGHTS_INDEX_FILE), index.to_string()).unwrap();
    };
    write_index(&map);
    assert_eq!(load_master(dir.path()).unwrap(), (config, tensors.clone()));

    for evil in [
        "../x.safetensors",
        "/etc/passwd",
        "a/b",
        "..",
        ".",
        "",
        "C:\\x",
        "a\\b",
        "sub/../x",
    ] {
        let mut bad = map.clone();
        bad.insert(names[0].clone(), evil.into());
        write_index(&bad);
        let message = load_model(dir.path()).unwrap_err().to_string();
        assert!(
            message.contains("not the name of a file beside the index"),
            "{evil}: {message}"
        );
    }
    let mut bad = map.clone();
    bad.insert(names[0].clone(), shard_name(1).into());
    write_index(&bad);
    assert!(
        load_model(dir.path())
            .unwrap_err()
            .to_string()
            .contains("is not listed")
    );
    bad = map.clone();
    bad.insert("ghost".into(), shard_name(1).into());
    write_index(&bad);
    assert!(
        load_model(dir.path())
            .unwrap_err()
            .to_string()
            .contains("tensor ghost is not in")
    );
    bad = map.clone();
    bad.insert("ghost".into(), "absent.safetensors".into());
    write_index(&bad);
    assert!(matches!(load_model(dir.path()), Err(FileError::Io { .. })));
    for text in ["", "{}", "{\"weight_map\": {}}", "{\"weight_map\": {\"a\": 1}}"] {
        fs::write(dir.path().join(WEIGHTS_INDEX_FILE), text).unwrap();
        assert!(matches!(load_model(dir.path()), Err(FileError::Json { .. })), "{text}");
    }
    // Saving over the shards leaves a model that is one file.
    write_index(&map);
    save_small(dir.path());
    assert_eq!(load_master(dir.path()).unwrap().1, tensors);
    assert!(!dir.path().join(WEIGHTS_INDEX_FILE).exists());
}
