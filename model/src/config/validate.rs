//! Which configurations have a model: the checks that stand before any allocation.

use alloc::format;
use alloc::string::ToString;

use super::{ConfigError, LinearMode, ModelConfig, WeightStorage};

/// The largest sizes accepted. They are far above every published model and low enough that no product of a few of
/// them overflows, so that a damaged or hostile file is refused before anything is allocated.
pub mod limits {
    /// Token ids.
    pub const VOCAB_SIZE: usize = 1 << 22;
    /// Width of the residual stream, and of all heads together.
    pub const HIDDEN_SIZE: usize = 1 << 17;
    /// Width inside the feed-forward.
    pub const INTERMEDIATE_SIZE: usize = 1 << 19;
    /// Blocks.
    pub const LAYERS: usize = 1 << 12;
    /// Values per head.
    pub const HEAD_DIM: usize = 1 << 12;
    /// Tokens of context.
    pub const POSITIONS: usize = 1 << 24;
    /// Values of one matrix, so that its bytes as f32, twice, have addresses: it counts on CPUs of 32 bits alone, as 2²⁸.
    pub const MATRIX: u64 = isize::MAX as u64 / 8;
    /// Parameters in all.
    pub const PARAMETERS: u64 = 1 << 41;
    /// The soft-cap of the logits, its least and its most: within it no quotient that could be a logit's is too small for a normal number.
    pub const SOFTCAP: [f32; 2] = [1e-3, 1e6];
    /// Tokens that may end a generation.
    pub const EOS_TOKENS: usize = 64;
}

fn invalid(field: &'static str, expected: impl ToString, found: impl ToString) -> ConfigError {
    ConfigError::Invalid {
        field,
        expected: expected.to_string(),
        found: found.to_string(),
    }
}

fn in_range(field: &'static str, value: usize, most: usize) -> Result<(), ConfigError> {
    if value == 0 || value > most {
        return Err(invalid(field, format!("1 to {most}"), value));
    }
    Ok(())
}

impl ModelConfig {
    /// Checks that the model exists: sizes in range, heads that divide, an even `head_dim`, one entry of `layer_modes`
    /// per block, token ids inside the vocabulary.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with the field, the rule and the value.
    pub fn validate(&self) -> Result<(), ConfigError> {
        in_range("vocab_size", self.vocab_size, limits::VOCAB_SIZE)?;
        in_range("hidden_size", self.hidden_size, limits::HIDDEN_SIZE)?;
        in_range("intermediate_size", self.intermediate_size, limits::INTERMEDIATE_SIZE)?;
        in_range("num_hidden_layers", self.num_hidden_layers, limits::LAYERS)?;
        in_range("num_attention_heads", self.num_attention_heads, limits::HIDDEN_SIZE)?;
        in_range("num_key_value_heads", self.num_key_value_heads, limits::HIDDEN_SIZE)?;
        in_range("head_dim", self.head_dim, limits::HEAD_DIM)?;
        in_range(
            "max_position_embeddings",
            self.max_position_embeddings,
            limits::POSITIONS,
        )?;
        self.validate_heads()?;
        self.validate_matrices(limits::MATRIX)?;
        self.validate_numbers()?;
        self.validate_tokens()?;
        if self.layer_modes.len() != self.num_hidden_layers {
            return Err(invalid(
                "layer_bit_map.layer_modes",
                format!(
                    "one entry for each of {} layers (num_hidden_layers)",
                    self.num_hidden_layers
                ),
                format!("{} entries", self.layer_modes.len()),
            ));
        }
        if self.tie_word_embeddings && self.head_mode != self.embedding_mode {
            return Err(invalid(
                "layer_bit_map.lm_head",
                format!(
                    "{}, the mode of the embedding, which a tied head shares",
                    self.embedding_mode.name()
                ),
                self.head_mode.name(),
            ));
        }
        if self.storage != WeightStorage::Master && !self.uses_mode(LinearMode::Ternary) {
            return Err(invalid(
                "storage",
                "a ternary linear when the weights are packed",
                "no ternary linear",
            ));
        }
        match self.checked_parameter_count() {
            Some(n) if n <= limits::PARAMETERS => Ok(()),
            Some(n) => Err(invalid("parameter count", format!("at most {}", limits::PARAMETERS), n)),
            None => Err(invalid(
                "parameter count",
                format!("at most {}", limits::PARAMETERS),
                "more than 2^64",
            )),
        }
    }

    fn validate_heads(&self) -> Result<(), ConfigError> {
        let (heads, kv, dim) = (self.num_attention_heads, self.num_key_value_heads, self.head_dim);
        if heads % kv != 0 {
            return Err(invalid(
                "num_key_value_heads",
                format!("a divisor of num_attention_heads = {heads}"),
                kv,
            ));
        }
        if dim % 2 != 0 {
            return Err(invalid(
                "head_dim",
                "an even number (rotary embedding turns pairs)",
                dim,
            ));
        }
        match heads.checked_mul(dim) {
            Some(width) if width <= limits::HIDDEN_SIZE => Ok(()),
            _ => Err(invalid(
                "num_attention_heads",
                format!("num_attention_heads · head_dim of at most {}", limits::HIDDEN_SIZE),
                format!("{heads} · {dim}"),
            )),
        }
    }

    /// No matrix, and no table of the rotary embedding, has more than `most` values: sizes are then products that do not overflow, on CPUs of 32 bits too.
    pub(super) fn validate_matrices(&self, most: u64) -> Result<(), ConfigError> {
        let heads = self.query_size();
        for (field, rows, cols) in [
            ("vocab_size", self.vocab_size, self.hidden_size),
            ("intermediate_size", self.intermediate_size, self.hidden_size),
            ("num_attention_heads", heads, self.hidden_size),
            ("max_position_embeddings", self.max_position_embeddings, self.head_dim),
        ] {
            // Rows of packed weights are filled up to a block, and the other linears are these with rows and columns exchanged.
            let filled = |rows: usize, cols: usize| rows as u64 * (cols as u64).next_multiple_of(320);
            let values = filled(rows, cols).max(filled(cols, rows));
            if values > most {
                return Err(invalid(
                    field,
                    format!("a matrix or table of at most {most} values, as this CPU has addresses for"),
                    format!("{rows} · {cols}"),
                ));
            }
        }
        Ok(())
    }

    fn validate_numbers(&self) -> Result<(), ConfigError> {
        let (eps, theta, init) = (self.rms_norm_eps, self.rope_theta, self.initializer_range);
        if !(eps > 0.0 && eps < 1.0) {
            return Err(invalid("rms_norm_eps", "a number between 0 and 1, such as 1e-5", eps));
        }
        if !(1.0..=1e12).contains(&theta) {
            return Err(invalid("rope_theta", "1 to 1e12, such as 10000", theta));
        }
        if !(init > 0.0 && init <= 10.0) {
            return Err(invalid(
                "initializer_range",
                "a number above 0 and up to 10, such as 0.02",
                init,
            ));
        }
        let [least, most] = limits::SOFTCAP;
        if let Some(cap) = self.final_logit_softcapping
            && !(least..=most).contains(&cap)
        {
            let expected = format!("a positive number from {least} to {most}, such as 30, or none");
            return Err(invalid("final_logit_softcapping", expected, cap));
        }
        Ok(())
    }

    fn validate_tokens(&self) -> Result<(), ConfigError> {
        let outside = |id: u32| id as usize >= self.vocab_size;
        if let Some(id) = self.bos_token_id
            && outside(id)
        {
            return Err(invalid(
                "bos_token_id",
                format!("an id below vocab_size = {}", self.vocab_size),
                id,
            ));
        }
        if self.eos_token_ids.len() > limits::EOS_TOKENS {
            let found = format!("{} ids", self.eos_token_ids.len());
            return Err(invalid(
                "eos_token_id",
                format!("at most {} ids", limits::EOS_TOKENS),
                found,
            ));
        }
        match self.eos_token_ids.iter().find(|&&id| outside(id)) {
            Some(id) => Err(invalid(
                "eos_token_id",
                format!("ids below vocab_size = {}", self.vocab_size),
                id,
            )),
            None => Ok(()),
        }
    }
}
