//! The container: header, keys, descriptions of tensors, places.

use super::*;
use crate::files::gguf::{Value, ValueType};

#[test]
fn the_header() {
    refused!(Gguf::from_bytes(vec![]).unwrap_err(), GgufError::Truncated { .. });
    refused!(Gguf::from_bytes(b"GGML".to_vec()).unwrap_err(), GgufError::Magic { found } if found == b"GGML");
    let mut bytes = Hand::default().bytes();
    bytes[4] = 1;
    refused!(
        Gguf::from_bytes(bytes.clone()).unwrap_err(),
        GgufError::Version { found: 1 }
    );
    // Of a big-endian machine.
    bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
    refused!(
        Gguf::from_bytes(bytes).unwrap_err(),
        GgufError::Version { found: 0x0300_0000 }
    );
    // Counts that the file cannot hold: a header bomb.
    for (at, expected) in [(8, "tensors"), (16, "keys")] {
        for count in [1u64 << 20, u64::MAX] {
            let mut bytes = Hand::default().key("k", F32, &[0]).data(4096).bytes();
            bytes[at..at + 8].copy_from_slice(&count.to_le_bytes());
            refused!(Gguf::from_bytes(bytes).unwrap_err(), GgufError::Count { what, .. } if *what == expected);
        }
    }
}

#[test]
fn keys_and_values() {
    let hand = Hand::default;
    refused!(
        hand().key("k", 13, &[]).refused(),
        GgufError::ValueType { found: 13, .. }
    );
    refused!(hand().key("k", 7, &[2]).refused(), GgufError::Bool { found: 2, .. });
    refused!(hand().key("k", 8, &text(b"\xff")).refused(), GgufError::Utf8 { .. });
    refused!(
        hand().key("k", 8, &u64::MAX.to_le_bytes()).refused(),
        GgufError::Truncated { .. }
    );
    let twice = hand().key("k", 0, &[1]).key("k", 0, &[1]);
    refused!(twice.refused(), GgufError::DuplicateKey { key } if key == "k");

    let array = |element: u32, count: u64, rest: &[u8]| {
        let value = [&element.to_le_bytes()[..], &count.to_le_bytes(), rest].concat();
        hand().key("k", ARRAY, &value).refused()
    };
    refused!(
        array(4, u64::MAX / 2, &[]),
        GgufError::Count {
            what: "array elements",
            ..
        }
    );
    refused!(array(4, 1 << 62, &[]), GgufError::Count { .. });
    refused!(array(7, 2, &[1, 3]), GgufError::Bool { found: 3, .. });
    refused!(array(8, 1, &text(b"\xc3")), GgufError::Utf8 { .. });
    refused!(array(99, 1, &[0]), GgufError::ValueType { found: 99, .. });
    // A hundred thousand arrays, each in the one before it.
    let nested = [9u32.to_le_bytes().to_vec(), 1u64.to_le_bytes().to_vec()]
        .concat()
        .repeat(100_000);
    refused!(hand().key("k", ARRAY, &nested).refused(), GgufError::NestedArray { .. });

    for bad in [0u32, 3, 4, 48, 1 << 17] {
        let error = hand().key("general.alignment", 4, &bad.to_le_bytes()).refused();
        refused!(error, GgufError::Alignment { found } if *found == u64::from(bad));
    }
    refused!(
        hand().key("general.alignment", 8, &text(b"32")).refused(),
        GgufError::WrongType { .. }
    );
}

#[test]
fn tensors() {
    let one = |dims: &[u64], kind, offset| Hand::default().tensor("t", dims, kind, offset);
    refused!(one(&[], F32, 0).refused(), GgufError::Dimensions { found: 0, .. });
    refused!(one(&[1; 5], F32, 0).refused(), GgufError::Dimensions { found: 5, .. });
    for dims in [
        &[0][..],
        &[4, 0],
        &[u64::MAX],
        &[1 << 33, 1 << 33],
        &[1 << 32, 1 << 31],
        &[u64::MAX, u64::MAX, 2],
    ] {
        refused!(one(dims, F32, 0).data(64).refused(), GgufError::Size { .. });
    }
    refused!(one(&[32], 12, 0).refused(), GgufError::TensorType { found: 12, .. });
    refused!(one(&[32], u32::MAX, 0).refused(), GgufError::TensorType { .. });
    let message = one(&[32], 12, 0).refused().to_string();
    assert!(message.contains("Q4_K") && message.contains("TQ1_0"), "{message}");
    let message = one(&[32], u32::MAX, 0).refused().to_string();
    assert!(message.contains("negative"), "{message}");
    refused!(
        one(&[255], 35, 0).refused(),
        GgufError::Block {
            block: 256,
            cols: 255,
            ..
        }
    );
    // The product is a whole number of blocks and the row is not.
    refused!(one(&[128, 2], 35, 0).refused(), GgufError::Block { cols: 128, .. });
    refused!(
        one(&[4], F32, 0).data(15).refused(),
        GgufError::Outside { bytes: 16, .. }
    );
    refused!(
        one(&[4], F32, u64::MAX - 31).data(64).refused(),
        GgufError::Outside { .. }
    );
    refused!(one(&[4], F32, 1 << 40).data(64).refused(), GgufError::Outside { .. });
    refused!(
        one(&[4], F32, 8).data(64).refused(),
        GgufError::Misaligned { offset: 8, .. }
    );
    refused!(
        one(&[4], F32, 32).data(64).refused(),
        GgufError::Hole { offset: 32, end: 0, .. }
    );
    refused!(one(&[4], F32, 0).data(33).refused(), GgufError::Trailing { bytes: 17 });
    refused!(Hand::default().data(1).refused(), GgufError::Trailing { bytes: 1 });

    let two = |offset| one(&[16], F32, 0).tensor("u", &[4], F32, offset).data(160);
    refused!(
        two(32).refused(),
        GgufError::Overlap {
            offset: 32,
            end: 64,
            ..
        }
    );
    refused!(two(0).refused(), GgufError::Overlap { .. });
    refused!(
        two(96).refused(),
        GgufError::Hole {
            offset: 96,
            end: 64,
            ..
        }
    );
    let twice = one(&[8], F32, 0).tensor("t", &[8], F32, 32).data(64);
    refused!(twice.refused(), GgufError::DuplicateTensor { name } if name == "t");
    // Any order of the infos will do, and the zeros after the last tensor may be there or not.
    for bytes in [32 + 16, 64] {
        let swapped = one(&[4], F32, 32).tensor("u", &[8], F32, 0).data(bytes);
        assert_eq!(Gguf::from_bytes(swapped.bytes()).unwrap().tensors()[0].name, "u");
    }
}

/// Next to all that is refused: a file with keys, an array and tensors of one to four dimensions, in memory and mapped.
#[test]
fn what_lies_in_a_sound_file_is_what_is_read() {
    let mut hand = Hand::default()
        .key("general.alignment", 4, &8u32.to_le_bytes())
        .key(
            "a",
            ARRAY,
            &[&2u32.to_le_bytes()[..], &3u64.to_le_bytes(), &[1, 0, 2, 0, 3, 0]].concat(),
        )
        .tensor("last", &[3, 2, 1, 2], F32, 16)
        .tensor("first", &[2, 1], F32, 0)
        .tensor("second", &[1], F32, 8);
    hand.data = (0..16 + 48).collect();
    // `Hand` fills up to a multiple of 32.
    let end = 24 + hand.keys.concat().len() + hand.tensors.concat().len();
    let mut whole = hand.bytes();
    whole.truncate(end.next_multiple_of(8));
    whole.extend(&hand.data);
    let data = &hand.data;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sound.gguf");
    std::fs::write(&path, &whole).unwrap();
    for gguf in [Gguf::from_bytes(whole.clone()).unwrap(), Gguf::open(&path).unwrap()] {
        assert_eq!(gguf.shared().bytes(), whole);
        assert_eq!(gguf.metadata().keys().collect::<Vec<_>>(), ["a", "general.alignment"]);
        let Value::Array(array) = &gguf.metadata()["a"] else {
            panic!("{:?}", gguf.metadata())
        };
        assert_eq!((array.element, array.count), (ValueType::U16, 3));
        assert_eq!(gguf.elements(array), [1, 0, 2, 0, 3, 0]);
        let names: Vec<_> = gguf.tensors().iter().map(|info| info.name.as_str()).collect();
        assert_eq!(names, ["first", "second", "last"]);
        for (name, dims, cols, rows, range) in [
            ("first", 2, 2, 1, 0..8),
            ("second", 1, 1, 1, 8..12),
            ("last", 4, 3, 4, 16..64),
        ] {
            let info = gguf.tensor(name).unwrap();
            assert_eq!((info.name.as_str(), info.kind), (name, TensorType::F32));
            assert_eq!((info.dims, info.cols, info.rows), (dims, cols, rows));
            assert_eq!(
                (info.len(), info.bytes(), info.is_empty()),
                (rows * cols, range.len(), false)
            );
            assert_eq!(gguf.data(info), &data[range]);
        }
        assert!(gguf.tensor("third").is_none());
    }
    let missing = Gguf::open(&dir.path().join("none.gguf")).unwrap_err();
    assert!(matches!(missing, FileError::Io { action: "open", .. }), "{missing}");
    std::fs::write(&path, &whole[..3]).unwrap();
    let cut = Gguf::open(&path).unwrap_err();
    let truncated = |error: &GgufError| matches!(error, GgufError::Truncated { len: 3, .. });
    assert!(
        matches!(&cut, FileError::Gguf { path: named, source } if *named == path && truncated(source)),
        "{cut}"
    );
}

/// Whoever converts a file reads each tensor once.
#[cfg(target_os = "linux")]
#[test]
fn pages_of_a_mapped_file_can_be_given_back() {
    use crate::files::tests::resident;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.gguf");
    let hand = Hand::default().tensor("t", &[1 << 14], F32, 0).data(1 << 16);
    std::fs::write(&path, hand.bytes()).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let data = gguf.data(gguf.tensor("t").unwrap());
    assert!(data.iter().all(|byte| *byte == 0));
    let address = data.as_ptr() as usize;
    assert!(resident(address) >= 64);
    gguf.give_pages_back();
    assert_eq!(resident(address), 0);
}

/// On both sides of each limit.
#[test]
fn limits_are_where_they_are_said_to_be() {
    let header = |tensors: u64, keys: u64, rest: &[u8]| {
        [
            &b"GGUF\x03\0\0\0"[..],
            &tensors.to_le_bytes(),
            &keys.to_le_bytes(),
            rest,
        ]
        .concat()
    };
    let read = |tensors, keys, rest: &[u8]| Gguf::from_bytes(header(tensors, keys, rest));
    let count = |tensors, keys, rest: &[u8]| match read(tensors, keys, rest) {
        Err(GgufError::Count { what, found, most }) => Some((what, found, most)),
        _ => None,
    };
    // A key without a name, of one byte: the smallest there is.
    let key = [&text(b"")[..], &0u32.to_le_bytes(), &[7]].concat();
    assert_eq!(read(0, 1, &key).unwrap().metadata()[""], Value::Unsigned(7));
    assert_eq!(count(0, 1, &key[1..]), Some(("keys", 1, 0)));
    assert_eq!(count(0, 2, &key.repeat(2)), None);
    assert_eq!(count(0, 2, &key.repeat(2)[1..]), Some(("keys", 2, 1)));
    // As small a tensor; there is no room for its value.
    let tensor = Hand::default().tensor("", &[1], F32, 0).tensors.concat();
    refused!(read(1, 0, &tensor).unwrap_err(), GgufError::Outside { .. });
    assert_eq!(count(1, 0, &tensor[1..]), Some(("tensors", 1, 0)));
    // In a file that could hold more.
    let room = vec![0; (1 << 16) * 33];
    for (most, tensors, keys) in [(1 << 12, 0, 1), (1 << 16, 1, 0)] {
        assert_eq!(count(tensors * most, keys * most, &room), None);
        let (_, found, limit) = count(tensors * (most + 1), keys * (most + 1), &room).unwrap();
        assert_eq!((found, limit), (most + 1, most));
    }

    let mut bytes = Hand::default().bytes();
    for (version, good) in [(1, false), (2, true), (3, true), (4, false)] {
        bytes[4] = version;
        assert_eq!(Gguf::from_bytes(bytes.clone()).is_ok(), good, "version {version}");
    }
    for alignment in [8u32, 1 << 16] {
        let hand = Hand::default().key("general.alignment", 4, &alignment.to_le_bytes());
        Gguf::from_bytes(hand.bytes()).unwrap();
    }
    // The bits of all values must be a number, those of four bytes too.
    let most = (usize::MAX >> 6) as u64 - 1;
    let one = |n: u64| Hand::default().tensor("t", &[n], F32, 0).refused();
    refused!(one(most), GgufError::Outside { .. });
    refused!(one(most + 1), GgufError::Size { .. });
    // The last tensor ends with the file, or with the zeros that fill its place up, and no later.
    for (bytes, good) in [(15, false), (16, true), (17, true), (32, true), (33, false)] {
        let hand = Hand::default().tensor("t", &[4], F32, 0).data(bytes);
        assert_eq!(Gguf::from_bytes(hand.bytes()).is_ok(), good, "{bytes} bytes");
    }
}
