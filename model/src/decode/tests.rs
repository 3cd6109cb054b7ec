//! The loop over a sequence whose logits are known: after token `t`, `t + 1` is the most likely.

use alloc::vec;
use alloc::vec::Vec;

use super::{DecodeError, Drawn, TokenLoop};
use crate::runtime::{RuntimeError, Sequence, Top};
use crate::sampling::{Sampler, SamplingParams};

const VOCAB: usize = 8;
const CONTEXT: usize = 6;

struct Counting {
    position: usize,
    logits: Vec<f32>,
}

impl Counting {
    fn read(&mut self, id: u32) -> &[f32] {
        self.position += 1;
        self.logits.fill(0.0);
        self.logits[(id as usize + 1) % VOCAB] = 2.0;
        self.logits[(id as usize + 2) % VOCAB] = 1.0;
        &self.logits
    }
}

impl Sequence for Counting {
    type Error = DecodeError;

    fn vocab_size(&self) -> usize {
        VOCAB
    }

    fn context(&self) -> usize {
        CONTEXT
    }

    fn truncate(&mut self, position: usize) {
        self.position = self.position.min(position);
    }

    fn prefill_top(&mut self, ids: &[u32], _: Option<Top<'_>>) -> Result<&[f32], DecodeError> {
        let Some((&last, before)) = ids.split_last() else {
            return Err(RuntimeError::EmptyInput.into());
        };
        assert!(self.position + ids.len() <= CONTEXT, "never more than the context");
        self.position += before.len();
        Ok(self.read(last))
    }

    fn prefill_all_top(
        &mut self,
        ids: &[u32],
        _: Option<Top<'_>>,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), DecodeError> {
        assert!(self.position + ids.len() <= CONTEXT, "never more than the context");
        ids.iter().enumerate().for_each(|(i, &id)| each(i, self.read(id)));
        Ok(())
    }

    fn snapshot_bytes(&self, _: usize) -> Option<usize> {
        None
    }

    fn snapshot(&self, _: usize, _: impl FnMut(&[u8])) -> Result<(), DecodeError> {
        Ok(())
    }

    fn restore(&mut self, _: usize, _: usize, _: &[u8]) -> Result<(), DecodeError> {
        Ok(())
    }
}

fn counting(unused: &[u32], ends: &[u32]) -> TokenLoop<Counting> {
    let session = Counting {
        position: 0,
        logits: vec![0.0; VOCAB],
    };
    TokenLoop::new(session, 0, unused.to_vec(), ends.to_vec())
}

fn greedy() -> Sampler {
    Sampler::new(SamplingParams::greedy(), VOCAB).unwrap()
}

fn next(tokens: &mut TokenLoop<Counting>) -> Option<Drawn> {
    tokens.next::<DecodeError>(&mut greedy(), true, |_| {}).unwrap()
}

fn drawn(id: u32, ends: bool, shifted: usize) -> Option<Drawn> {
    Some(Drawn { id, ends, shifted })
}

#[test]
fn an_end_token_is_told_and_an_unused_one_never_drawn() {
    let mut tokens = counting(&[2], &[4]);
    tokens.begin(&[0], 10);
    // 2 would come after 1, and is skipped.
    assert_eq!(
        [(); 3].map(|()| next(&mut tokens)),
        [drawn(1, false, 0), drawn(3, false, 0), drawn(4, true, 0)]
    );
    tokens.suppress(&[5]);
    tokens.begin(&[4], 10);
    assert_eq!(next(&mut tokens), drawn(6, false, 0));
    let mut seen = Vec::new();
    tokens.begin(&[4], 10);
    tokens
        .next::<DecodeError>(&mut greedy(), true, |logits| seen.extend_from_slice(logits))
        .unwrap();
    assert_eq!(
        seen,
        [0.0, 0.0, f32::NEG_INFINITY, 0.0, 0.0, f32::NEG_INFINITY, 1.0, 0.0]
    );
}

#[test]
fn a_full_context_slides_or_ends_the_answer() {
    let mut tokens = counting(&[], &[]);
    tokens.begin(&[0, 1, 2], 10);
    let ids = |tokens: &mut TokenLoop<Counting>, count: usize| (0..count).map(|_| next(tokens)).collect::<Vec<_>>();
    // Six are held when the seventh token comes; the most recent three are read again.
    let all = ids(&mut tokens, 6);
    assert_eq!(
        all[..4],
        [
            drawn(3, false, 0),
            drawn(4, false, 0),
            drawn(5, false, 0),
            drawn(6, false, 0)
        ]
    );
    assert_eq!(all[4..], [drawn(7, false, 4), drawn(0, false, 0)]);
    assert_eq!(tokens.reader().held(), [4, 5, 6, 7]);

    tokens.stop_at_context_end();
    tokens.begin(&[0, 1, 2], 10);
    assert_eq!(ids(&mut tokens, 5)[3..], [drawn(6, false, 0), None]);
}

#[test]
fn of_a_long_prompt_the_most_recent_tokens_are_read() {
    let mut tokens = counting(&[], &[]);
    let prompt = [0, 1, 2, 3, 4, 5, 6, 7, 0, 1];
    assert_eq!(tokens.fitting(&prompt, 2), [6, 7, 0, 1]);
    assert_eq!(tokens.fitting(&prompt, 100), [7, 0, 1]);
    tokens.begin(&prompt, 2);
    assert_eq!(next(&mut tokens), drawn(2, false, 0));
    assert_eq!(tokens.reader().held(), [6, 7, 0, 1]);
    tokens.begin(&[], 2);
    let error = tokens.next::<DecodeError>(&mut greedy(), true, |_| {}).unwrap_err();
    assert_eq!(error, DecodeError::Runtime(RuntimeError::EmptyInput));
}
