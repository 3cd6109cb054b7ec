//! What two files that say the same have in common.

use serde_json::Value;

/// blake3 of the JSON with sorted keys and without white space.
pub(super) fn of(value: &Value) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hash_canonical(value, &mut hasher);
    *hasher.finalize().as_bytes()
}

/// Feeds `value` to the hash as JSON without white space, the keys of each object sorted by their bytes.
fn hash_canonical(value: &Value, hasher: &mut blake3::Hasher) {
    match value {
        Value::Array(items) => {
            hasher.update(b"[");
            for (i, item) in items.iter().enumerate() {
                hasher.update(if i == 0 { b"" } else { b"," });
                hash_canonical(item, hasher);
            }
            hasher.update(b"]");
        }
        Value::Object(map) => {
            let mut entries: Vec<_> = map.iter().collect();
            entries.sort_unstable_by_key(|(key, _)| key.as_str());
            hasher.update(b"{");
            for (i, (key, item)) in entries.into_iter().enumerate() {
                hasher.update(if i == 0 { b"" } else { b"," });
                hasher.update(Value::from(key.as_str()).to_string().as_bytes());
                hasher.update(b":");
                hash_canonical(item, hasher);
            }
            hasher.update(b"}");
        }
        scalar => {
            hasher.update(scalar.to_string().as_bytes());
        }
    }
}
