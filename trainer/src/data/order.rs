//! Which windows a run sees: from the whole corpus as one stream, or from the start of each document.

use std::ops::Range;

use onebit_engine::rng::Key;

use super::{DataError, Result, TokenFile, WindowOrder, permute};

const PURPOSE: u32 = 0x646f_6373;

/// Where windows begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alignment {
    /// Anywhere: the corpus is one stream.
    Stream,
    /// At the start of a document, so that nothing of another stands before it. What a short document leaves of the window is
    /// filled by the one behind it.
    Documents,
}

/// The shuffled order of training windows; a pure function of (seed, index), like [`WindowOrder`].
#[derive(Clone, Debug)]
pub enum Order {
    /// See [`Alignment::Stream`].
    Stream(WindowOrder),
    /// See [`Alignment::Documents`]: where each usable document begins.
    Documents {
        /// First tokens.
        starts: Vec<usize>,
        /// Tokens of a window's input.
        seq_len: usize,
        /// Seed of the order.
        seed: u64,
    },
}

impl Order {
    /// The order for `tokens` in windows of `seq_len` inputs.
    ///
    /// # Errors
    /// [`DataError::WindowTooLong`] if no window fits; a damaged document index.
    pub fn new(tokens: &TokenFile, seq_len: usize, alignment: Alignment, seed: u64) -> Result<Self> {
        let stream = WindowOrder::new(tokens.len(), seq_len, seed)?;
        if alignment == Alignment::Stream {
            return Ok(Order::Stream(stream));
        }
        let starts = document_starts(tokens, seq_len)?;
        if starts.is_empty() {
            let needed = seq_len as u64 + 1;
            return Err(DataError::WindowTooLong {
                tokens: tokens.len() as u64,
                needed,
                seq_len,
            });
        }
        Ok(Order::Documents { starts, seq_len, seed })
    }

    /// Windows in one epoch.
    pub fn windows_per_epoch(&self) -> u64 {
        match self {
            Order::Stream(order) => order.windows_per_epoch(),
            Order::Documents { starts, .. } => starts.len() as u64,
        }
    }

    /// The tokens of the `global_index`-th window since the start of training: `seq_len + 1` of them.
    pub fn window(&self, global_index: u64) -> Range<usize> {
        match self {
            Order::Stream(order) => order.window(global_index),
            Order::Documents { starts, seq_len, seed } => {
                let (epoch, index) = (global_index / starts.len() as u64, global_index % starts.len() as u64);
                let key = Key::new(*seed, PURPOSE, epoch);
                let start =
                    starts[permute(index, starts.len() as u64, |counter, bound| key.below(counter, bound)) as usize];
                start..start + seq_len + 1
            }
        }
    }
}

/// Windows in their order in the file, for validation: one after another, or one for each document.
///
/// # Errors
/// As [`Order::new`].
pub fn windows_in_order(tokens: &TokenFile, seq_len: usize, alignment: Alignment) -> Result<Vec<Range<usize>>> {
    let starts = match alignment {
        Alignment::Stream => (0..tokens.len().saturating_sub(1) / seq_len.max(1))
            .map(|i| i * seq_len)
            .collect(),
        Alignment::Documents => document_starts(tokens, seq_len)?,
    };
    Ok(starts.into_iter().map(|start| start..start + seq_len + 1).collect())
}

/// Where the documents begin that leave room for a window.
fn document_starts(tokens: &TokenFile, seq_len: usize) -> Result<Vec<usize>> {
    let mut starts = Vec::with_capacity(tokens.documents());
    for index in 0..tokens.documents() {
        let start = tokens.document(index)?.start;
        if start + seq_len < tokens.len() {
            starts.push(start);
        }
    }
    Ok(starts)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::super::TokenWriter;
    use super::*;

    fn file(directory: &std::path::Path, lengths: &[usize]) -> TokenFile {
        let path = directory.join("documents.tokens");
        let mut writer = TokenWriter::create(&path, 100, [0; 32], true).unwrap();
        for (i, &n) in lengths.iter().enumerate() {
            writer.push(&vec![i as u32; n]).unwrap();
            writer.end_document();
        }
        writer.finish(1, 1).unwrap()
    }

    #[test]
    fn windows_begin_where_documents_do() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = file(dir.path(), &[7, 3, 9, 5, 2]);
        let order = Order::new(&tokens, 6, Alignment::Documents, 1).unwrap();
        // The last document begins at 24 of 26 tokens, the one before it at 19: seven tokens are there for it, two for the last.
        assert_eq!(order.windows_per_epoch(), 4);
        for epoch in 0..5 {
            let seen: HashSet<usize> = (0..4).map(|i| order.window(4 * epoch + i).start).collect();
            assert_eq!(seen, HashSet::from([0, 7, 10, 19]));
        }
        assert!((0..4).all(|i| order.window(i).len() == 7));
        let fixed = windows_in_order(&tokens, 6, Alignment::Documents).unwrap();
        assert_eq!(fixed.iter().map(|r| r.start).collect::<Vec<_>>(), [0, 7, 10, 19]);
    }

    #[test]
    fn a_stream_is_the_window_order() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = file(dir.path(), &[50, 50]);
        let (a, b) = (
            Order::new(&tokens, 8, Alignment::Stream, 3).unwrap(),
            WindowOrder::new(100, 8, 3).unwrap(),
        );
        assert!((0..40).all(|i| a.window(i) == b.window(i)));
        let fixed = windows_in_order(&tokens, 8, Alignment::Stream).unwrap();
        assert_eq!((fixed.len(), fixed[11].clone()), (12, 88..97));
        assert!(Order::new(&tokens, 100, Alignment::Documents, 3).is_err());
    }
}
