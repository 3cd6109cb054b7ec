//! A model with other modes: what a `layer_bit_map` makes of the weights of another.

use std::collections::BTreeMap;
use std::path::Path;

use half::f16;

use super::{FileError, ModelSource, StoredAs};
use crate::config::{LinearMode, MatrixSite, ModelConfig, WeightStorage};
use crate::runtime::{FloatValues, TensorSource};

/// The tensors of a source under another `layer_bit_map`. A matrix that the source holds in the wanted form already is handed on as it is, bit for bit; of
/// every other the floats that it stands for, which whoever packs or writes quantises as it quantises master weights. What becomes `f16` is rounded to f16.
pub struct Recast<'s> {
    source: &'s dyn ModelSource,
    config: ModelConfig,
    /// The modes that the source's matrices have, and those that they get.
    modes: BTreeMap<String, (LinearMode, LinearMode)>,
}

impl<'s> Recast<'s> {
    /// `source` with the modes that `map` gives its matrices; the rest of `map` is not asked.
    pub fn new(source: &'s dyn ModelSource, map: impl Fn(MatrixSite) -> LinearMode) -> Result<Self, FileError> {
        let mut config = source.config().clone();
        let mut modes = BTreeMap::new();
        for site in source.config().sites() {
            let (name, ..) = config.matrix_at(site);
            let (has, gets) = (held_mode(source, site, &name)?, map(site));
            config.set_mode_at(site, gets);
            modes.insert(name, (has, gets));
        }
        config.storage = WeightStorage::Master;
        Ok(Self { source, config, modes })
    }
}

/// The mode in which a source holds a matrix. Embedding and head in mode `f16` may lie in a file as integers.
pub fn held_mode(source: &dyn ModelSource, site: MatrixSite, name: &str) -> Result<LinearMode, FileError> {
    let mode = source.config().mode_at(site);
    Ok(match (mode, source.stored(name)?) {
        (LinearMode::F16, StoredAs::Int8) => LinearMode::Int8,
        (LinearMode::F16, StoredAs::Int4) => LinearMode::Int4,
        _ => mode,
    })
}

impl ModelSource for Recast<'_> {
    fn path(&self) -> &Path {
        self.source.path()
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn notes(&self) -> &[String] {
        self.source.notes()
    }

    fn stored(&self, name: &str) -> Result<StoredAs, FileError> {
        let stored = self.source.stored(name)?;
        Ok(match self.modes.get(name) {
            Some((_, LinearMode::F16)) => StoredAs::F16,
            Some((has, gets)) if has != gets => StoredAs::F32,
            _ => stored,
        })
    }

    fn tensor(&self, name: &str) -> Result<TensorSource, FileError> {
        let given = self.source.tensor(name)?;
        let Some((has, gets)) = self.modes.get(name) else {
            return Ok(given);
        };
        if has == gets && *gets != LinearMode::F16 {
            return Ok(given);
        }
        let values = given.into_floats().map_err(|other| FileError::Type {
            name: name.to_string(),
            expected: "weights that stand for floats",
            found: other.form().to_string(),
            fix: "use the model that these weights were made from",
        })?;
        Ok(TensorSource::Float(match (gets, values) {
            (LinearMode::F16, values @ FloatValues::F16(_)) => values,
            (LinearMode::F16, values) => FloatValues::F16(values.into_f32().into_iter().map(f16::from_f32).collect()),
            (_, values) => FloatValues::F32(values.into_f32().into()),
        }))
    }
}
