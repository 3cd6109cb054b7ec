//! Texts to train on: plain, JSON Lines, gzip, zstd, parquet.

use std::fs;
use std::path::Path;

use onebit_trainer::data::DataError;
use onebit_trainer::data::text::Documents;

use crate::harness;

/// Training texts of each kind, as [`onebit_trainer::data::text`] reads them.
#[test]
fn seeds_of_texts() {
    use std::io::Write;
    let lines = b"{\"text\": \"one two\"}\n{\"content\": \"three \\u00e9\", \"id\": 3}\n\n{\"text\": null, \"content\": \"\"}\n";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"one two three").unwrap();
    let texts = [
        ("plain", "one two\n\u{e9}\u{4e2d}\u{1f600}".as_bytes().to_vec()),
        ("lines", lines.to_vec()),
        ("gzip", gzip.finish().unwrap()),
        ("zstd", zstd::encode_all(&lines[..], 1).unwrap()),
    ];
    for (name, bytes) in texts {
        harness::seed("text", name, &bytes);
    }
    // The fields as an array are no object.
    for line in [
        "[\"one\", null]",
        "\"one\"",
        "{\"text\": 1}",
        "{\"text\": \"a\", \"text\": \"b\"}",
        "{}",
    ] {
        let mut read = onebit_trainer::data::text::stream(Path::new("x.jsonl"), line.as_bytes()).unwrap();
        assert!(
            matches!(read.next(), Some(Err(DataError::Json { line: 1, .. }))),
            "{line}"
        );
        harness::seed_damaged(&["text"], line.as_bytes());
    }
    harness::seed("parquet", "rows", &parquet_rows());
}

/// Two texts and a row without one.
fn parquet_rows() -> Vec<u8> {
    use parquet::data_type::{ByteArray, ByteArrayType};
    let schema = parquet::schema::parser::parse_message_type("message m { optional binary text (UTF8); }").unwrap();
    let mut writer =
        parquet::file::writer::SerializedFileWriter::new(Vec::new(), schema.into(), Default::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    let values = [ByteArray::from("one two"), ByteArray::from("three")];
    let written = column
        .typed::<ByteArrayType>()
        .write_batch(&values, Some(&[1, 0, 1]), None);
    assert_eq!(written.unwrap(), 2);
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

/// The library of the format panics on some of these, which must not end the program.
#[test]
fn damaged_parquet_is_refused_or_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("text.parquet");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Documents::open(std::slice::from_ref(&path))?.try_fold(0, |rows, piece| piece.map(|_| rows + 1))
    };
    let whole = parquet_rows();
    assert_eq!(read(&whole).unwrap(), 2);
    // Without the bound on memory of the readers of models: a panic's own message takes more.
    for len in 0..whole.len() {
        assert!(read(&whole[..len]).is_err(), "cut to {len} bytes");
    }
    let mut contained = 0;
    for round in 0..2000 {
        if let Err(DataError::Parquet { reason, .. }) = read(&harness::damaged(&whole, round)) {
            contained += usize::from(reason.contains("does not expect"));
        }
    }
    println!("{contained} panics of the library");
    assert!(
        contained > 0,
        "no damage makes the library panic any more: let its target be fuzzed again"
    );
}
