//! SentencePiece models against the ids and texts that SentencePiece 0.2.3 itself gives.
//!
//! `sentencepiece/*.model` were trained on sentences made for this project: Unigram with rules that rewrite characters, and BPE with bytes.

mod common;

use onebit_model::tokenizer::Tokenizer;

type Vectors = Vec<(String, Vec<u32>, String)>;

fn vectors(name: &str) -> Vectors {
    let mut all: std::collections::HashMap<String, Vectors> =
        serde_json::from_str(include_str!("sentencepiece/vectors.json")).unwrap();
    let vectors = all.remove(name).unwrap();
    assert!(vectors.len() > 40);
    vectors
}

fn check(tokenizer: &Tokenizer, name: &str) {
    for (text, ids, decoded) in vectors(name) {
        assert_eq!(tokenizer.encode(&text).unwrap(), ids, "{name}: {text:?}");
        // SentencePiece writes the unknown piece as another mark.
        if !ids.contains(&0) {
            assert_eq!(tokenizer.decode(&ids).unwrap(), decoded, "{name}: {text:?}");
        }
    }
}

#[test]
fn unigram_with_rewriting_rules() {
    let tokenizer = Tokenizer::from_sentencepiece(include_bytes!("sentencepiece/unigram.model")).unwrap();
    check(&tokenizer, "unigram");
    assert_eq!((tokenizer.unknown(), tokenizer.padding()), (Some(0), Some(3)));
    // The rules make one letter of the ligature's two, and a space of a tab.
    assert_eq!(tokenizer.normalize("\tﬁsh…").unwrap(), "▁fish...");
    let error = tokenizer.to_ggml().unwrap_err().to_string();
    assert!(error.contains("Unigram"), "{error}");
}

#[test]
fn bpe_with_bytes() {
    let tokenizer = Tokenizer::from_sentencepiece(include_bytes!("sentencepiece/bpe.model")).unwrap();
    check(&tokenizer, "bpe");
    // The same through a GGUF vocabulary, and from the tokenizer.json alone.
    check(&Tokenizer::from_ggml(&tokenizer.to_ggml().unwrap()).unwrap(), "bpe");
    check(&Tokenizer::from_bytes(tokenizer.json()).unwrap(), "bpe");
    assert!(
        tokenizer
            .encode("a    b")
            .unwrap()
            .contains(&tokenizer.id_of("    ").unwrap())
    );
}

#[test]
fn a_folder_is_read_by_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let error = Tokenizer::from_dir(folder.path()).unwrap_err().to_string();
    assert!(error.contains("neither"), "{error}");
    std::fs::write(
        folder.path().join("tokenizer.model"),
        include_bytes!("sentencepiece/bpe.model"),
    )
    .unwrap();
    let model = Tokenizer::from_file(folder.path()).unwrap();
    check(&model, "bpe");
    let unigram = Tokenizer::from_sentencepiece(include_bytes!("sentencepiece/unigram.model")).unwrap();
    unigram.save(folder.path().join("tokenizer.json")).unwrap();
    check(&Tokenizer::from_dir(folder.path()).unwrap(), "unigram");
    check(
        &Tokenizer::from_file(folder.path().join("tokenizer.model")).unwrap(),
        "bpe",
    );
}

#[test]
fn stories_as_in_the_file_beside_the_model() {
    let Some(dir) = common::model_dir("bitnet-stories-3m") else {
        return;
    };
    let tokenizer = Tokenizer::from_dir(&dir).unwrap();
    check(&tokenizer, "stories");
    assert_eq!(
        (tokenizer.vocab_size(), tokenizer.bos(), tokenizer.eos()),
        (512, Some(1), Some(2))
    );
    let back = Tokenizer::from_ggml(&tokenizer.to_ggml().unwrap()).unwrap();
    for (text, ids, _) in vectors("stories") {
        // A GGUF file cannot say that extra spaces are removed.
        if tokenizer.normalize(&text).unwrap() == format!("▁{}", text.replace(' ', "▁")) {
            assert_eq!(back.encode(&text).unwrap(), ids, "{text:?}");
        }
    }

    // tokenizer.bin: u32 of the longest token, then for each f32 score, u32 length, bytes with plain spaces.
    let bytes = std::fs::read(dir.join("tokenizer.bin")).unwrap();
    let mut rest = &bytes[4..];
    for id in 0..512u32 {
        let length = u32::from_le_bytes(rest[4..8].try_into().unwrap()) as usize;
        let text = std::str::from_utf8(&rest[8..8 + length]).unwrap();
        rest = &rest[8 + length..];
        if id > 2 {
            let token = tokenizer.token_of(id).unwrap();
            assert_eq!(token.replace('▁', " "), text, "{id}");
            if token.starts_with("<0x") {
                // The first of a text would lose a space.
                assert_eq!(tokenizer.decode_bytes(&[3, id]).unwrap(), [0, (id - 3) as u8]);
            }
        }
    }
    assert!(rest.is_empty());
}
