//! The teachers of a run: whether they can teach this model, and what tells one set of them from another.

use onebit_model::network::Network;

use crate::options::TrainOptions;
use crate::{Result, TrainError};

/// A checksum of each teacher, which goes with the options: a run is resumed with the teachers that it had.
pub(super) fn identities(network: &Network, teachers: &[Network], options: &TrainOptions) -> Result<Vec<String>> {
    let refuse = |why: String| Err(TrainError::Option { option: "teacher", why });
    if teachers.is_empty() != (options.teacher_weight == 0.0) {
        return refuse("teachers need a weight above 0, and a weight needs teachers".into());
    }
    let vocabulary = network.config().vocab_size;
    for teacher in teachers {
        let config = teacher.config();
        if config.vocab_size != vocabulary {
            return refuse(format!(
                "has {} tokens and the model {vocabulary}; train it with the same tokenizer",
                config.vocab_size
            ));
        }
        if config.max_position_embeddings < options.seq_len {
            return refuse(format!(
                "reads up to {} tokens; lower --seq-len from {}",
                config.max_position_embeddings, options.seq_len
            ));
        }
    }
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
