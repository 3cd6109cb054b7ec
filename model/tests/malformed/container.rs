//! The safetensors container.

use std::fs;

use onebit_model::files::{FileError, HeaderProblem, WEIGHTS_FILE, Weights};

use crate::harness::{bound, check_damage, check_truncations, peak_of, seed_damaged};
use crate::small;

/// A container with this header and so many zero bytes of data.
fn container(header: &str, data: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    bytes
}

fn problem(bytes: &[u8]) -> HeaderProblem {
    seed_damaged(
        &["safetensors_header", "safetensors_differential", "one_file_header"],
        bytes,
    );
    match Weights::from_bytes(bytes.to_vec(), "attack") {
        Err(FileError::Header { problem, .. }) => problem,
        other => panic!("{other:?}"),
    }
}

/// A header with one tensor `a`.
fn one(dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#"{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}"#)
}

/// A header with eight bytes `a` and one more entry.
fn two(b: &str) -> String {
    format!(r#"{{"a":{{"dtype":"U8","shape":[8],"data_offsets":[0,8]}},{b}}}"#)
}

#[test]
fn each_class_of_header_has_its_own_error() {
    use HeaderProblem as P;
    type Is = fn(&HeaderProblem) -> bool;
    let u8 = |shape: &str, offsets: &str| format!(r#""b":{{"dtype":"U8","shape":{shape},"data_offsets":{offsets}}}"#);
    let f32 = |shape: &str, offsets: &str| one("\"F32\"", shape, offsets);
    let huge = "[18446744073709551615]";
    let sum = |i: u64| {
        // Each of the sizes is a number, their sum is not.
        let (start, end) = (i.wrapping_mul(1 << 60), (i + 1).wrapping_mul(1 << 60));
        format!(r#""t{i:02}":{{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[{start},{end}]}}"#)
    };
    let sums: Vec<String> = (0..16).map(sum).collect();
    let cases: &[(&str, String, usize, Is)] = &[
        ("no object", "[]".into(), 0, |p| matches!(p, P::Start)),
        ("something before the object", format!(" {}", two("")), 8, |p| {
            matches!(p, P::Start)
        }),
        (
            "something after the object",
            format!("{}{{}}", f32("[2]", "[0,8]")),
            8,
            |p| matches!(p, P::Json { message } if message.contains("trailing")),
        ),
        (
            "cut JSON",
            "{".into(),
            0,
            |p| matches!(p, P::Json { message } if message.contains("EOF")),
        ),
        ("deep nesting", format!("{{\"a\":{}", "[".repeat(100_000)), 0, |p| {
            matches!(p, P::Json { .. })
        }),
        (
            "deep nesting in metadata",
            format!("{{\"__metadata__\":{{\"a\":{}", "[".repeat(100_000)),
            0,
            |p| matches!(p, P::Json { .. }),
        ),
        (
            "a negative size",
            f32("[-1]", "[0,8]"),
            8,
            |p| matches!(p, P::Json { message } if message.contains("-1")),
        ),
        (
            "a fraction as size",
            f32("[2.0]", "[0,8]"),
            8,
            |p| matches!(p, P::Json { message } if message.contains("2.0")),
        ),
        (
            "a text as size",
            f32("[\"2\"]", "[0,8]"),
            8,
            |p| matches!(p, P::Json { message } if message.contains("\"2\"")),
        ),
        (
            "a truth as offset",
            f32("[2]", "[false,8]"),
            8,
            |p| matches!(p, P::Json { message } if message.contains("boolean")),
        ),
        ("three offsets", f32("[2]", "[0,8,8]"), 8, |p| {
            matches!(p, P::Json { .. })
        }),
        ("a size above 2^64", f32("[18446744073709551616]", "[0,8]"), 8, |p| {
            matches!(p, P::Json { .. })
        }),
        (
            "a missing field",
            r#"{"a":{"dtype":"U8","shape":[0]}}"#.into(),
            0,
            |p| matches!(p, P::Json { message } if message.contains("missing field")),
        ),
        (
            "an unknown field",
            two(r#""b":{"dtype":"U8","shape":[0],"data_offsets":[8,8],"x":1}"#),
            8,
            |p| matches!(p, P::Json { message } if message.contains("unknown field")),
        ),
        (
            "a field twice",
            two(r#""b":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[8,8]}"#),
            8,
            |p| matches!(p, P::Json { message } if message.contains("duplicate field")),
        ),
        ("metadata of another kind", two(r#""__metadata__":{"x":1}"#), 8, |p| {
            matches!(p, P::Json { .. })
        }),
        (
            "a text as metadata",
            two(r#""__metadata__":"x""#),
            8,
            |p| matches!(p, P::Json { message } if message.contains("expected an object of texts")),
        ),
        (
            "a size as shape",
            f32("2", "[0,8]"),
            8,
            |p| matches!(p, P::Json { message } if message.contains("expected an array of sizes")),
        ),
        (
            "an unknown type",
            one("\"F33\"", "[2]", "[0,8]"),
            8,
            |p| matches!(p, P::UnknownType { name, found } if name == "a" && found.contains("F33")),
        ),
        ("a type as number", one("-1", "[2]", "[0,8]"), 8, |p| {
            matches!(p, P::Json { .. })
        }),
        (
            "a name twice",
            two(r#""a":{"dtype":"U8","shape":[8],"data_offsets":[8,16]}"#),
            16,
            |p| matches!(p, P::Duplicate { name } if name == "tensor a"),
        ),
        (
            "a name twice, empty",
            two(r#""a":{"dtype":"U8","shape":[0],"data_offsets":[8,8]}"#),
            8,
            |p| matches!(p, P::Duplicate { name } if name == "tensor a"),
        ),
        (
            "an array for an object",
            r#"{"a":["F32",[2],[0,8]]}"#.into(),
            8,
            |p| matches!(p, P::Json { message } if message.contains("expected an object")),
        ),
        (
            "a text of the metadata twice",
            two(r#""__metadata__":{"x":"1","y":"","x":"2"}"#),
            8,
            |p| matches!(p, P::Duplicate { name } if name == "x in __metadata__"),
        ),
        (
            "too many texts",
            format!(
                "{{\"__metadata__\":{{{}\"\":\"\"}}}}",
                (0..1 << 16).map(|i| format!("\"{i}\":\"\",")).collect::<String>()
            ),
            0,
            |p| {
                matches!(
                    p,
                    P::Texts {
                        found: 65_537,
                        limit: 65_536
                    }
                )
            },
        ),
        (
            "metadata twice",
            two(r#""__metadata__":{},"__metadata__":{}"#),
            8,
            |p| matches!(p, P::Duplicate { name } if name == "__metadata__"),
        ),
        ("nine dimensions", f32("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, |p| {
            matches!(p, P::Dimensions { found: 9, limit: 8, .. })
        }),
        (
            "product beyond 2^64",
            f32("[4294967296,4294967296,4]", "[0,8]"),
            8,
            |p| matches!(p, P::Overflow { .. }),
        ),
        (
            "product that wraps to 0",
            f32("[9223372036854775808,2]", "[0,0]"),
            0,
            |p| matches!(p, P::Overflow { .. }),
        ),
        (
            "product times type beyond 2^64",
            f32("[1152921504606846976]", "[0,0]"),
            0,
            |p| matches!(p, P::Overflow { .. }),
        ),
        ("sum beyond 2^64", format!("{{{}}}", sums.join(",")), 64, |p| {
            matches!(p, P::OutOfFile { data: 64, .. })
        }),
        ("beyond the file", f32("[2]", "[0,8]"), 7, |p| {
            matches!(
                p,
                P::OutOfFile {
                    start: 0,
                    end: 8,
                    data: 7,
                    ..
                }
            )
        }),
        (
            "far beyond the file",
            one("\"U8\"", huge, &format!("[0,{}]", u64::MAX)),
            0,
            |p| matches!(p, P::OutOfFile { .. }),
        ),
        ("ends before it begins", two(&u8("[0]", "[8,4]")), 8, |p| {
            matches!(p, P::OutOfFile { start: 8, end: 4, .. })
        }),
        ("overlap", two(&u8("[8]", "[4,12]")), 12, |p| {
            matches!(
                p,
                P::Overlap {
                    start: 4,
                    previous: 8,
                    ..
                }
            )
        }),
        ("the same place twice", two(&u8("[8]", "[0,8]")), 8, |p| {
            matches!(
                p,
                P::Overlap {
                    start: 0,
                    previous: 8,
                    ..
                }
            )
        }),
        ("a hole", two(&u8("[4]", "[12,16]")), 16, |p| {
            matches!(
                p,
                P::Hole {
                    start: 12,
                    previous: 8,
                    ..
                }
            )
        }),
        ("a hole in front", f32("[2]", "[1,9]"), 9, |p| {
            matches!(
                p,
                P::Hole {
                    start: 1,
                    previous: 0,
                    ..
                }
            )
        }),
        ("more bytes than the shape", f32("[3]", "[0,8]"), 8, |p| {
            matches!(p, P::Size { found: 8, .. })
        }),
        ("fewer bytes than the shape", one("\"U8\"", "[2]", "[0,8]"), 8, |p| {
            matches!(p, P::Size { found: 8, .. })
        }),
        ("half a byte", one("\"F4\"", "[3]", "[0,1]"), 1, |p| {
            matches!(p, P::Size { found: 1, .. })
        }),
        ("data at the end", f32("[2]", "[0,8]"), 9, |p| {
            matches!(p, P::Trailing { end: 8, data: 9 })
        }),
        ("data of nobody", "{}".into(), 1, |p| {
            matches!(p, P::Trailing { end: 0, data: 1 })
        }),
    ];
    for (class, header, data, expected) in cases {
        let found = problem(&container(header, *data));
        assert!(expected(&found), "{class}: {found:?}");
    }
    // What is next to them and right.
    let empty = Weights::from_bytes(container(&two(&u8("[0,5]", "[8,8]")), 8), "x").unwrap();
    assert!(empty.get("b").unwrap().bytes.is_empty());
    Weights::from_bytes(container("{\"__metadata__\":{\"a\":\"b\"}}   ", 0), "x").unwrap();
}

#[test]
fn lengths_and_letters_of_the_header() {
    use HeaderProblem as P;
    for n in 0..8 {
        assert!(matches!(problem(&vec![0; n]), P::TooShort { found } if found == n));
    }
    for length in [u64::MAX, u64::MAX - 7, 1 << 63, 100_000_001] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        assert!(matches!(problem(&bytes), P::TooLarge { length: found, .. } if found == length));
    }
    for length in [100_000_000u64, 3] {
        let bytes = [&length.to_le_bytes()[..], b"{}"].concat();
        assert!(matches!(problem(&bytes), P::Truncated { length: l, found: 10 } if l == length));
    }
    assert!(matches!(problem(&[0; 8]), P::Start));
    let letters = [&6u64.to_le_bytes()[..], b"{\"", &[0xff, 0xfe], b"\"}"].concat();
    assert!(matches!(problem(&letters), P::NotUtf8 { at: 2 }));
}

/// Small files whose parsed form could be large: a million sizes, tensors without data, texts.
#[test]
fn a_header_full_of_entries_costs_no_more_than_its_size() {
    let sizes = one("\"U8\"", &format!("[{}1]", "1,".repeat(4_000_000)), "[0,1]");
    let tensors: Vec<String> = (0..200_000)
        .map(|i| format!(r#""{i}":{{"dtype":"U8","shape":[],"data_offsets":[0,0]}}"#))
        .collect();
    let tensors = format!("{{{}}}", tensors.join(","));
    let texts: Vec<String> = (0..400_000).map(|i| format!(r#""{i}":"""#)).collect();
    let texts = format!("{{\"__metadata__\":{{{}}}}}", texts.join(","));
    for (name, header) in [("sizes", sizes), ("tensors", tensors), ("texts", texts)] {
        let bytes = container(&header, 1);
        let len = bytes.len();
        let (result, peak) = peak_of(|| Weights::from_bytes(bytes, "bomb").map(drop));
        println!("{name}: {len} bytes, peak {peak}");
        assert!(result.is_err());
        assert!(peak <= bound(len), "{name}: {peak} bytes of memory for {len}");
    }
}

fn read(bytes: &[u8]) -> Result<(), FileError> {
    let weights = Weights::from_bytes(bytes.to_vec(), "damaged")?;
    for name in weights.names() {
        let view = weights.get(name).expect("a name has a tensor");
        let bits = view.shape.iter().product::<usize>() * view.dtype.bitsize();
        assert_eq!(view.bytes.len() * 8, bits);
    }
    Ok(())
}

#[test]
fn cut_or_damaged_files_never_panic() {
    let dir = tempfile::tempdir().unwrap();
    small::save_floats(dir.path());
    let whole = fs::read(dir.path().join(WEIGHTS_FILE)).unwrap();
    read(&whole).unwrap();
    check_truncations("model.safetensors", &whole, |bytes| {
        assert!(read(bytes).is_err() || bytes.len() == whole.len());
    });
    check_damage("model.safetensors", &whole, 4000, |bytes| drop(read(bytes)));
}
