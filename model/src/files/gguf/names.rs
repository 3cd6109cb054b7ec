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

/// ggml's name of the tensor that Hugging Face calls `name`; `None` for one that ggml has no name for.
pub(super) fn to_ggml(name: &str) -> Option<String> {
    if let Some((_, theirs)) = WHOLE.iter().find(|(ours, _)| *ours == name) {
        return Some((*theirs).to_string());
    }
    let (layer, rest) = name.strip_prefix("model.layers.")?.split_once('.')?;
    let module = rest.strip_suffix(".weight")?;
    let linears = LinearKind::ALL.map(|kind| (kind.module(), linear(kind)));
    let (_, theirs) = NORMS.iter().chain(&linears).find(|(ours, _)| *ours == module)?;
    Some(format!("blk.{layer}.{theirs}.weight"))
}
