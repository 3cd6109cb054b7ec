//! The text to score: files of every kind that the trainer reads.

use std::path::Path;

use onebit_model::evaluation::count_words;
use onebit_model::tokenizer::Tokenizer;
use onebit_trainer::data::TokenFile;
use onebit_trainer::data::text::Documents;

use super::Corpus;
use crate::progress::Progress;
use crate::{CliError, Result};

/// Whether a file begins like a token file, whatever its name.
fn is_token_file(path: &Path) -> bool {
    use std::io::Read;
    let mut magic = [0; 4];
    let read = std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    let named = path.extension().is_some_and(|e| e == "tokens");
    named || read.is_ok() && (&magic == b"1BTK" || &magic == b"TKN2")
}

/// The text at `path` as tokens.
pub(crate) fn read(path: &Path, tokenizer: &Tokenizer, vocab_size: usize) -> Result<Corpus> {
    // What precedes a text is the end of another; without such a token the first one of the text is context only.
    let mut ids: Vec<u32> = tokenizer.eos().into_iter().collect();
    if path.is_file() && is_token_file(path) {
        let file = TokenFile::open(path)?;
        file.check_for(vocab_size, Some(&tokenizer.fingerprint()))?;
        file.verify()?;
        let mut content = Vec::new();
        file.get(0..file.len(), &mut content)?;
        ids.append(&mut content);
        return Ok(Corpus {
            ids,
            words: file.source_words(),
            bytes: file.source_bytes(),
        });
    }
    let mut documents = Documents::open(&[path.to_path_buf()])?;
    let progress = Progress::new("tokenizing", documents.bytes_total());
    let (mut words, mut bytes, mut text) = (0, 0, String::new());
    while let Some(piece) = documents.next() {
        let piece = piece?;
        text.push_str(&piece.text);
        if !piece.ends_document || text.is_empty() {
            continue;
        }
        bytes += text.len() as u64;
        words += count_words(&text);
        ids.extend(tokenizer.encode(&text)?);
        // As in a token file: each document is ended by one end token.
        if let Some(eos) = tokenizer.eos()
            && ids.last() != Some(&eos)
        {
            ids.push(eos);
        }
        text.clear();
        progress.set(documents.bytes_read(), String::new);
    }
    if bytes == 0 {
        return Err(CliError::Failed(format!(
            "--data: {} holds no text; give a file that holds some",
            path.display()
        )));
    }
    Ok(Corpus {
        ids,
        words: Some(words),
        bytes: Some(bytes),
    })
}
