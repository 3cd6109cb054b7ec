use std::io::Write;
use std::sync::Arc;

use ::parquet::data_type::{ByteArray, ByteArrayType};
use ::parquet::file::properties::WriterProperties;
use ::parquet::file::writer::SerializedFileWriter;
use ::parquet::schema::parser::parse_message_type;

use super::*;

fn write(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// The documents, their pieces joined.
fn read(inputs: &[PathBuf]) -> Result<Vec<String>> {
    let mut documents = vec![];
    let mut text = String::new();
    for piece in Documents::open(inputs)? {
        let piece = piece?;
        text += &piece.text;
        if piece.ends_document {
            documents.push(std::mem::take(&mut text));
        }
    }
    assert_eq!(text, "", "the last document ends");
    Ok(documents)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn parquet_file(path: &Path, schema: &str, groups: &[&[Option<&str>]]) {
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = Arc::new(WriterProperties::builder().build());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, properties).unwrap();
    for rows in groups {
        let mut group = writer.next_row_group().unwrap();
        while let Some(mut column) = group.next_column().unwrap() {
            let levels: Vec<i16> = rows.iter().map(|row| i16::from(row.is_some())).collect();
            let values: Vec<ByteArray> = rows.iter().flatten().map(|&text| text.into()).collect();
            column
                .typed::<ByteArrayType>()
                .write_batch(&values, Some(&levels), None)
                .unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
    }
    writer.close().unwrap();
}

#[test]
fn each_kind_of_file() {
    let folder = tempfile::tempdir().unwrap();
    let text = "Zeile eins\r\n\n\u{feff}zwei  ";
    let json = "{\"text\": \"a\\nb\", \"id\": 1}\n\n{\"content\": \"c\", \"meta\": {\"text\": 1}}";
    let packed = [gzip(b"first "), gzip(text.as_bytes())].concat();
    write(folder.path(), "a.txt", text.as_bytes());
    write(folder.path(), "b.jsonl", json.as_bytes());
    write(folder.path(), "c/d.raw.gz", &packed);
    write(
        folder.path(),
        "c/e.jsonl.zst",
        &zstd::encode_all(json.as_bytes(), 1).unwrap(),
    );
    write(folder.path(), "c/.hidden.txt", b"no");
    write(folder.path(), "c/picture.png", b"\xff");
    write(folder.path(), "empty.txt", b"");
    let schema = "message m { optional binary title (UTF8); optional binary content (UTF8); }";
    parquet_file(
        &folder.path().join("f.parquet"),
        schema,
        &[&[Some("x"), None, Some("")], &[Some("y\n")]],
    );
    let all = read(&[folder.path().to_owned()]).unwrap();
    assert_eq!(
        all,
        [
            text,
            "a\nb",
            "c",
            &format!("first {text}"),
            "a\nb",
            "c",
            "",
            "x",
            "",
            "y\n"
        ]
    );
    // A name given directly is read as text, whatever it ends in; order is the caller's.
    let odd = write(folder.path(), "notes.md", b"# x");
    assert_eq!(read(&[odd, folder.path().join("a.txt")]).unwrap(), ["# x", text]);
}

#[test]
fn blocks_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Characters of three bytes: block borders fall inside them.
    let text = format!("x{}", "漢".repeat(1_200_000));
    let path = write(folder.path(), "long.txt", text.as_bytes());
    assert!(read(std::slice::from_ref(&path)).unwrap() == [text.clone()]);
    let mut documents = Documents::open(std::slice::from_ref(&path)).unwrap();
    assert!(
        documents.all(|piece| piece.unwrap().text.len() <= 1 << 20),
        "memory is bounded"
    );
    let exact = write(folder.path(), "exact.txt", &vec![b'a'; 1 << 20]);
    assert_eq!(read(&[exact]).unwrap()[0].len(), 1 << 20);
    let mut bytes = text.into_bytes();
    bytes[2_500_000] = 0xff;
    let path = write(folder.path(), "bad.txt", &bytes);
    match read(&[path]).unwrap_err() {
        DataError::Utf8 { offset, .. } => assert_eq!(
            (offset, (offset - 1) % 3),
            (2_500_000, 0),
            "the first byte of a character"
        ),
        other => panic!("{other}"),
    }
    let path = write(folder.path(), "cut.txt", &"é".as_bytes()[..1]);
    assert!(matches!(read(&[path]), Err(DataError::Utf8 { offset: 0, .. })));
}

#[test]
fn progress_reaches_the_total() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "a.txt.gz", &gzip(&[b'a'; 5000]));
    parquet_file(
        &folder.path().join("f.parquet"),
        "message m { optional binary text (UTF8); }",
        &[&[Some("x")], &[Some("x")], &[Some("x")]],
    );
    let mut documents = Documents::open(&[folder.path().to_owned()]).unwrap();
    assert_eq!(
        (documents.by_ref().count(), documents.bytes_read()),
        (4, documents.bytes_total())
    );
}

#[test]
fn errors_say_where() {
    let folder = tempfile::tempdir().unwrap();
    let error = |name: &str, bytes: &[u8]| read(&[write(folder.path(), name, bytes)]).unwrap_err();
    assert!(matches!(
        error("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":"),
        DataError::Json { line: 2, .. }
    ));
    assert!(matches!(
        error("b.jsonl", b"\n\n{\"txt\":\"a\"}"),
        DataError::Json { line: 3, .. }
    ));
    assert!(matches!(
        error("c.jsonl", b"{\"text\":7}"),
        DataError::Json { line: 1, .. }
    ));
    assert!(matches!(error("d.parquet", b"PAR1 nothing"), DataError::Parquet { .. }));
    assert!(matches!(error("e.parquet.gz", b""), DataError::Unsupported { .. }));
    assert!(matches!(error("f.txt.gz", b"not gzip"), DataError::Io { .. }));
    let cut = gzip(&[b'a'; 5000]);
    assert!(matches!(error("g.txt.gz", &cut[..cut.len() - 4]), DataError::Io { .. }));
    assert!(matches!(error("h.tokens", b"1BTKrest"), DataError::Unsupported { .. }));
    let path = folder.path().join("i.parquet");
    parquet_file(&path, "message m { optional binary body (UTF8); }", &[&[Some("x")]]);
    assert!(matches!(read(&[path]), Err(DataError::NoTextColumn { found, .. }) if found == "body"));
    let none = folder.path().join("none");
    assert!(matches!(read(std::slice::from_ref(&none)), Err(DataError::Io { .. })));
    std::fs::create_dir(&none).unwrap();
    assert!(matches!(read(&[none]), Err(DataError::NoText { .. })));
}

#[test]
fn damaged_parquet_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.parquet");
    parquet_file(
        &path,
        "message m { optional binary text (UTF8); }",
        &[&[Some("some text"), Some("more")]],
    );
    let whole = std::fs::read(&path).unwrap();
    for len in 0..whole.len() {
        std::fs::write(&path, &whole[..len]).unwrap();
        assert!(read(std::slice::from_ref(&path)).is_err(), "{len}");
    }
}
