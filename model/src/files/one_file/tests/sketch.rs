//! The sketch of the head inside a file.

use super::*;

/// The bytes of a file with a sketch, and where in it the tensor `name` begins.
fn sketched_file(name: &str) -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let bytes = fs::read(save(&dir, &sketched(), &Parts::default())).unwrap();
    let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    (bytes, 8 + length + metadata.info(name).unwrap().data_offsets.0)
}

/// A sketch in a file is as good as one that is made: the likeliest tokens come out, and the rest of the logits do not.
#[test]
fn a_mapped_sketch_finds_the_largest_logits() {
    let (bytes, _) = sketched_file(SKETCH[0].0);
    let (model, made) = (open(&bytes).unwrap(), sketched());
    let some = |model: &PackedModel| {
        let mut session = Session::new(model, Serial, Isa::best(), SessionOptions::new(8)).unwrap();
        let top = Some(Top { count: 1, except: &[] });
        let mut bits = Vec::new();
        for id in [1, 5, 39, 7, 7] {
            bits.extend(session.prefill_top(&[id], top).unwrap().iter().map(|x| x.to_bits()));
        }
        (bits, session.sketch_counts())
    };
    let (bits, counts) = some(&model);
    assert_eq!((&bits, counts), (&some(&made).0, some(&made).1));
    assert_eq!(counts.searched, 5);
}

#[test]
fn sketches_that_are_none_are_refused() {
    for (plane, figures) in SKETCH {
        let (bytes, at) = sketched_file(figures);
        for (place, value) in [(0, f32::NAN), (4, -1.0), (8, f32::INFINITY), (12 * 42 + 8, -f32::NAN)] {
            let mut bytes = bytes.clone();
            bytes[at + place..at + place + 4].copy_from_slice(&value.to_le_bytes());
            let error = open(&bytes).map(drop).unwrap_err().to_string();
            assert!(error.contains("onebit.sketch.plane1: is no sketch"), "{value}: {error}");
        }
        // Another number of rows, and a part that is missing.
        for name in [plane, figures] {
            for (from, to, expected) in [
                (
                    "\"shape\":[43,3]",
                    "\"shape\":[3,43]",
                    "figures1: expected shape [43, 3]",
                ),
                (name, "onebit.sketch.another!", "is missing"),
            ] {
                let mut bytes = bytes.clone();
                let header = header_end(&bytes);
                let to = &to[..to.len().min(from.len())];
                let text = String::from_utf8(bytes[8..header].to_vec()).unwrap();
                let changed = text.replace(from, &format!("{to:!<width$}", width = from.len()));
                bytes[8..header].copy_from_slice(changed.as_bytes());
                let error = open(&bytes).map(drop).unwrap_err().to_string();
                assert!(error.contains(expected), "{from} to {to}: {error}");
            }
        }
    }
}

/// Whatever a damaged sketch says, it is used without a panic; and verifying makes it once more.
#[test]
fn another_sketch_is_harmless_and_found_by_verifying() {
    for (plane, figures) in SKETCH {
        for (name, value) in [(plane, 0xff), (figures, 0x7e), (figures, 0)] {
            let (mut bytes, at) = sketched_file(name);
            bytes[at..at + 43 * 12].fill(value);
            let model = open(&bytes).unwrap();
            let mut session = Session::new(&model, Serial, Isa::best(), SessionOptions::new(8)).unwrap();
            for count in [1, 2] {
                let top = Some(Top { count, except: &[1] });
                session.prefill_top(&[3], top).unwrap();
            }
            let path = std::path::Path::new("attack.1bit");
            let file = OneFile::from_shared(aligned(&with_checksum(bytes)), path).unwrap();
            let error = file.verify().unwrap_err().to_string();
            assert!(
                error.contains("onebit.sketch.plane1: does not follow from the head"),
                "{error}"
            );
        }
    }
}
