//! A model that a graph does not compute is not written as that graph, and a file that says something unknown is not run.

use super::*;
use crate::files::gguf::{GgufError, Graph, TensorType};

fn reason(config: ModelConfig, options: &GgufOptions<'_>) -> String {
    match written(&made(config), options) {
        Err(FileError::Gguf { source, .. }) => match *source {
            GgufError::Inexpressible { graph, reason } => format!("{graph}: {reason}"),
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_relu2_model_does_not_go_out_as_a_silu_graph() {
    for graph in [Graph::Bitnet, Graph::Llama] {
        let asked = GgufOptions {
            graph: Some(graph),
            ..GgufOptions::default()
        };
        let reason = reason(bitnet_b158(), &asked);
        assert!(reason.contains("swiglu") && reason.contains("relu2_gated"), "{reason}");
        assert!(reason.contains("bitnet-b1.58 computes this model"), "{reason}");
    }
    let asked = GgufOptions {
        graph: Some(Graph::BitnetB158),
        ..GgufOptions::default()
    };
    assert!(reason(bitnet(), &asked).contains("bitnet computes this model"));
}

#[test]
fn what_no_graph_computes_is_refused_with_the_reason() {
    let none = GgufOptions::default();
    let with = |change: &dyn Fn(&mut ModelConfig)| {
        let mut config = bitnet();
        change(&mut config);
        reason(config, &none)
    };
    assert!(with(&|c| c.qk_norm = true).contains("qk_norm"));
    assert!(with(&|c| c.residual_scaling = true).contains("residual_scaling"));
    assert!(with(&|c| c.final_logit_softcapping = Some(30.0)).contains("final_logit_softcapping"));
    assert!(with(&|c| c.tie_word_embeddings = false).contains("tie_word_embeddings"));
    assert!(with(&|c| c.head_dim = 32).contains("4 heads of 32 are not 256"));
    let plain = with(&|c| c.feed_forward = FeedForward::Relu2);
    assert!(plain.contains("no graph of llama.cpp or bitnet.cpp"), "{plain}");
    let relu2_llama = with(&|c| {
        c.feed_forward = FeedForward::Relu2Gated;
        c.sub_norms = false;
    });
    assert!(relu2_llama.contains("no graph"), "{relu2_llama}");
    let int4 = with(&|c| c.layer_modes[1].up = LinearMode::Int4);
    assert!(int4.contains("mode int4"), "{int4}");
}

#[test]
fn rows_that_are_no_blocks_are_refused_before_anything_is_written() {
    let mut config = bitnet();
    config.intermediate_size = 320;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.gguf");
    let error = save_gguf(&path, &made(config.clone()), &GgufOptions::default(), &|_, _| {}).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("rows of 320 values, and TQ2_0 has blocks of 256"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let f16 = GgufOptions {
        linears: Some(TensorType::F16),
        ..GgufOptions::default()
    };
    assert!(written(&made(config), &f16).is_ok());
    let q8 = GgufOptions {
        linears: Some(TensorType::Q8_0),
        ..GgufOptions::default()
    };
    assert!(reason(bitnet(), &q8).contains("TQ1_0, TQ2_0, I2_S, F16"));
}
