//! Usual names of special tokens, most telling first, for tokenizers that do not say which of theirs are which.

use serde_json::Value;

/// The end of a text.
pub(crate) const EOS: [&str; 7] = [
    "<|endoftext|>",
    "<|end_of_text|>",
    "</s>",
    "<eos>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
];
/// The beginning of a text.
pub(crate) const BOS: [&str; 4] = ["<|begin_of_text|>", "<s>", "<bos>", "<|startoftext|>"];

/// The special token with which the post-processor's template for a single text begins.
pub(crate) fn template_start(tokenizer: &Value) -> Option<&str> {
    let post = tokenizer.get("post_processor")?;
    let inside = post.get("processors").and_then(Value::as_array).into_iter().flatten();
    core::iter::once(post)
        .chain(inside)
        .find_map(|p| p.pointer("/single/0/SpecialToken/id")?.as_str())
}

/// The value at this place of a JSON, null if there is none.
pub(super) fn at<'v>(json: &'v Value, pointer: &str) -> &'v Value {
    static NULL: Value = Value::Null;
    json.pointer(pointer).unwrap_or(&NULL)
}
