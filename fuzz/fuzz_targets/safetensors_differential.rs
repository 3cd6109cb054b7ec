//! Our reader of safetensors and the format's own library: what ours accepts the library reads as the same tensors, and what only the library accepts
//! is one of the refusals that ours makes on purpose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onebit_fuzz::with_right_length;
use onebit_model::files::{FileError, HeaderProblem, Weights};
use safetensors::SafeTensors;
use serde_json::Value;

fn check(bytes: &[u8]) {
    let (ours, theirs) = (
        Weights::from_bytes(bytes.to_vec(), "fuzz"),
        SafeTensors::deserialize(bytes),
    );
    match (ours, theirs) {
        (Ok(ours), Ok(theirs)) => {
            let mut names = theirs.names();
            names.sort_unstable();
            assert!(ours.names().eq(names));
            for name in ours.names() {
                let (a, b) = (ours.get(name), theirs.tensor(name));
                let (a, b) = (a.expect("a name has a tensor"), b.expect("a name has a tensor"));
                assert_eq!((a.dtype, a.shape, a.bytes), (b.dtype(), b.shape(), b.data()), "{name}");
            }
        }
        (Ok(_), Err(theirs)) => panic!("only ours accepts: {theirs}"),
        (Err(FileError::Header { problem, .. }), Ok(_)) => {
            assert!(on_purpose(&problem, bytes), "only the library accepts: {problem}");
        }
        (Err(ours), Ok(_)) => panic!("only the library accepts: {ours}"),
        (Err(_), Err(_)) => (),
    }
}

/// Whether the problem is one that the library leaves to whoever reads the file.
fn on_purpose(problem: &HeaderProblem, bytes: &[u8]) -> bool {
    match problem {
        // White space before the header's object, which the format forbids; a name that stands twice; limits of our own.
        HeaderProblem::Start
        | HeaderProblem::Duplicate { .. }
        | HeaderProblem::Dimensions { .. }
        | HeaderProblem::Texts { .. } => true,
        // An array in the place of an object, an entry with a further key, no metadata said as `null`.
        HeaderProblem::Json { .. } => {
            let end = 8 + u64::from_le_bytes(*bytes.first_chunk().expect("it was read")) as usize;
            let header: Value = serde_json::from_slice(&bytes[8..end]).expect("the library read it");
            header.as_object().is_none_or(|entries| {
                entries.iter().any(|(name, entry)| match entry {
                    Value::Object(entry) => name != "__metadata__" && entry.len() > 3,
                    _ => true,
                })
            })
        }
        _ => false,
    }
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes);
    if let Some(bytes) = with_right_length(bytes) {
        check(&bytes);
    }
});
