//! Our reader of GGUF and the `gguf` package of PyPI, on the same damaged files: what ours accepts the package reads as the same keys and tensors.
//!
//! The other way round the package accepts much that ours refuses, for it looks at little: overlapping, missing and misaligned data, letters that are no
//! UTF-8, truth values beyond 1, nested arrays, implausible counts. How often that was so is printed.
//! `ONEBIT_GGUF_ROUNDS` sets how many damaged copies of each file there are, `ONEBIT_PYTHON` which Python has the package.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use onebit_model::files::gguf::{Gguf, GgufError, Value};

use crate::harness::damaged;

/// A text of the format.
fn text(value: &[u8]) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value].concat()
}

/// A file with a key of every type, an array of each, and tensors of several types, by hand.
fn every_type() -> Vec<u8> {
    let key = |name: &str, kind: u32, value: &[u8]| [&text(name.as_bytes())[..], &kind.to_le_bytes(), value].concat();
    let values: [(u32, Vec<u8>); 12] = [
        (0, vec![200]),
        (1, vec![200]),
        (2, 60_000u16.to_le_bytes().to_vec()),
        (3, (-5i16).to_le_bytes().to_vec()),
        (4, u32::MAX.to_le_bytes().to_vec()),
        (5, (-1i32).to_le_bytes().to_vec()),
        (6, 1.5f32.to_le_bytes().to_vec()),
        (7, vec![1]),
        (8, text("\u{e9}t\u{e9}".as_bytes())),
        (10, u64::MAX.to_le_bytes().to_vec()),
        (11, i64::MIN.to_le_bytes().to_vec()),
        (12, f64::NAN.to_le_bytes().to_vec()),
    ];
    let mut keys = vec![key("general.alignment", 4, &64u32.to_le_bytes())];
    for (kind, value) in &values {
        keys.push(key(&format!("one.{kind}"), *kind, value));
        let several = [&kind.to_le_bytes()[..], &3u64.to_le_bytes(), &value.repeat(3)].concat();
        keys.push(key(&format!("several.{kind}"), 9, &several));
    }
    // Type, dimensions, bytes: F32, F16, Q8_0, TQ1_0, TQ2_0.
    let tensors: [(u32, &[u64], usize); 5] = [
        (0, &[3, 2], 24),
        (1, &[5], 10),
        (8, &[32, 1, 2], 68),
        (34, &[256], 54),
        (35, &[256, 2], 132),
    ];
    let (mut infos, mut data) = (Vec::new(), Vec::new());
    for (kind, dims, bytes) in tensors {
        infos.extend(text(format!("t{kind}").as_bytes()));
        infos.extend((dims.len() as u32).to_le_bytes());
        infos.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
        infos.extend(kind.to_le_bytes());
        infos.extend((data.len() as u64).to_le_bytes());
        data.extend((0..bytes).map(|i| (i * 7) as u8));
        data.resize(data.len().next_multiple_of(64), 0);
    }
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    out.extend((tensors.len() as u64).to_le_bytes());
    out.extend((keys.len() as u64).to_le_bytes());
    out.extend(keys.concat());
    out.extend(infos);
    out.resize(out.len().next_multiple_of(64), 0);
    out.extend(data);
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes everything");
        text
    })
}

/// What our reader says of a file, as the script says it.
fn ours(bytes: &[u8]) -> Result<String, GgufError> {
    let gguf = Gguf::from_bytes(bytes.to_vec())?;
    let value = |value: &Value| match value {
        Value::Unsigned(n) => format!("unsigned {n}"),
        Value::Signed(n) => format!("signed {n}"),
        Value::F32(x) => format!("f32 {}", x.to_bits()),
        Value::F64(x) => format!("f64 {}", x.to_bits()),
        Value::Bool(x) => format!("bool {:02x}", u8::from(*x)),
        Value::Text(text) => format!("text {}", hex(text.as_bytes())),
        Value::Array(array) => {
            let elements = hex(gguf.elements(array));
            format!("array {} {} {elements}", array.element as u32, array.count)
        }
    };
    let keys = gguf.metadata().iter();
    let mut said: Vec<String> = keys
        .map(|(key, found)| format!("key {} {}", hex(key.as_bytes()), value(found)))
        .collect();
    for info in gguf.tensors() {
        let (name, data) = (hex(info.name.as_bytes()), hex(gguf.data(info)));
        let (kind, dims, rows, cols) = (info.kind.id(), info.dims, info.rows, info.cols);
        said.push(format!("tensor {name} {kind} {dims} {rows} {cols} {data}"));
    }
    said.sort_unstable();
    Ok(said.join(";"))
}

/// Why the package may refuse what ours reads.
fn known(ours: &str, theirs: &str) -> bool {
    // Its alignment must have 32 bits; of an `I2_S`, which is of bitnet.cpp, it has not heard; a name that begins like those it makes up itself
    // could be one of them.
    theirs.contains("general.alignment")
        || theirs.contains("36 is not a valid GGMLQuantizationType")
        || theirs.contains("Duplicate GGUF.") && ours.contains(&hex(b"GGUF."))
}

#[test]
fn the_package_reads_the_same() {
    let python = std::env::var("ONEBIT_PYTHON").unwrap_or_else(|_| "python3".into());
    let rounds = std::env::var("ONEBIT_GGUF_ROUNDS").map_or(400, |n| n.parse().expect("a number"));
    let folder = tempfile::tempdir().unwrap();
    let mut files = BTreeMap::new();
    for (name, whole) in [("model", super::gguf::whole()), ("types", every_type())] {
        files.insert(format!("{name}-whole"), whole.clone());
        for round in 0..rounds {
            files.insert(format!("{name}-{round}"), damaged(&whole, round));
        }
    }
    for (name, bytes) in &files {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/gguf_differential.py");
    let ran = Command::new(&python).arg(script).arg(folder.path()).output();
    let ran = match ran {
        Ok(ran) if ran.status.code() != Some(3) => ran,
        _ => {
            eprintln!("SKIPPED: {python} has no package gguf; pip install gguf, and name that Python in ONEBIT_PYTHON");
            return;
        }
    };
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let said = String::from_utf8(ran.stdout).unwrap();
    let (mut both, mut neither, mut theirs_alone, mut known_refusals) = (0, 0, BTreeMap::new(), 0);
    let mut seen = 0;
    for line in said.lines() {
        let (name, theirs) = line.split_once('\t').unwrap();
        seen += 1;
        match (ours(&files[name]), theirs.starts_with("refused: ")) {
            (Ok(ours), false) => {
                assert!(ours == theirs, "{name}:\nours   {ours:.3000}\ntheirs {theirs:.3000}");
                both += 1;
            }
            (Ok(ours), true) => {
                assert!(known(&ours, theirs), "only ours reads {name}: {theirs}");
                known_refusals += 1;
            }
            (Err(error), false) => {
                assert!(!name.ends_with("whole"), "{name}: {error}");
                let class = format!("{error:?}");
                let class = class.split([' ', '{', '(']).next().unwrap_or_default().to_string();
                *theirs_alone.entry(class).or_insert(0) += 1;
            }
            (Err(_), true) => neither += 1,
        }
    }
    assert_eq!(seen, files.len());
    println!(
        "{seen} files: both read {both}, neither {neither}, ours alone {known_refusals}, the package alone {theirs_alone:?}"
    );
    assert!(both > 2 && neither > 0);
}
