//! Whatever else a file holds is an error that names file and part, never a panic.

use super::*;
use crate::files::PartProblem;

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let whole = whole();
    let header = header_end(&whole);
    let beyond = (header..whole.len()).step_by(61).chain([whole.len() - 1]);
    for end in (0..header).chain(beyond) {
        let error = open(&whole[..end]).map(drop).unwrap_err().to_string();
        assert!(error.contains("attack.1bit"), "cut at {end}: {error}");
        // In memory that is no file, as on a board, it is the same but for the path and what to do.
        let image = Image::new(aligned(&whole[..end])).and_then(|image| image.model());
        let of_image = image.map(drop).unwrap_err().to_string();
        let what = |text: &str| text.split(';').next().map(str::to_owned);
        assert_eq!(error.strip_prefix("attack.1bit: ").and_then(what), what(&of_image));
    }
    let mut longer = whole.clone();
    longer.push(0);
    assert!(open(&longer).is_err());
    let image = Image::new(aligned(&whole)).unwrap();
    assert_eq!(image.bytes(), whole);
    assert_eq!(logits(&image.model().unwrap()), logits(&open(&whole).unwrap()));
}

#[test]
fn a_changed_byte_never_panics_and_is_found_by_verifying() {
    let whole = whole();
    let header = header_end(&whole);
    let places = (0..header).chain((header..whole.len()).step_by(37));
    let mut opened = 0;
    for at in places {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let shared = aligned(&bytes);
        let Ok(file) = OneFile::from_shared(shared, std::path::Path::new("flip.1bit")) else {
            continue;
        };
        assert!(file.verify().is_err(), "byte {at} was changed and nobody saw it");
        let _ = file.tokenizer().map(|tokenizer| tokenizer.encode("one two three"));
        if let Ok(model) = file.model()
            && model.config().vocab_size == 43
        {
            opened += 1;
            let options = SessionOptions::new(model.config().max_position_embeddings.min(4));
            let mut session = Session::new(&model, Serial, Isa::best(), options).unwrap();
            session.decode(3).unwrap();
        }
    }
    assert!(opened > 100, "{opened} changed files could be run");
}

/// The refusal of a file whose header had `from` replaced by `to`; the data stay.
fn refused(from: &str, to: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    fs::write(&path, whole()).unwrap();
    edit(&path, from, to);
    let error = open(&fs::read(&path).unwrap()).map(drop).unwrap_err();
    error.to_string()
}

#[test]
fn every_refusal_names_the_file_and_the_part() {
    let wide = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len(), "offsets stay");
        refused(from, to)
    };
    let cases = [
        (
            wide("\"format\":\"1bit\"", "\"format\":\"2bit\""),
            "format: expected \"1bit\"",
        ),
        (
            wide("\"version\":\"1\"", "\"version\":\"2\""),
            "version: expected \"1\", found \"2\"",
        ),
        (wide("\"checksum\"", "\"checksun\""), "checksun: is no part"),
        (wide("\"config\"", "\"confih\""), "confih: is no part"),
        (
            wide("onebit.scales", "onebit.skales"),
            "onebit.scales: is missing (did you mean onebit.skales?)",
        ),
        (
            wide(
                "layers.0.self_attn.o_proj.weight.t",
                "layers.0.self_attn.p_proj.weight.t",
            ),
            "o_proj.weight.t2: is missing (did you mean model.layers.0.self_attn.p_proj.weight.",
        ),
        (
            wide("onebit.padding.1\"", "onebit.matting.1\""),
            "onebit.matting.1: is no part",
        ),
        (
            wide("onebit.tokenizer.json", "onebit.tokenizer.yaml"),
            "onebit.tokenizer.yaml: is no part",
        ),
        (
            wide(
                "embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[43,32]",
                "embed_tokens.weight\":{\"dtype\":\"F16\",\"shape\":[32,43]",
            ),
            "embed_tokens.weight: expected shape [43, 32], found [32, 43]",
        ),
        (
            wide(
                "embed_tokens.weight\":{\"dtype\":\"F16\"",
                "embed_tokens.weight\":{\"dtype\":\"I16\"",
            ),
            "embed_tokens.weight: expected F32, found I16",
        ),
        (
            wide(
                "q_proj.weight.i8\":{\"dtype\":\"I8\"",
                "q_proj.weight.i8\":{\"dtype\":\"U8\"",
            ),
            "q_proj.weight.i8: expected I8, found U8",
        ),
        (
            wide("\\\"vocab_size\\\": 43", "\\\"vocab_size\\\": 44"),
            "expected shape [44, 32]",
        ),
        (wide("\\\"hidden_act\\\"", "\\\"hidden_akt\\\""), "hidden_akt"),
    ];
    for (message, expected) in cases {
        assert!(
            message.starts_with("attack.1bit: ") && message.contains(expected),
            "{expected}: {message}"
        );
    }
    // Three texts of the format are there; any other container is refused at once.
    let other = container(r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}"#, 4);
    let error = open(&other).map(drop).unwrap_err().to_string();
    assert!(error.contains("format: expected \"1bit\", found nothing"), "{error}");
}

#[test]
fn codes_that_stand_for_nothing_are_harmless_and_found_by_verifying() {
    let model = packed(&small(), FloatStorage::Stored).with_layout(Layout::T2);
    let dir = tempfile::tempdir().unwrap();
    let path = save(&dir, &model, &Parts::default());
    let mut bytes = fs::read(&path).unwrap();
    let at = {
        let Linear::Ternary { packed, .. } = &model.blocks()[1].up else {
            panic!("ternary")
        };
        bytes
            .windows(packed.len())
            .position(|window| window == &**packed)
            .unwrap()
    };
    bytes[at..at + 32].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    let file = OneFile::open(&path).unwrap();
    assert_eq!(logits(&file.model().unwrap()).len(), 5 * 40);
    assert!(file.verify().unwrap_err().to_string().contains("checksum"));
    // With the right checksum the codes themselves are seen.
    fs::write(&path, with_checksum(bytes)).unwrap();
    let error = OneFile::open(&path).unwrap().verify().unwrap_err().to_string();
    assert!(error.contains("layers.1.mlp.up_proj.weight: holds a code"), "{error}");
}

/// Opening reads no weight, so what stands for nothing there is found by verifying, and by whoever wants it in another type.
#[test]
fn values_that_stand_for_nothing_are_found_by_verifying() {
    let whole = whole();
    let read = |bytes: &[u8]| OneFile::from_shared(aligned(bytes), std::path::Path::new("attack.1bit")).unwrap();
    let embedding = "model.embed_tokens.weight";
    let linear = "model.layers.0.self_attn.q_proj.weight";
    let stored = &format!("{linear}.i8");
    let cases: [(&str, &[u8], &str, PartProblem); 4] = [
        (embedding, &[0x00, 0x7e], embedding, PartProblem::NotFinite),
        (embedding, &[0x00, 0x7c], embedding, PartProblem::NotFinite),
        (
            "model.norm.weight",
            &f32::NAN.to_le_bytes(),
            "the norms",
            PartProblem::NotFinite,
        ),
        (stored, &[0x80], linear, PartProblem::Range),
    ];
    for (tensor, value, part, expected) in cases {
        let mut bytes = whole.clone();
        let at = read(&whole).image.weights.place(tensor).unwrap().1.start;
        bytes[at..at + value.len()].copy_from_slice(value);
        let file = read(&with_checksum(bytes));
        file.model().unwrap();
        match file.verify() {
            Err(FileError::Part {
                part: found, problem, ..
            }) => assert_eq!((&*found, problem), (part, expected)),
            other => panic!("{tensor}: {other:?}"),
        }
        let widened = file.model_as(FloatStorage::F32).map(drop);
        assert_eq!(
            matches!(&widened, Err(FileError::Part { problem: PartProblem::Model { message }, .. }) if message.contains(embedding)),
            tensor == embedding,
            "{tensor}: {widened:?}"
        );
    }
}
