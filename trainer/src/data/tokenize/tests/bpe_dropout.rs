//! Token files of several passes, each in other tokens.

use onebit_model::tokenizer::{TokenizerError, train_whole_words};

use super::*;

fn dropping(p: f32, seed: u64, passes: u16) -> TokenizeOptions {
    let passes = NonZeroU16::new(passes).unwrap();
    TokenizeOptions {
        dropout: Some(BpeDropoutOptions { p, seed, passes }),
        ..TokenizeOptions::default()
    }
}

/// The ids of a token file of `inputs`.
fn ids(inputs: &[PathBuf], tokenizer: &Tokenizer, output: &Path, options: &TokenizeOptions) -> (Summary, Vec<u32>) {
    let options = TokenizeOptions {
        force: true,
        ..options.clone()
    };
    let go_on = &mut |_: &Progress| ControlFlow::Continue(());
    let summary = tokenize(inputs, tokenizer, output, &options, go_on).unwrap();
    let file = TokenFile::open(output).unwrap();
    file.verify().unwrap();
    file.check_for(tokenizer.vocab_size(), Some(&tokenizer.fingerprint()))
        .unwrap();
    let mut ids = Vec::new();
    file.get(0..file.len(), &mut ids).unwrap();
    (summary, ids)
}

#[test]
fn passes_stand_one_behind_the_other_each_in_other_tokens() {
    let folder = tempfile::tempdir().unwrap();
    // A document that is cut into stretches and pieces, with short ones before and behind it.
    let line = "the cat sat on the mat, and the dog's lobster saw 2009 mats.\n";
    let texts = [
        "a cat".to_owned(),
        line.repeat((5 << 19) / line.len()),
        "the end".to_owned(),
    ];
    let inputs: Vec<PathBuf> = (0..3).map(|i| folder.path().join(format!("{i}.txt"))).collect();
    for (path, text) in inputs.iter().zip(&texts) {
        std::fs::write(path, text).unwrap();
    }
    let tokenizer = train_bpe([line], 330).unwrap();
    let eos = tokenizer.eos().unwrap();
    let output = folder.path().join("x.tokens");
    let (usual, once) = ids(&inputs, &tokenizer, &output, &TokenizeOptions::default());
    let (summary, thrice) = ids(&inputs, &tokenizer, &output, &dropping(0.2, 7, 3));
    assert_eq!(
        (summary.documents, summary.source_bytes, summary.source_words),
        (9, 3 * usual.source_bytes, 3 * usual.source_words)
    );
    assert!(summary.tokens > 3 * usual.tokens);
    let file = TokenFile::open(&output).unwrap();
    let mut passes = Vec::new();
    for pass in 0..3 {
        let mut before = 0;
        let mut all = Vec::new();
        for (i, text) in texts.iter().enumerate() {
            let document = &thrice[file.document(3 * pass + i).unwrap()];
            assert_eq!(tokenizer.decode(document).unwrap(), format!("{text}<|endoftext|>"));
            // Uncut, and wherever the tokens stand in the file: a function of seed, pass and byte.
            let dropout = BpeDropout::new(&tokenizer, 0.2, 7).unwrap();
            let pass = pass as u16;
            let mut whole = dropout.encode(text, Place { pass, byte: before }).unwrap();
            whole.push(eos);
            assert!(document == whole, "pass {pass}, document {i}");
            before += text.len() as u64;
            all.extend(whole);
        }
        assert!(all != once && !passes.contains(&all));
        passes.push(all);
    }
    // One thread, and a file of one pass is the first of three; another seed.
    let threads = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    assert!(threads.install(|| ids(&inputs, &tokenizer, &output, &dropping(0.2, 7, 1)).1) == passes[0]);
    assert!(ids(&inputs, &tokenizer, &output, &dropping(0.2, 8, 1)).1 != passes[0]);
    // Nothing left out: the usual file, twice.
    assert!(ids(&inputs, &tokenizer, &output, &dropping(0.0, 7, 2)).1 == [&once[..], &once].concat());
}

#[test]
fn progress_tells_of_all_passes_and_can_stop_between_them() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = [folder.path().join("a.txt")];
    std::fs::write(&inputs[0], "the cat sat").unwrap();
    let tokenizer = train_bpe(["the cat sat the cat"], 262).unwrap();
    let output = folder.path().join("x.tokens");
    let mut read = Vec::new();
    tokenize(&inputs, &tokenizer, &output, &dropping(0.1, 1, 4), &mut |p| {
        read.push((p.bytes_read, p.bytes_total, p.documents));
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(read, [(11, 44, 1), (22, 44, 2), (33, 44, 3)]);
    std::fs::remove_file(&output).unwrap();
    let stopped = tokenize(&inputs, &tokenizer, &output, &dropping(0.1, 1, 4), &mut |_| {
        ControlFlow::Break(())
    });
    assert!(matches!(stopped, Err(DataError::Interrupted)));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left");
}

#[test]
fn what_has_no_merges_is_refused_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let inputs = [folder.path().join("a.txt")];
    std::fs::write(&inputs[0], "some words").unwrap();
    let output = folder.path().join("x.tokens");
    let bpe = train_bpe(["some words some"], 262).unwrap();
    let words = [
        train_word(["some words"], None).unwrap(),
        train_whole_words(["some words"], 300).unwrap(),
    ];
    let refused = |tokenizer: &Tokenizer, p: f32| {
        let go_on = &mut |_: &Progress| ControlFlow::Continue(());
        match tokenize(&inputs, tokenizer, &output, &dropping(p, 1, 1), go_on).unwrap_err() {
            DataError::Encoding(error) => error,
            other => panic!("{other}"),
        }
    };
    for tokenizer in &words {
        let error = refused(tokenizer, 0.1);
        assert!(matches!(error, TokenizerError::NoBpeDropout { .. }), "{error}");
    }
    assert!(matches!(refused(&bpe, 1.5), TokenizerError::DropoutRate { .. }));
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        1,
        "nothing was written"
    );
}
