//! Hugging Face's tensor names and ggml's.

use crate::config::LinearKind;

/// ggml's name of a linear inside its block, such as `attn_q`.
pub(super) const fn linear(kind: LinearKind) -> &'static str {
    match kind {
        LinearKind::Q => "attn_q",
        LinearKind::K => "attn_k",
        LinearKind::V => "attn_v",
        LinearKind::O => "attn_output",
        LinearKind::Gate => "ffn_gate",
        LinearKind::Up => "ffn_up",
        LinearKind::Down => "ffn_down",
    }
}

/// The tensors that stand outside of blocks: Hugging Face's name and ggml's.
const WHOLE: [(&str, &str); 3] = [
    ("model.embed_tokens.weight", "token_embd.weight"),
    ("model.norm.weight", "output_norm.weight"),
    ("lm_head.weight", "output.weight"),
];

/// The norms of a block: Hugging Face's module and ggml's.
const NORMS: [(&str, &str); 4] = [
    ("input_layernorm", "attn_norm"),
    ("self_attn.attn_sub_norm", "attn_sub_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("mlp.ffn_sub_norm", "ffn_sub_norm"),
];

/// Which linear of its block the tensor is that Hugging Face calls `name`.
pub(super) fn linear_kind(name: &str) -> Option<LinearKind> {
    let (_, module) = in_block(name)?;
    LinearKind::ALL.into_iter().find(|kind| kind.module() == module)
}

/// The block and the module of a weight.
fn in_block(name: &str) -> Option<(&str, &str)> {
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    Some((layer, rest.strip_suffix(".weight")?))
}

/// ggml's name of the tensor that Hugging Face calls `name`; `None` for one that ggml has no name for.
pub(super) fn to_ggml(name: &str) -> Option<String> {
    if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == name) {
        return Some((*theirs).to_string());
    }
    let (layer, module) = in_block(name)?;
    let norm = || {
        NORMS
            .iter()
            .find(|(ours, _)| *ours == module)
            .map(|(_, theirs)| *theirs)
    };
    let theirs = linear_kind(name).map(linear).or_else(norm)?;
    Some(format!("blk.{layer}.{theirs}.weight"))
}
