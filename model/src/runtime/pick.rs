//! A model put together from the matrices of others.

use super::RuntimeError;
use super::weights::{Block, PackedModel};
use crate::config::{LinearKind, LinearMode, MatrixSite, ModelConfig};

impl PackedModel {
    /// The model whose matrix at each site is that of `models[choose(site)]`, and whose norms are those of the first: models of one shape that differ in
    /// their `layer_bit_map` alone. Matrices that lie in a mapped file are shared, so that it costs next to nothing. It has no sketch of its head.
    ///
    /// # Errors
    /// [`RuntimeError::Unfit`] if there is no model of that number, or its shape is another.
    pub fn picked(models: &[Self], choose: impl Fn(MatrixSite) -> usize) -> Result<Self, RuntimeError> {
        let wrong = |expected: &str, found: usize| RuntimeError::Unfit {
            what: "the model of a matrix",
            expected: expected.into(),
            found,
        };
        let first = models.first().ok_or_else(|| wrong("at least one model", 0))?;
        let of = |site: MatrixSite| {
            let number = choose(site);
            let model = models
                .get(number)
                .ok_or_else(|| wrong("the number of a model", number))?;
            match same_shape(&first.config, &model.config) {
                true => Ok(model),
                false => Err(wrong("a model of the same shape", number)),
            }
        };
        let mut config = first.config.clone();
        let mut blocks = first.blocks.clone();
        for site in first.config.sites() {
            let from = of(site)?;
            config.set_mode_at(site, from.config.mode_at(site));
            if let MatrixSite::Linear { layer, kind } = site
                && let (Some(to), Some(from)) = (blocks.get_mut(layer), from.blocks.get(layer))
            {
                to.take(kind, from);
            }
        }
        let embedding = of(MatrixSite::Embedding)?.embedding.clone();
        let head = match first.config.tie_word_embeddings {
            true => None,
            false => of(MatrixSite::Head)?.head.clone(),
        };
        Ok(Self {
            config,
            embedding,
            blocks,
            norm: first.norm.clone(),
            head,
            sketch: None,
        })
    }
}

/// Whether two configurations differ in the modes of their matrices at most.
fn same_shape(one: &ModelConfig, other: &ModelConfig) -> bool {
    let plain = |config: &ModelConfig| {
        let mut config = config.clone();
        config.set_all_modes(LinearMode::F16);
        (config.embedding_mode, config.head_mode) = (LinearMode::F16, LinearMode::F16);
        config
    };
    plain(one) == plain(other)
}

impl Block {
    /// Takes over a linear of another block.
    fn take(&mut self, kind: LinearKind, from: &Self) {
        match kind {
            LinearKind::Q => self.q = from.q.clone(),
            LinearKind::K => self.k = from.k.clone(),
            LinearKind::V => self.v = from.v.clone(),
            LinearKind::O => self.o = from.o.clone(),
            LinearKind::Gate => self.gate = from.gate.clone(),
            LinearKind::Up => self.up = from.up.clone(),
            LinearKind::Down => self.down = from.down.clone(),
        }
    }
}
