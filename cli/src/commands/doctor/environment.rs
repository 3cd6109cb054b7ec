//! The variables of the environment that change what the command does. A secret's value is never shown.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Those that matter, beside all that begin with `ONEBIT_`.
const NAMES: [&str; 9] = [
    "CUDA_VISIBLE_DEVICES",
    "HF_ENDPOINT",
    "HF_HOME",
    "HF_TOKEN",
    "HF_TOKEN_PATH",
    "LD_LIBRARY_PATH",
    "NO_COLOR",
    "RAYON_NUM_THREADS",
    "TERM",
];
/// What a variable that holds a secret has in its name.
const SECRETS: [&str; 4] = ["SECRET", "TOKEN", "KEY", "PASSWORD"];

/// Name and value of each that is set and matters; of a secret, "set".
pub(super) fn variables(all: impl Iterator<Item = (OsString, OsString)>) -> BTreeMap<String, String> {
    all.filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        let matters = name.starts_with("ONEBIT_") || NAMES.contains(&name.as_str());
        matters.then(|| {
            let value = shown(&name, &value.to_string_lossy());
            (name, value)
        })
    })
    .collect()
}

fn shown(name: &str, value: &str) -> String {
    if name != "HF_TOKEN_PATH" && SECRETS.iter().any(|part| name.contains(part)) {
        return if value.is_empty() { "empty" } else { "set" }.to_string();
    }
    // An address may hold a name and a password.
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => value.to_string(),
    }
}

/// What is to be known of a variable beside its value.
pub(super) fn remark(name: &str) -> &'static str {
    match name {
        "RAYON_NUM_THREADS" => " (not used: --threads says how many)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_only_said_to_be_set() {
        let given = [
            ("ONEBIT_SECRET", "hunter2"),
            ("HF_TOKEN", "hf_hunter2"),
            ("ONEBIT_NEW_API_KEY", "hunter2"),
            ("HF_ENDPOINT", "https://me:hunter2@hub.example"),
            ("HF_TOKEN_PATH", "/home/me/token"),
            ("ONEBIT_ISA", "avx2"),
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("HOME", "/home/me"),
        ];
        let found = variables(given.iter().map(|(name, value)| (name.into(), value.into())));
        let shown: Vec<(&str, &str)> = found
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("HF_ENDPOINT", "https://…@hub.example"),
                ("HF_TOKEN", "set"),
                ("HF_TOKEN_PATH", "/home/me/token"),
                ("ONEBIT_ISA", "avx2"),
                ("ONEBIT_NEW_API_KEY", "set"),
                ("ONEBIT_SECRET", "set"),
            ]
        );
    }
}
