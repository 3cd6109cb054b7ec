//! The teachers of a run: whether they can teach this model, and what tells one set of them from another.

use onebit_model::config::ModelConfig;
use onebit_model::network::Network;

use crate::options::TrainOptions;
use crate::{Result, TrainError};

/// Whether a `teacher` can teach a `learner` sequences of `seq_len` tokens: it must know the same tokens, and sequences as long.
///
/// # Errors
/// [`TrainError::Option`] if not.
pub fn check_teacher(teacher: &ModelConfig, learner: &ModelConfig, seq_len: usize) -> Result<()> {
    let (words, limit) = (teacher.vocab_size, teacher.max_position_embeddings);
    if words != learner.vocab_size {
        let why = format!(
            "has {words} tokens and the model {}; train it with the same tokenizer",
            learner.vocab_size
        );
        return Err(refused(why));
    }
    if limit < seq_len {
        return Err(refused(format!(
            "reads up to {limit} tokens; lower --seq-len from {seq_len}"
        )));
    }
    Ok(())
}

fn refused(why: String) -> TrainError {
    TrainError::Option { option: "teacher", why }
}

/// A checksum of each teacher, which goes with the options: a run is resumed with the teachers that it had.
pub(super) fn identities(network: &Network, teachers: &[Network], options: &TrainOptions) -> Result<Vec<String>> {
    if teachers.is_empty() != (options.teacher_weight == 0.0) {
        return Err(refused(
            "teachers need a weight above 0, and a weight needs teachers".into(),
        ));
    }
    teachers
        .iter()
        .try_for_each(|teacher| check_teacher(teacher.config(), network.config(), options.seq_len))?;
    teachers.iter().map(identity).collect()
}

fn identity(teacher: &Network) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    for tensor in teacher.named_tensors()? {
        hash.update(tensor.name.as_bytes());
        hash.update(bytemuck::cast_slice(tensor.data));
    }
    Ok(hash.finalize().to_hex().as_str()[..16].to_string())
}
