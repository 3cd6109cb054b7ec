//! The tensors of containers: what is said of them is what lies in the files.

use std::sync::Arc;

use super::*;
use crate::runtime::SharedBytes;

/// Two texts, a tensor of two floats, and one without data that stands before it by name and after it in the file.
const HEADER: &str = r#"{"__metadata__":{"format":"pt","by":"hand"},
    "b":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},"a":{"dtype":"U8","shape":[0,3],"data_offsets":[8,8]}}"#;

/// A container with this header and these floats for data.
fn of(header: &str, floats: &[f32]) -> Vec<u8> {
    let mut bytes = container(header, 0);
    bytes.extend(floats.iter().flat_map(|x| x.to_le_bytes()));
    bytes
}

#[test]
fn a_container_holds_what_its_header_names() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("two");
    let whole = of(HEADER, &[1.5, -2.0]);
    fs::write(&path, &whole).unwrap();
    let shared = SharedBytes::new(Arc::new(whole.clone()));
    for weights in [
        Weights::from_bytes(whole.clone(), "two").unwrap(),
        Weights::of_bytes(shared).unwrap(),
        Weights::open_file(&path).unwrap(),
    ] {
        assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b"]);
        assert!(weights.len() == 2 && !weights.is_empty());
        let (dtype, bytes) = (Dtype::F32, &whole[whole.len() - 8..]);
        let expected = TensorView {
            dtype,
            shape: &[2, 1],
            bytes,
        };
        assert_eq!(weights.get("b"), Some(expected));
        let empty = weights.get("a").unwrap();
        assert_eq!(
            (empty.dtype, empty.shape, empty.bytes),
            (Dtype::U8, &[0, 3][..], &[][..])
        );
        let (file, range) = weights.place("b").unwrap();
        assert_eq!((file.bytes(), range), (&whole[..], whole.len() - 8..whole.len()));
        assert_eq!(weights.copy("b", f32::from_le_bytes), Some(vec![1.5, -2.0]));
        assert!(weights.get("c").is_none() && weights.place("c").is_none());
        assert!(weights.copy("c", f32::from_le_bytes).is_none());
        let texts = [("by", "hand"), ("format", "pt")].map(|(name, text)| (name.to_string(), text.to_string()));
        assert_eq!(weights.metadata(), &BTreeMap::from(texts));
        assert_eq!(weights.first_file().unwrap().bytes(), whole);
    }
    let none = Weights::from_bytes(container("{}", 0), "none").unwrap();
    assert_eq!(none.len(), 0);
    assert!(none.is_empty() && none.metadata().is_empty());
}

/// One text or one dimension more is refused, which `tests/malformed` has.
#[test]
fn as_many_texts_and_dimensions_as_are_allowed_are_all_kept() {
    let texts: Vec<String> = (0..1 << 16).map(|i| format!(r#""{i}":"{i}""#)).collect();
    let shape = r#"{"dtype":"U8","shape":[1,1,1,1,1,1,1,0],"data_offsets":[0,0]}"#;
    let header = format!(r#"{{"__metadata__":{{{}}},"a":{shape}}}"#, texts.join(","));
    let weights = Weights::from_bytes(container(&header, 0), "full").unwrap();
    assert_eq!(weights.metadata().len(), 1 << 16);
    assert!(weights.metadata().iter().all(|(name, text)| name == text));
    assert_eq!(weights.get("a").unwrap().shape, [1, 1, 1, 1, 1, 1, 1, 0]);
}

#[test]
fn several_files_are_one_set_of_tensors() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str, header: &str, floats: &[f32]| {
        let path = dir.path().join(name);
        fs::write(&path, of(header, floats)).unwrap();
        path
    };
    let first = file("1", HEADER, &[1.5, -2.0]);
    let other = r#"{"__metadata__":{"by":"machine"},"c":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let other = file("2", other, &[3.0]);
    let mut weights = Weights::default();
    // In the order of the data.
    assert_eq!(weights.add_file(&first).unwrap(), ["b", "a"]);
    assert_eq!(weights.add_file(&other).unwrap(), ["c"]);
    assert_eq!(weights.names().collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!(weights.copy("b", f32::from_le_bytes), Some(vec![1.5, -2.0]));
    assert_eq!(weights.copy("c", f32::from_le_bytes), Some(vec![3.0]));
    assert_eq!(weights.metadata()["by"], "machine");
    assert_eq!(weights.metadata()["format"], "pt");
    assert_eq!(weights.first_file().unwrap().bytes(), fs::read(first).unwrap());

    let twice = weights.add_file(&other).unwrap_err();
    let duplicate =
        |problem: &HeaderProblem| matches!(problem, HeaderProblem::DuplicateInShards { name } if name == "c");
    assert!(
        matches!(&twice, FileError::Header { path, problem } if *path == other && duplicate(problem)),
        "{twice}"
    );
    let nowhere = weights.add_file(&dir.path().join("3")).unwrap_err();
    assert!(matches!(nowhere, FileError::Io { action: "open", .. }), "{nowhere}");
}

/// A conversion reads each tensor once: what it has read of a file is not to stay in memory beside what it made of it. Larger than the piece that is
/// copied at a time.
#[cfg(target_os = "linux")]
#[test]
fn what_was_copied_of_a_mapped_file_does_not_stay() {
    const N: usize = (8 << 20) / 4 + 5000;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large");
    let header = format!(
        r#"{{"a":{{"dtype":"F32","shape":[{N}],"data_offsets":[0,{}]}}}}"#,
        4 * N
    );
    let floats: Vec<f32> = (0..N).map(|i| i as f32).collect();
    fs::write(&path, of(&header, &floats)).unwrap();
    let weights = Weights::open_file(&path).unwrap();
    let bytes = weights.get("a").unwrap().bytes;
    // Reads all of it, so that it is resident.
    assert!(bytes.iter().map(|byte| usize::from(*byte)).sum::<usize>() > 0);
    let address = bytes.as_ptr() as usize;
    assert!(resident(address) >= 4 * N / 1024);
    weights.give_pages_back();
    assert_eq!(resident(address), 0);

    let copied = weights.copy("a", f32::from_le_bytes).unwrap();
    assert_eq!(resident(address), 0);
    assert_eq!(copied, floats);
    assert_eq!(copied.capacity(), N, "no room beyond the values");
}
