//! A model directory read whole, to be compared.

use std::collections::BTreeMap;
use std::path::Path;

use super::*;
use crate::runtime::TensorSource;

/// A ternary matrix: `y = γ · (trits · x)`.
#[derive(Debug, PartialEq)]
pub(in crate::files) struct PackedTernary {
    pub trits: Vec<i8>,
    pub scale: f32,
}

#[derive(Debug, PartialEq)]
pub(in crate::files) enum LoadedLinear {
    Master(MasterTensor),
    Ternary(PackedTernary),
}

#[derive(Debug, PartialEq)]
pub(in crate::files) struct LoadedModel {
    pub config: ModelConfig,
    pub linears: BTreeMap<String, LoadedLinear>,
    pub tensors: BTreeMap<String, MasterTensor>,
}

pub(in crate::files) fn load_model(dir: &Path) -> Result<LoadedModel, FileError> {
    read_whole(&HfDirectory::open(dir)?)
}

pub(in crate::files) fn read_whole(source: &dyn ModelSource) -> Result<LoadedModel, FileError> {
    let (mut linears, mut tensors) = (BTreeMap::new(), BTreeMap::new());
    for spec in source.config().tensors() {
        let stored = source.stored(&spec.name)?;
        match source.tensor(&spec.name)? {
            TensorSource::Trits { values, scale } => {
                assert_eq!(stored, StoredAs::Trits, "{}", spec.name);
                assert_eq!(values.len(), spec.len(), "{}", spec.name);
                linears.insert(spec.name, LoadedLinear::Ternary(PackedTernary { trits: values, scale }));
            }
            TensorSource::Float(values) => {
                assert_eq!(values.len(), spec.len(), "{}", spec.name);
                let tensor = MasterTensor::new(spec.shape, values);
                match spec.kind {
                    crate::config::TensorKind::Linear(_) => {
                        linears.insert(spec.name, LoadedLinear::Master(tensor));
                    }
                    _ => {
                        tensors.insert(spec.name, tensor);
                    }
                }
            }
            other => panic!("{}: {other:?}", spec.name),
        }
    }
    Ok(LoadedModel {
        config: source.config().clone(),
        linears,
        tensors,
    })
}
