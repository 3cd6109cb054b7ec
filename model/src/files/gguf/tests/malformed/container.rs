//! The container: header, keys, descriptions of tensors, places.

use super::*;

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
