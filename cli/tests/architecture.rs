//! The house keeps its shape: imports run downward only, and the inference core needs nothing but the CPU kernels.

use std::process::Command;

use serde_json::Value;

/// Lower layers first; a crate may depend on those before it.
const LAYERS: [&str; 10] = [
    "onebit-kernels-cpu",
    "onebit-kernels-cuda",
    "onebit-engine",
    "onebit-autograd",
    "onebit-model",
    "onebit-models",
    "onebit-c",
    "onebit-web",
    "onebit-trainer",
    "onebit-cli",
];

fn metadata() -> Value {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
            "--manifest-path",
            manifest,
        ])
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

/// (crate, dependency, optional) for each dependency that is not for tests alone.
fn arrows(metadata: &Value) -> Vec<(String, String, bool)> {
    let mut all = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            if dependency["kind"] != "dev" {
                let text = |v: &Value| v.as_str().unwrap().to_string();
                all.push((
                    text(&package["name"]),
                    text(&dependency["name"]),
                    dependency["optional"] == true,
                ));
            }
        }
    }
    all
}

/// The arrows that run upward.
fn upward(arrows: &[(String, String, bool)]) -> Vec<String> {
    let layer = |name: &str| LAYERS.iter().position(|l| *l == name);
    let runs_up = |from: &str, to: &str| match (layer(from), layer(to)) {
        (Some(from), Some(to)) => to >= from,
        // Nothing may depend on what is no layer, such as the benches.
        (Some(_), None) => to.starts_with("onebit-"),
        _ => false,
    };
    arrows
        .iter()
        .filter(|(from, to, _)| runs_up(from, to))
        .map(|(from, to, _)| format!("{from} -> {to}"))
        .collect()
}

#[test]
fn imports_run_downward_only() {
    let arrows = arrows(&metadata());
    assert!(
        arrows
            .iter()
            .any(|(from, to, _)| from == "onebit-cli" && to == "onebit-trainer")
    );
    assert_eq!(upward(&arrows), Vec::<String>::new());
    // The check sees an arrow that runs upward.
    let wrong = [("onebit-engine".to_string(), "onebit-model".to_string(), false)];
    assert_eq!(upward(&wrong), ["onebit-engine -> onebit-model"]);
}

#[test]
fn the_inference_core_depends_on_the_cpu_kernels_alone() {
    // Beside them on crates that need no operating system either, for headers and configurations.
    let core = [
        "onebit-kernels-cpu",
        "half",
        "bytemuck",
        "safetensors",
        "serde",
        "serde_json",
        "thiserror",
        "unicode-general-category",
    ];
    for (from, to, optional) in arrows(&metadata()) {
        if from == "onebit-model" && !optional {
            assert!(core.contains(&to.as_str()), "{to} is needed without default features");
        }
        if from == "onebit-kernels-cpu" {
            assert!(["bytemuck", "half", "libm"].contains(&to.as_str()), "{to}");
        }
    }
}

#[test]
fn what_is_published_says_what_it_is_and_holds_its_licence() {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap();
    // An empty list is `publish = false`.
    let published: Vec<&Value> = packages
        .iter()
        .filter(|p| p["publish"] == serde_json::json!(["crates-io"]))
        .collect();
    let names: Vec<&str> = published.iter().map(|p| p["name"].as_str().unwrap()).collect();
    for layer in LAYERS.iter().filter(|layer| **layer != "onebit-web") {
        assert!(names.contains(layer), "{layer} is published: {names:?}");
    }
    for (name, package) in names.iter().zip(&published) {
        for key in ["description", "license", "readme"] {
            assert!(
                package[key].as_str().is_some_and(|text| !text.is_empty()),
                "{name}: {key}"
            );
        }
        for key in ["keywords", "categories"] {
            assert!(
                package[key]
                    .as_array()
                    .is_some_and(|list| (1..=5).contains(&list.len())),
                "{name}: {key}"
            );
        }
        let manifest = std::path::Path::new(package["manifest_path"].as_str().unwrap());
        let folder = manifest.parent().unwrap();
        for file in ["LICENSE-APACHE", "LICENSE-MIT", package["readme"].as_str().unwrap()] {
            assert!(folder.join(file).is_file(), "{name}: {file}");
        }
    }
}
