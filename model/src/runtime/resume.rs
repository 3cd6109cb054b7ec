//! The residual stream of a text, looked at between blocks, and taken up again at one of them: what changes in block 7 is nothing new to blocks 0 to 6.

use core::ops::Deref;

use super::{Executor, PackedModel, RuntimeError, Session};

/// Where a pass begins.
#[derive(Clone, Copy, Debug)]
pub struct Resume<'a> {
    /// Blocks that have been passed.
    pub blocks: usize,
    /// The residual stream behind them, `[tokens, hidden_size]`.
    pub stream: &'a [f32],
}

impl<M: Deref<Target = PackedModel>, E: Executor> Session<M, E> {
    /// Reads the whole text `ids`, which is as long as the context at most, from its beginning, and forgets it again: the blocks behind `from`, or all. `behind(n, first, stream)` is
    /// told of the residual stream of some tokens, `first` and those after it, behind `n` blocks (0: the embedding), and `each(i, logits)` of the logits after `ids[i]`.
    ///
    /// The bits are those of [`prefill_all`](Self::prefill_all) over a model with the same matrices behind `from`.
    ///
    /// # Errors
    /// As [`prefill`](Self::prefill); [`RuntimeError::Unfit`] for a stream of another length.
    pub fn pass_from(
        &mut self,
        ids: &[u32],
        from: Option<Resume<'_>>,
        mut behind: impl FnMut(usize, usize, &[f32]) + Send,
        mut each: impl FnMut(usize, &[f32]),
    ) -> Result<(), RuntimeError> {
        self.reset();
        self.check(ids)?;
        let config = self.model().config();
        let (hidden, blocks) = (config.hidden_size, config.num_hidden_layers);
        if let Some(from) = from
            && (from.stream.len() != ids.len() * hidden || from.blocks > blocks)
        {
            return Err(RuntimeError::Unfit {
                what: "the residual stream",
                expected: format!("{} values", ids.len() * hidden),
                found: from.stream.len(),
            });
        }
        let chunk = self.options().chunk.max(1);
        for (number, ids) in ids.chunks(chunk).enumerate() {
            let first = number * chunk;
            let told = &mut behind;
            self.pass(ids, |pass, buffers| {
                let values = ids.len() * hidden;
                match from {
                    Some(from) => buffers.x[..values].copy_from_slice(&from.stream[first * hidden..][..values]),
                    None => {
                        pass.embed(ids, buffers);
                        told(0, first, &buffers.x[..values]);
                    }
                }
                let passed = from.map_or(0, |from| from.blocks);
                for (layer, block) in pass.model.blocks().iter().enumerate().skip(passed) {
                    pass.block(layer, block, buffers);
                    told(layer + 1, first, &buffers.x[..values]);
                }
            });
            self.each_row(ids.len(), None, |i, logits, _| each(first + i, logits));
        }
        self.reset();
        Ok(())
    }
}
