mod bpe_dropout;

use onebit_model::tokenizer::{train_bpe, train_word};

use super::*;
use crate::data::TokenFile;

fn shared(file: &str) -> Option<PathBuf> {
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared");
    let path = Path::new(&std::env::var("ONEBIT_TESTDATA").unwrap_or_else(|_| default.into())).join(file);
    if !path.exists() {
        eprintln!(
            "SKIPPED (no test data): {} is absent; set ONEBIT_TESTDATA",
            path.display()
        );
    }
    path.exists().then_some(path)
}

fn run(inputs: &[PathBuf], tokenizer: &Tokenizer, output: &Path) -> Result<(Summary, TokenFile, Vec<u32>)> {
    let summary = tokenize(inputs, tokenizer, output, &TokenizeOptions::default(), &mut |_| {
        ControlFlow::Continue(())
    })?;
    let file = TokenFile::open(output)?;
    file.verify()?;
    file.check_for(tokenizer.vocab_size(), Some(&tokenizer.fingerprint()))?;
    let mut ids = Vec::new();
    file.get(0..file.len(), &mut ids)?;
    Ok((summary, file, ids))
}

#[test]
fn documents_words_and_ids() {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = train_bpe(["the cat sat on the mat"], 270).unwrap();
    let eos = tokenizer.eos().unwrap();
    let texts = ["the cat\n\n sat", "", "on the mat\n", "the end<|endoftext|>"];
    let inputs: Vec<PathBuf> = (0..4).map(|i| folder.path().join(format!("{i}.txt"))).collect();
    for (path, text) in inputs.iter().zip(texts) {
        std::fs::write(path, text).unwrap();
    }
    let (summary, file, ids) = run(&inputs, &tokenizer, &folder.path().join("x.tokens")).unwrap();
    assert_eq!(file.documents(), 3, "a document without text is none");
    for (i, text) in [texts[0], texts[2], texts[3]].into_iter().enumerate() {
        let document = &ids[file.document(i).unwrap()];
        let expected = tokenizer.encode(text).unwrap();
        let with_end = if expected.last() == Some(&eos) {
            expected
        } else {
            [expected, vec![eos]].concat()
        };
        assert_eq!(document, with_end);
    }
    // "the cat", "", " sat": 3 words and 3 lines; "on the mat": 3 and 1; "the end<|endoftext|>": 2 and 1.
    assert_eq!((summary.source_words, summary.source_bytes), (13, 44));
    assert_eq!(texts.map(count_words), [6, 0, 4, 3]);
    assert_eq!((file.source_bytes(), file.source_words()), (Some(44), Some(13)));
    assert_eq!((summary.tokens, summary.documents), (ids.len() as u64, 3));
}

#[test]
fn pieces_do_not_change_ids() {
    let folder = tempfile::tempdir().unwrap();
    let words = [
        "the ",
        "cat's ",
        "\n",
        "\n\n ",
        "  ",
        "<unk> ",
        "12 ",
        "漢字",
        ". \n = A = \n \n ",
    ];
    let mut state = 1u32;
    let mut text = String::new();
    while text.len() < 9 << 19 {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text += words[(state >> 16) as usize % words.len()];
    }
    let path = folder.path().join("long.txt");
    std::fs::write(&path, &text).unwrap();
    let tokenizer = train_bpe([&text[..text.floor_char_boundary(100_000)]], 300).unwrap();
    let mut calls = 0;
    let output = folder.path().join("x.tokens");
    let inputs = [path.clone(), path];
    tokenize(&inputs, &tokenizer, &output, &TokenizeOptions::default(), &mut |p| {
        calls += 1;
        assert!(p.bytes_read <= p.bytes_total && p.tokens > 0);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert!(calls > 0);
    let file = TokenFile::open(&output).unwrap();
    let mut ids = Vec::new();
    file.get(file.document(1).unwrap(), &mut ids).unwrap();
    assert_eq!(ids.pop(), tokenizer.eos());
    // `encode` cuts long texts too; a batch of one does not.
    assert!(ids == tokenizer.encode_batch(&[&text]).unwrap()[0]);
    assert_eq!(file.source_words(), Some(2 * count_words(&text)));
}

#[test]
fn words_of_a_closed_vocabulary() {
    let folder = tempfile::tempdir().unwrap();
    let text = " \n = A = \n \n b <unk> c .";
    let path = folder.path().join("a.txt");
    std::fs::write(&path, text).unwrap();
    let tokenizer = train_word([text], None).unwrap();
    let (summary, _, ids) = run(std::slice::from_ref(&path), &tokenizer, &folder.path().join("x.tokens")).unwrap();
    assert_eq!(
        ids.len() as u64,
        summary.source_words,
        "each word and each line's end, also the last, is a token"
    );
    assert_eq!((summary.source_words, summary.unknown), (11, 1));
    // Words outside the vocabulary are counted, not refused.
    std::fs::write(&path, "= whale =\n").unwrap();
    let (summary, ..) = run(&[path], &tokenizer, &folder.path().join("y.tokens")).unwrap();
    assert_eq!((summary.tokens, summary.unknown, summary.documents), (4, 1, 1));
}

#[test]
fn a_tokenizer_that_loses_text_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "aaa bbb Ccc\n").unwrap();
    // Lower case cannot be undone, but the normaliser says so: words are compared as it writes them.
    let json = r#"{"version":"1.0","added_tokens":[],"normalizer":{"type":"Lowercase"},"pre_tokenizer":{"type":"Whitespace"},
        "decoder":null,"model":{"type":"WordLevel","vocab":{"[U]":0,"aaa":1,"bbb":2,"ccc":3},"unk_token":"[U]"}}"#;
    let lower = Tokenizer::from_bytes(json).unwrap();
    assert_eq!(
        run(std::slice::from_ref(&path), &lower, &folder.path().join("x.tokens"))
            .unwrap()
            .2,
        [1, 2, 3]
    );
    // A word that comes back as another one is an error at its first byte.
    let wrong = json.replace(
        r#""decoder":null"#,
        r#""decoder":{"type":"Sequence","decoders":[{"type":"WordPiece","prefix":" ","cleanup":false},
        {"type":"Replace","pattern":{"String":"bbb"},"content":"xxx"}]}"#,
    );
    let wrong = Tokenizer::from_bytes(wrong).unwrap();
    let output = folder.path().join("y.tokens");
    match run(std::slice::from_ref(&path), &wrong, &output).unwrap_err() {
        DataError::RoundTrip {
            offset: 4, expected, ..
        } => assert_eq!(expected, "bbb Ccc\n"),
        other => panic!("{other}"),
    }
    let loose = TokenizeOptions {
        verify: false,
        ..TokenizeOptions::default()
    };
    tokenize(&[path], &wrong, &output, &loose, &mut |_| ControlFlow::Continue(())).unwrap();
}

#[test]
fn what_cannot_be_done_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.txt");
    std::fs::write(&path, "some words").unwrap();
    let tokenizer = train_bpe(["x"], 257).unwrap();
    let output = folder.path().join("x.tokens");
    let go = |input: &str, options: &TokenizeOptions| {
        let inputs = [folder.path().join(input)];
        tokenize(
            &inputs,
            &tokenizer,
            &output,
            options,
            &mut |_| ControlFlow::Continue(()),
        )
    };
    let long = TokenizeOptions {
        seq_len: Some(11),
        ..TokenizeOptions::default()
    };
    assert!(matches!(
        go("a.txt", &long),
        Err(DataError::WindowTooLong { tokens: 11, .. })
    ));
    assert!(matches!(go("b.txt", &long), Err(DataError::Io { .. })));
    std::fs::write(folder.path().join("empty.txt"), "").unwrap();
    assert!(matches!(
        go("empty.txt", &TokenizeOptions::default()),
        Err(DataError::NoText { .. })
    ));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        2,
        "no output, no temporary file"
    );
    go(
        "a.txt",
        &TokenizeOptions {
            seq_len: Some(10),
            ..TokenizeOptions::default()
        },
    )
    .unwrap();
    assert!(matches!(
        go("a.txt", &TokenizeOptions::default()),
        Err(DataError::Exists { .. })
    ));
    go(
        "a.txt",
        &TokenizeOptions {
            force: true,
            ..TokenizeOptions::default()
        },
    )
    .unwrap();

    std::fs::write(&path, "word\n".repeat(4 << 20)).unwrap();
    let forced = TokenizeOptions {
        force: true,
        ..TokenizeOptions::default()
    };
    let stopped = tokenize(&[path], &tokenizer, &output, &forced, &mut |_| ControlFlow::Break(()));
    assert!(matches!(stopped, Err(DataError::Interrupted)));
    assert_eq!(TokenFile::open(&output).unwrap().len(), 11, "the old file stands");
}

#[test]
fn wikitext_and_parquet_shards() {
    let folder = tempfile::tempdir().unwrap();
    if let Some(valid) = shared("data/wikitext-2/valid.txt") {
        let text = std::fs::read_to_string(&valid).unwrap();
        let words = train_word([&text], None).unwrap();
        let (summary, ..) = run(std::slice::from_ref(&valid), &words, &folder.path().join("w.tokens")).unwrap();
        assert_eq!(
            (summary.tokens, summary.source_words, summary.source_bytes),
            (217_646, 217_646, 1_121_681)
        );
        let bpe = train_bpe([&text], 1024).unwrap();
        let start = std::time::Instant::now();
        let (summary, _, ids) = run(&[valid], &bpe, &folder.path().join("b.tokens")).unwrap();
        eprintln!(
            "{} bytes to {} tokens, checked, in {:?}",
            text.len(),
            ids.len(),
            start.elapsed()
        );
        assert_eq!((summary.source_words, summary.documents), (217_646, 1));
        assert_eq!(bpe.decode(&ids[..ids.len() - 1]).unwrap(), text);
    }
    if let Some(shards) = shared("fakehub/root") {
        let bpe = train_bpe(["fn main() { println!(); }"], 270).unwrap();
        let (summary, file, _) = run(&[shards], &bpe, &folder.path().join("p.tokens")).unwrap();
        assert!(summary.documents > 10 && file.documents() as u64 == summary.documents);
    }
}
