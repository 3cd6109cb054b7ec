//! `down_proj` by columns inside a file.

use onebit_kernels_cpu::ternary_columns::lines;

use super::*;

/// The name of the second layer's columns, which belong to a binary linear of `[32, 44]`.
const NAME: &str = "model.layers.1.mlp.down_proj.weight.columns";

/// The bytes of a file with columns, and where in it those of [`NAME`] begin.
fn file_with_columns() -> (Vec<u8>, usize) {
    let dir = tempfile::tempdir().unwrap();
    let model = packed(&mixed(), FloatStorage::F16).with_columns();
    let bytes = fs::read(save(&dir, &model, &Parts::default())).unwrap();
    let (length, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    (bytes, 8 + length + metadata.info(NAME).unwrap().data_offsets.0)
}

/// The bits of the logits after each of a few tokens that come one at a time, which is when columns are read.
fn decoded(model: &PackedModel, isa: Isa) -> Vec<u32> {
    let mut session = Session::new(model, Serial, isa, SessionOptions::new(8)).unwrap();
    let mut bits = Vec::new();
    for id in [1, 5, 39, 7, 7] {
        bits.extend(session.decode(id).unwrap().iter().map(|x| x.to_bits()));
    }
    bits
}

#[test]
fn columns_come_back_lie_in_the_file_and_change_no_bit() {
    for config in [small(), mixed()] {
        let rows = packed(&config, FloatStorage::Stored);
        for layout in Layout::TERNARY {
            let model = rows.clone().with_layout(layout).with_columns();
            let dir = tempfile::tempdir().unwrap();
            let file = OneFile::open(&save(&dir, &model, &Parts::default())).unwrap();
            file.verify().unwrap();
            let read = file.model().unwrap();
            assert_eq!(read.blocks(), model.blocks());
            let bytes = 2 * 64 * lines(config.hidden_size, config.intermediate_size);
            assert_eq!(read.bytes().columns, bytes);
            let parts = file.parts().filter(|(name, _)| name.ends_with(COLUMNS));
            assert_eq!(parts.map(|(_, bytes)| bytes).sum::<usize>(), bytes);
            for block in read.blocks() {
                let Linear::Ternary { columns, .. } = &block.down else {
                    panic!("ternary or binary")
                };
                assert!(columns.as_ref().is_some_and(|columns| columns.is_shared()));
            }
            for isa in Isa::available() {
                assert_eq!(decoded(&read, isa), decoded(&rows, isa), "{}", isa.name());
            }
            assert_eq!(read.without_columns().bytes().columns, 0);
        }
    }
}

#[test]
fn columns_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    for (from, to, expected) in [
        (
            "down_proj.weight.columns\":{\"dtype\":\"U8\",\"shape\":[44,64]",
            "down_proj.weight.columns\":{\"dtype\":\"U8\",\"shape\":[64,44]",
            "down_proj.weight.columns: expected shape [44, 64], found [64, 44]",
        ),
        (
            "down_proj.weight.columns\":{\"dtype\":\"U8\"",
            "down_proj.weight.columns\":{\"dtype\":\"I8\"",
            "down_proj.weight.columns: expected U8, found I8",
        ),
        (
            "down_proj.weight.columns",
            "down_proj.weight.kolumns",
            "down_proj.weight.kolumns: is no part",
        ),
    ] {
        fs::write(&path, file_with_columns().0).unwrap();
        edit(&path, from, to);
        assert_eq!(from.len(), to.len(), "offsets stay");
        let error = open(&fs::read(&path).unwrap()).map(drop).unwrap_err().to_string();
        assert!(error.contains(expected), "{from} to {to}: {error}");
    }
}

/// After SwiGLU hardly anything is 0: such a model has no use for columns.
#[test]
fn columns_of_another_activation_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.1bit");
    fs::write(&path, file_with_columns().0).unwrap();
    edit(&path, "\\\"relu2\\\"", "\\\"silu\\\" ");
    edit(&path, "\\\"relu2_gated\\\"", "\\\"swiglu\\\"     ");
    let error = open(&fs::read(&path).unwrap()).map(drop).unwrap_err().to_string();
    assert!(error.contains("down_proj.weight.columns: is no part"), "{error}");
}

/// Whatever columns hold, decoding with them ends without a panic; and verifying compares them with the rows.
#[test]
fn other_columns_are_harmless_and_found_by_verifying() {
    let path = std::path::Path::new("attack.1bit");
    let (bytes, at) = file_with_columns();
    for (flip, count) in [(1, 1), (0x80, 1), (0xff, 44 * 64)] {
        let mut bytes = bytes.clone();
        bytes[at..at + count].iter_mut().for_each(|byte| *byte ^= flip);
        let file = OneFile::from_shared(aligned(&with_checksum(bytes)), path).unwrap();
        let model = file.model().unwrap();
        for isa in Isa::available() {
            decoded(&model, isa);
        }
        let error = file.verify().unwrap_err().to_string();
        assert!(
            error.contains(&format!("{NAME}: does not follow from the rows")),
            "{error}"
        );
    }
}
