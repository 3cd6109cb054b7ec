use super::*;

/// A field of a length.
fn bytes(number: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    out.extend(varint(value.len() as u64));
    out.extend(value);
    out
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
    out
}

/// A whole number; field numbers above 15 take two bytes.
fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn piece_of(text: &[u8], score: f32, kind: u64) -> Vec<u8> {
    let score = [&[2 << 3 | 5][..], &score.to_le_bytes()].concat();
    bytes(1, &[bytes(1, text), score, number(3, kind)].concat())
}

/// A BPE model: an unknown piece, `<s>`, `</s>`, a user-defined piece of spaces, letters and merges.
fn model() -> Vec<u8> {
    let mut file = Vec::new();
    let pieces: [(&str, u64); 11] = [
        ("<unk>", 2),
        ("<s>", 3),
        ("</s>", 3),
        ("▁▁▁", 4),
        ("▁a", 1),
        ("ab", 1),
        ("▁ab", 1),
        ("▁", 1),
        ("a", 1),
        ("b", 1),
        ("<pad>", 3),
    ];
    for (id, (text, kind)) in pieces.into_iter().enumerate() {
        file.extend(piece_of(text.as_bytes(), -(id as f32), kind));
    }
    file.extend(bytes(2, &[number(3, 2), number(43, 10)].concat()));
    file.extend(bytes(3, &number(4, 0)));
    file
}

#[track_caller]
fn refused(file: &[u8]) -> SentencePieceError {
    match Tokenizer::from_sentencepiece(file) {
        Err(TokenizerError::SentencePiece(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn settings_reach_the_tokenizer() {
    let tokenizer = Tokenizer::from_sentencepiece(&model()).unwrap();
    let special = (
        tokenizer.bos(),
        tokenizer.eos(),
        tokenizer.unknown(),
        tokenizer.padding(),
    );
    assert_eq!(special, (Some(1), Some(2), Some(0), Some(10)));
    assert_eq!(tokenizer.encode("ab ab").unwrap(), [6, 6]);
    assert_eq!(
        tokenizer.encode("b   b").unwrap(),
        [7, 9, 3, 7, 9],
        "spaces of a user-defined piece"
    );
    assert_eq!(tokenizer.encode("é").unwrap(), [7, 0]);
    assert_eq!(tokenizer.decode(&[7, 9, 3, 9]).unwrap(), "b   b");
    let whole = tokenizer.inner.encode("ab", true).unwrap();
    assert_eq!(
        whole.get_ids(),
        [1, 6],
        "the beginning of a text is part of the template"
    );

    let plain = [model(), bytes(3, &number(3, 0))].concat();
    let plain = Tokenizer::from_sentencepiece(&plain).unwrap();
    assert_eq!(plain.encode("ab b").unwrap(), [5, 7, 9]);
    let single = [model(), bytes(3, &number(4, 1))].concat();
    let single = Tokenizer::from_sentencepiece(&single).unwrap();
    assert_eq!(single.encode("  ab  ab ").unwrap(), [6, 6]);
    let hidden = [model(), bytes(3, &number(5, 0))].concat();
    let hidden = Tokenizer::from_sentencepiece(&hidden).unwrap();
    assert_eq!(
        hidden.encode("ab").unwrap(),
        [0, 5],
        "a space that is not made visible is no piece here"
    );
    // A file may say that there is no such token: -1.
    let none = [model(), bytes(2, &number(41, u64::MAX))].concat();
    assert_eq!(Tokenizer::from_sentencepiece(&none).unwrap().bos(), None);
}

#[test]
fn every_kind_of_damage_has_its_own_error() {
    use SentencePieceError as E;
    assert_eq!(refused(b""), E::Empty);
    let with = |part: Vec<u8>| refused(&[model(), part].concat());
    let end = model().len();
    assert_eq!(
        with(vec![10, 200, 1, 3]),
        E::Truncated {
            offset: end,
            needed: 200,
            left: 1
        }
    );
    assert_eq!(
        with(vec![10, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        E::Truncated {
            offset: end,
            needed: 0xffff_ffff,
            left: 0
        }
    );
    assert_eq!(with(vec![0x80; 11]), E::Varint { offset: end });
    assert_eq!(
        with(vec![8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]),
        E::Varint { offset: end + 1 }
    );
    assert_eq!(
        with(vec![0x80]),
        E::Truncated {
            offset: end,
            needed: 1,
            left: 0
        }
    );
    assert_eq!(
        with(vec![5]),
        E::Tag {
            offset: end,
            field: 0,
            wire_type: 5
        }
    );
    for wire_type in [3, 4, 6, 7] {
        assert_eq!(
            with(vec![8 | wire_type]),
            E::Tag {
                offset: end,
                field: 1,
                wire_type
            }
        );
    }
    assert!(matches!(
        with(vec![8, 1]),
        E::Type {
            field: "a piece",
            found: "a whole number",
            ..
        }
    ));
    assert!(matches!(
        with(vec![9; 9]),
        E::Type {
            found: "eight bytes",
            ..
        }
    ));
    assert!(matches!(
        with(bytes(1, &number(1, 1))),
        E::Type {
            expected: "a string",
            ..
        }
    ));
    assert!(matches!(
        with(bytes(1, &number(2, 1))),
        E::Type {
            expected: "a float",
            ..
        }
    ));
    assert!(matches!(
        with(bytes(1, &bytes(3, b""))),
        E::Type {
            expected: "a whole number",
            ..
        }
    ));
    assert!(matches!(with(piece_of(b"\xff", 0.0, 1)), E::Utf8 { .. }));
    assert_eq!(with(piece_of(b"", 0.0, 1)), E::EmptyPiece { id: 11 });
    assert_eq!(
        with(piece_of(b"x", f32::INFINITY, 1)),
        E::Score {
            id: 11,
            score: f32::INFINITY
        }
    );
    assert!(matches!(with(piece_of(b"x", f32::NAN, 1)), E::Score { id: 11, .. }));
    for code in [0, 7, u64::MAX] {
        assert_eq!(with(piece_of(b"x", 0.0, code)), E::UnknownType { id: 11, code });
    }
    assert_eq!(
        with(piece_of(b"ab", 0.0, 1)),
        E::Duplicate {
            first: 5,
            second: 11,
            piece: "ab".to_owned()
        }
    );
    assert_eq!(
        with(piece_of(b"<0x-1>", 0.0, 6)),
        E::Byte {
            id: 11,
            piece: "<0x-1>".to_owned()
        }
    );
    assert_eq!(
        with(piece_of(&[b'x'; 2000], 0.0, 1)),
        E::TooLong {
            id: 11,
            length: 2000,
            limit: 1024
        }
    );
    assert_eq!(with(piece_of(b"<unk2>", 0.0, 2)), E::Unknown { found: 2 });
    assert_eq!(refused(&piece_of(b"x", 0.0, 1)), E::Unknown { found: 0 });
    for kind in [3, 4, 9] {
        assert!(matches!(with(bytes(2, &number(3, kind))), E::Unsupported { .. }));
    }
    let suffix = with(bytes(2, &number(24, 1)));
    assert_eq!(
        suffix,
        E::Unsupported {
            what: "treat_whitespace_as_suffix"
        }
    );
    assert_eq!(
        with(bytes(5, &bytes(2, b"x"))),
        E::Unsupported { what: "a denormalizer" }
    );
    let table = |table: &[u8]| with(bytes(3, &bytes(2, table)));
    for damaged in [
        &b"x"[..],
        b"\x03\0\0\0abc",
        b"\xff\xff\xff\xfc",
        b"\xfc\xff\xff\xff",
        b"\0\0\0\0",
        b"\x04\0\0\0\0\0\0\0",
    ] {
        assert!(matches!(table(damaged), E::Charsmap { .. }), "{damaged:?}");
    }
}

/// A table with one way, from `a`: a block of 256 units, of which the root leads to place 0.
fn one_way(value: u32) -> Vec<u8> {
    let mut units = [0u32; 256];
    // The unit of `a` has a value below it, at its own place xor 1.
    units[0x61] = 0x61 | 1 << 8 | 1 << 10;
    units[0x60] = 0x8000_0000 | value;
    let mut table = (4 * 256u32).to_le_bytes().to_vec();
    units.iter().for_each(|unit| table.extend(unit.to_le_bytes()));
    table.extend("b\0\u{e9}\0".as_bytes());
    table
}

#[test]
fn tables_of_characters_are_followed_before_they_are_used() {
    let with = |table: Vec<u8>| [model(), bytes(3, &bytes(2, &table))].concat();
    let tokenizer = Tokenizer::from_sentencepiece(&with(one_way(0))).unwrap();
    assert_eq!(tokenizer.normalize("aca").unwrap(), "▁bcb");
    // Place 3 is inside the é, place 40 is outside.
    for value in [3, 40, 0x7fff_ffff] {
        assert!(matches!(
            refused(&with(one_way(value))),
            SentencePieceError::Charsmap { .. }
        ));
    }
    // A way that leaves the block.
    let mut table = one_way(0);
    table[4 + 4 * 0x61 + 2] = 0xff;
    assert!(matches!(refused(&with(table)), SentencePieceError::Charsmap { .. }));
}

#[test]
fn cut_anywhere_and_changed_anywhere_there_is_no_panic() {
    let file = model();
    let mut whole = 0;
    for end in 0..file.len() {
        match Tokenizer::from_sentencepiece(&file[..end]) {
            Ok(_) => whole += 1,
            Err(TokenizerError::SentencePiece(_)) => {}
            Err(error) => panic!("{end}: {error}"),
        }
    }
    assert_eq!(whole, 12, "cut between two of eleven pieces and two settings");
    for at in 0..file.len() {
        for change in [1, 0x80, 0xff] {
            let mut file = file.clone();
            file[at] ^= change;
            match Tokenizer::from_sentencepiece(&file) {
                Ok(tokenizer) => drop(tokenizer.encode("ab ab é").map(|ids| tokenizer.decode(&ids))),
                Err(error) => assert!(matches!(error, TokenizerError::SentencePiece(_)), "{at}: {error}"),
            }
        }
    }
}
