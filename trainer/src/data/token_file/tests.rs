use super::*;

const HASH: [u8; 32] = [7; 32];

fn write(path: &Path, vocab_size: usize, documents: &[&[u32]]) -> Result<TokenFile> {
    let mut writer = TokenWriter::create(path, vocab_size, HASH, true)?;
    for document in documents {
        let (a, b) = document.split_at(document.len() / 2);
        writer.push(a)?;
        writer.push(b)?;
        writer.end_document();
    }
    writer.finish(1234, 99)
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn what_is_written_is_read() {
    let folder = folder();
    for (vocab_size, width) in [(65_536, 2), (65_537, 4)] {
        let path = folder.path().join("x.tokens");
        let long: Vec<u32> = (0..1000).map(|i| i * 65 % 65_536).collect();
        let file = write(&path, vocab_size, &[&[1, 2, 65_535], &[], &[5], &long]).unwrap();
        assert_eq!(
            (file.len(), file.id_width(), file.documents()),
            (1004, width, 3),
            "the empty document is not one"
        );
        assert_eq!((file.vocab_size(), file.tokenizer()), (Some(vocab_size), Some(HASH)));
        assert_eq!((file.source_bytes(), file.source_words()), (Some(1234), Some(99)));
        let documents: Vec<_> = (0..3).map(|i| file.document(i).unwrap()).collect();
        assert_eq!(documents, [0..3, 3..4, 4..1004]);
        assert!(matches!(file.document(3), Err(DataError::OutOfRange { .. })));
        let mut ids = vec![9];
        file.get(0..5, &mut ids).unwrap();
        assert_eq!(ids, [1, 2, 65_535, 5, 0]);
        file.get(4..1004, &mut ids).unwrap();
        assert_eq!(ids, long);
        file.get(1004..1004, &mut ids).unwrap();
        assert!(ids.is_empty());
        assert!(matches!(
            file.get(1000..1005, &mut ids),
            Err(DataError::OutOfRange { found: 1004, .. })
        ));
        file.verify().unwrap();
        file.check_for(vocab_size, Some(&HASH)).unwrap();
        file.check_for(65_536, None).unwrap();
        assert!(matches!(
            file.check_for(65_535, None),
            Err(DataError::IdOutOfRange {
                position: 2,
                id: 65_535,
                ..
            })
        ));
        assert!(matches!(
            file.check_for(vocab_size, Some(&[8; 32])),
            Err(DataError::Tokenizer { .. })
        ));
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "no temporary file is left"
        );
    }
}

#[test]
fn every_truncation_is_named() {
    let folder = folder();
    let path = folder.path().join("x.tokens");
    write(&path, 100, &[&[1, 2, 3], &[4, 5]]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    assert_eq!(whole.len(), 256 + 16);
    let cut = folder.path().join("cut.tokens");
    for len in 0..whole.len() {
        std::fs::write(&cut, &whole[..len]).unwrap();
        match TokenFile::open(&cut).unwrap_err() {
            DataError::NotTokens { .. } => assert!(len < 4),
            DataError::Length { found, .. } => assert_eq!(found, len as u64),
            other => panic!("{len}: {other}"),
        }
    }
    std::fs::write(&cut, [&whole[..], &[0]].concat()).unwrap();
    assert!(matches!(
        TokenFile::open(&cut),
        Err(DataError::Length {
            found: 273,
            expected: 272,
            ..
        })
    ));
}

#[test]
fn every_changed_byte_is_found() {
    let folder = folder();
    let path = folder.path().join("x.tokens");
    write(&path, 100, &[&[1, 2, 3], &[4, 5]]).unwrap();
    let whole = std::fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x41;
        std::fs::write(&path, &bytes).unwrap();
        let outcome = TokenFile::open(&path).map(|file| (file.verify(), file.get(0..5, &mut Vec::new())));
        match outcome {
            Err(_) => assert!(at < HEADER, "{at}: opening reads the header alone"),
            Ok((verified, _)) => {
                assert!(
                    at >= HEADER && matches!(verified, Err(DataError::Checksum { part: "content", .. })),
                    "{at}"
                );
            }
        }
    }
}

#[test]
fn damage_without_a_checksum_gives_errors_not_panics() {
    let folder = folder();
    let path = folder.path().join("x.tokens");
    write(&path, 100, &[&[1, 2, 3], &[4, 5]]).unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[HEADER + 2] = 100;
    let second = bytes.len() - 8;
    bytes[second] = 200;
    std::fs::write(&path, bytes).unwrap();
    let file = TokenFile::open(&path).unwrap();
    let id = file.get(0..5, &mut Vec::new());
    assert!(matches!(
        id,
        Err(DataError::IdOutOfRange {
            position: 1,
            id: 100,
            vocab_size: 100,
            ..
        })
    ));
    assert!(matches!(
        file.document(0),
        Err(DataError::Header {
            what: "the document index",
            ..
        })
    ));
    assert!(matches!(file.document(1), Err(DataError::Header { .. })));
}

#[test]
fn headers_that_lie_about_sizes() {
    let header = Header {
        width: 4,
        vocab_size: 10,
        tokenizer: HASH,
        tokens: 0,
        documents: 0,
        source_bytes: 0,
        source_words: 0,
        index_at: HEADER as u64,
        checksum: [0; 32],
    };
    let parse = |header: &Header| Header::parse(Path::new("x"), &header.to_bytes());
    assert_eq!(parse(&header).unwrap(), header);
    assert!(matches!(
        parse(&Header {
            width: 3,
            ..header.clone()
        }),
        Err(DataError::Header { .. })
    ));
    assert!(matches!(
        parse(&Header {
            tokens: u64::MAX,
            ..header.clone()
        }),
        Err(DataError::Header { .. })
    ));
    assert!(matches!(
        parse(&Header {
            tokens: 1 << 62,
            ..header.clone()
        }),
        Err(DataError::Header { .. })
    ));
    assert!(matches!(
        parse(&Header {
            documents: u64::MAX,
            ..header.clone()
        }),
        Err(DataError::Length { .. })
    ));
    let mut future = header.to_bytes();
    future[4] = 4;
    assert!(matches!(
        Header::parse(Path::new("x"), &future),
        Err(DataError::Version { found: 4, .. })
    ));
    // As soon as the version is there it is looked at: a file of a later version may have a shorter header.
    assert!(matches!(
        Header::parse(Path::new("x"), &future[..8]),
        Err(DataError::Version { found: 4, .. })
    ));
    assert!(matches!(
        Header::parse(Path::new("x"), &future[..7]),
        Err(DataError::Length { found: 7, .. })
    ));
}

#[test]
fn token_files_are_told_by_how_they_begin() {
    for (head, expected) in [
        ("1BTK", true),
        ("TKN2", true),
        ("1BTKrest", true),
        ("1BT", false),
        ("", false),
        (" 1BTK", false),
        ("text", false),
    ] {
        assert_eq!(is_tokens(head.as_bytes()), expected, "{head}");
    }
}

#[test]
fn the_older_format() {
    let folder = folder();
    let path = folder.path().join("old.tokens");
    let ids = [3u32, 70_000, 5];
    let mut bytes = b"TKN2".to_vec();
    bytes.extend(3u64.to_le_bytes());
    bytes.extend(ids.iter().flat_map(|id| id.to_le_bytes()));
    std::fs::write(&path, &bytes).unwrap();
    let file = TokenFile::open(&path).unwrap();
    let mut out = Vec::new();
    file.get(0..3, &mut out).unwrap();
    assert_eq!(out, ids);
    assert_eq!(
        (file.vocab_size(), file.documents(), file.document(0).unwrap()),
        (None, 1, 0..3)
    );
    file.check_for(70_001, Some(&HASH)).unwrap();
    assert!(matches!(
        file.check_for(70_000, None),
        Err(DataError::IdOutOfRange { position: 1, .. })
    ));
    for len in 0..bytes.len() {
        std::fs::write(&path, &bytes[..len]).unwrap();
        assert!(TokenFile::open(&path).is_err(), "{len}");
    }
    bytes[4..12].fill(0xff);
    std::fs::write(&path, &bytes).unwrap();
    assert!(matches!(TokenFile::open(&path), Err(DataError::Length { .. })));
}

#[test]
fn nothing_is_left_of_a_file_that_is_not_finished() {
    let folder = folder();
    let path = folder.path().join("x.tokens");
    let mut writer = TokenWriter::create(&path, 10, HASH, false).unwrap();
    assert!(matches!(
        writer.push(&[3, 10]),
        Err(DataError::IdOutOfRange {
            position: 1,
            id: 10,
            ..
        })
    ));
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    write(&path, 10, &[&[1]]).unwrap();
    assert!(matches!(
        TokenWriter::create(&path, 10, HASH, false),
        Err(DataError::Exists { .. })
    ));
    assert!(matches!(
        TokenWriter::create(folder.path().join("no/x"), 10, HASH, false),
        Err(DataError::Io { .. })
    ));
}
