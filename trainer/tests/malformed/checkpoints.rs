//! What a checkpoint says about itself, good and damaged.

use crate::harness;

#[test]
fn seeds_of_checkpoints() {
    use onebit_trainer::checkpoint::{State, parse_manifest, parse_state};
    let state = State {
        step: 3,
        total_steps: 10,
        options: onebit_trainer::TrainOptions::default(),
        config: "{}".into(),
        data: "x.tokens".into(),
        metrics_bytes: 100,
        guard: Default::default(),
        val_loss: Some(2.5),
        ended: true,
        stream: Some(serde_json::json!({ "visit": 3 })),
    };
    let text = serde_json::to_string_pretty(&state).unwrap();
    assert_eq!(parse_state(text.as_bytes()).unwrap(), state);
    harness::seed("checkpoint_state", "good", text.as_bytes());
    for (from, to) in [
        ("\"step\": 3", "\"step\": -3"),
        ("\"step\": 3", "\"step\": 1e300"),
        ("\"step\": 3", "\"step\": 18446744073709551616"),
        ("\"step\": 3", "\"step\": 3, \"step\": 4"),
        ("\"config\": \"{}\"", "\"config\": [[[[["),
    ] {
        let damaged = text.replacen(from, to, 1);
        assert_ne!(damaged, text);
        assert!(parse_state(damaged.as_bytes()).is_err(), "{damaged}");
        harness::seed_damaged(&["checkpoint_state"], damaged.as_bytes());
    }
    let sum = "ab".repeat(32);
    let entry = format!("{{\"bytes\": 8, \"blake3\": \"{sum}\"}}");
    let names = ["model.safetensors", "optimizer.safetensors", "state.json"];
    let manifest = format!("{{{}}}", names.map(|name| format!("\"{name}\": {entry}")).join(", "));
    assert_eq!(parse_manifest(manifest.as_bytes()).unwrap().len(), 3);
    harness::seed("checkpoint_manifest", "good", manifest.as_bytes());
    for damaged in [
        "",
        "[]",
        "{\"../x\": {\"bytes\": -1, \"blake3\": \"\"}}",
        "{\"x\": {\"bytes\": 1}}",
        "{\"x\": [1, \"\"]",
        "{\"x\": 1}",
        &format!("{{\"x\": {}", "[".repeat(2000)),
        &manifest.replacen("state.json", "../state.json", 1),
        &manifest.replacen("{\"model", &format!("{{\"../x\": {entry}, \"model"), 1),
        &manifest.replacen("8", "18446744073709551616", 1),
    ] {
        assert!(parse_manifest(damaged.as_bytes()).is_err(), "{damaged}");
        harness::seed_damaged(&["checkpoint_manifest"], damaged.as_bytes());
    }
}
