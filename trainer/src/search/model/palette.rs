//! Every matrix of a model in every width.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use onebit_model::config::{LinearMode, MatrixSite, ModelConfig};
use onebit_model::files::{
    FileError, ModelSource, OneFile, OneFileOptions, Parts, Recast, StoredAs, held_mode, one_file_bytes, save_one_file,
};
use onebit_model::runtime::{LoadError, PackedModel, TensorSource};

use crate::search::{Candidate, Choice, Site, Sites, Width};
use crate::{Result, TrainError};

/// The uniform models of a source, mapped from files.
#[derive(Debug)]
pub struct Palette {
    sites: Vec<MatrixSite>,
    widths: Vec<Width>,
    models: Vec<PackedModel>,
    /// What the source holds its matrices in, as far as it is one of the widths, else the widest.
    held: Candidate,
    hash: String,
}

impl Palette {
    /// Opens the palette of `source` in `folder`, or makes what is missing of it. `progress(done, total)` is told in bytes.
    ///
    /// # Errors
    /// No width, or one that is listed twice; those of the source and of writing; a file in the folder that is none of a palette.
    pub fn open(
        source: &dyn ModelSource,
        folder: &Path,
        widths: &[Width],
        progress: &dyn Fn(u64, u64),
    ) -> Result<Self> {
        let twice = |(i, width): (usize, &Width)| widths[..i].contains(width);
        if widths.is_empty() || widths.iter().enumerate().any(twice) {
            return Err(TrainError::Option {
                option: "widths",
                why: "give at least one width, none of them twice".into(),
            });
        }
        std::fs::create_dir_all(folder).map_err(|source| TrainError::Io {
            path: folder.into(),
            source,
            action: "check the permissions there",
        })?;
        let hash = content_hash(source)?;
        let total = widths.len() as u64;
        let mut models = Vec::new();
        for (at, width) in widths.iter().enumerate() {
            let path = folder.join(format!("{}-{}.1bit", &hash[..16], width.name()));
            let told = |done: u64, of: u64| progress(at as u64 * of + done, total * of);
            models.push(uniform(source, *width, &path, &told)?);
        }
        let sites = source.config().sites();
        let held = held(source, &sites, widths)?;
        Ok(Palette {
            sites,
            widths: widths.to_vec(),
            models,
            held,
            hash,
        })
    }

    /// The matrices, in the order of a map.
    pub fn sites(&self) -> &[MatrixSite] {
        &self.sites
    }

    /// The widths, in the order of a map's digits.
    pub fn widths(&self) -> &[Width] {
        &self.widths
    }

    /// The model's configuration, in whatever modes.
    pub fn config(&self) -> &ModelConfig {
        self.models[0].config()
    }

    /// A hash of the source's weights and sizes.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// A short name for something that is made of a map with such options and such a text: equal names for what is equal.
    pub fn name_of(&self, map: &Candidate, options: &str, ids: &[u32]) -> String {
        let mut hash = blake3::Hasher::new();
        hash.update(format!("{} {map} {options}", self.hash).as_bytes());
        ids.iter().for_each(|id| {
            hash.update(&id.to_le_bytes());
        });
        hash.finalize().to_hex()[..16].to_string()
    }

    /// The map that the source itself has, as far as the widths go.
    pub fn held(&self) -> &Candidate {
        &self.held
    }

    /// The number of the width that a map gives to a matrix; 0 for one that it does not have.
    fn number_at(&self, map: &Candidate, site: MatrixSite) -> usize {
        let at = self.sites.iter().position(|other| *other == site);
        at.and_then(|at| map.choices().get(at))
            .map_or(0, |&number| usize::from(number))
    }

    /// The model of a map.
    ///
    /// # Errors
    /// None for a map of these sites and widths.
    pub fn model(&self, map: &Candidate) -> Result<PackedModel> {
        Ok(PackedModel::picked(&self.models, |site| self.number_at(map, site))?)
    }

    /// The model's configuration under a map.
    pub fn config_of(&self, map: &Candidate) -> ModelConfig {
        let mut config = self.config().clone();
        for (site, number) in self.sites.iter().zip(map.choices()) {
            if let Some(width) = self.widths.get(usize::from(*number)) {
                config.set_mode_at(*site, *width);
            }
        }
        config
    }
}

/// What headers tell of a source, which any thread may ask.
struct Headers {
    path: PathBuf,
    config: ModelConfig,
    stored: BTreeMap<String, StoredAs>,
}

impl ModelSource for Headers {
    fn path(&self) -> &Path {
        &self.path
    }

    fn config(&self) -> &ModelConfig {
        &self.config
    }

    fn notes(&self) -> &[String] {
        &[]
    }

    fn stored(&self, name: &str) -> std::result::Result<StoredAs, FileError> {
        self.stored.get(name).copied().ok_or_else(|| self.missing(name))
    }

    /// No header holds values.
    fn tensor(&self, name: &str) -> std::result::Result<TensorSource, FileError> {
        Err(self.missing(name))
    }
}

impl Headers {
    fn missing(&self, name: &str) -> FileError {
        FileError::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            suggestion: None,
        }
    }
}

/// What a map weighs as a file: what [`save_one_file`] then writes of it with [`OneFileOptions::SMALLEST`], to the byte.
pub struct Weighing<'a> {
    headers: Headers,
    parts: Parts<'a>,
}

impl<'a> Weighing<'a> {
    /// Of a source and of what goes into a file beside its weights.
    ///
    /// # Errors
    /// Those of the source's headers.
    pub fn new(source: &dyn ModelSource, parts: Parts<'a>) -> Result<Self> {
        let names = source.config().tensors().into_iter().map(|spec| spec.name);
        let stored = names.map(|name| Ok::<_, FileError>((name.clone(), source.stored(&name)?)));
        Ok(Weighing {
            headers: Headers {
                path: source.path().into(),
                config: source.config().clone(),
                stored: stored.collect::<std::result::Result<_, FileError>>()?,
            },
            parts,
        })
    }

    /// Bytes of the file of these modes.
    ///
    /// # Errors
    /// None for a source that could be opened.
    pub fn bytes(&self, mode: impl Fn(MatrixSite) -> LinearMode) -> Result<u64> {
        let recast = Recast::new(&self.headers, mode)?;
        one_file_bytes(&recast, &OneFileOptions::SMALLEST, &self.parts).map_err(load)
    }

    /// What each matrix of a palette may be and how many bytes more than its smallest width that takes, the rest of the file beside it. Widths of a matrix that take as many bytes as a wider one, which
    /// padding can do, stay: the loss decides.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn sites(&self, palette: &Palette) -> Result<Sites> {
        let widest = palette.widths[0];
        let alone = |site: MatrixSite, width: Width| self.bytes(|other| if other == site { width } else { widest });
        let mut least = Vec::new();
        let mut sites = Vec::new();
        for &site in &palette.sites {
            let bytes = { palette.widths.iter() }
                .map(|width| alone(site, *width))
                .collect::<Result<Vec<u64>>>()?;
            let (at, fewest) = { bytes.iter().enumerate() }
                .min_by_key(|(_, bytes)| **bytes)
                .map_or((0, 0), |(i, b)| (i, *b));
            least.push(at as u8);
            let (name, ..) = palette.config().matrix_at(site);
            let choices = palette.widths.iter().zip(&bytes);
            sites.push(Site {
                name,
                choices: choices
                    .map(|(&width, bytes)| Choice {
                        width,
                        bytes: bytes - fewest,
                    })
                    .collect(),
            });
        }
        let base = palette.config_of(&Candidate::new(least));
        Ok(Sites::new(sites, self.bytes(|site| base.mode_at(site))?)?)
    }
}

fn load(error: LoadError) -> TrainError {
    match error {
        LoadError::Files(error) => TrainError::Files(error),
        LoadError::Runtime(error) => TrainError::from(error),
    }
}

/// The model whose matrices are all of one width, from its file, which is written first if it is not there.
fn uniform(source: &dyn ModelSource, width: Width, path: &Path, progress: &dyn Fn(u64, u64)) -> Result<PackedModel> {
    if !path.exists() {
        let recast = Recast::new(source, |_| width)?;
        save_one_file(path, &recast, &OneFileOptions::SMALLEST, &Parts::default(), progress).map_err(load)?;
    }
    Ok(OneFile::open(path)?.model()?)
}

/// The width that the source has at each site, or the widest where it has none of the palette.
fn held(source: &dyn ModelSource, sites: &[MatrixSite], widths: &[Width]) -> Result<Candidate> {
    let number = |site: &MatrixSite| -> Result<u8> {
        let (name, ..) = source.config().matrix_at(*site);
        let mode = held_mode(source, *site, &name)?;
        Ok(widths.iter().position(|width| *width == mode).unwrap_or(0) as u8)
    };
    Ok(Candidate::new(sites.iter().map(number).collect::<Result<Vec<u8>>>()?))
}

/// A hash of a model's sizes, modes and weights, whatever file they lie in.
fn content_hash(source: &dyn ModelSource) -> Result<String> {
    let mut hash = blake3::Hasher::new();
    hash.update(source.config().to_json().as_bytes());
    for spec in source.config().tensors() {
        hash.update(spec.name.as_bytes());
        hash.update(format!("{:?}", source.stored(&spec.name)?).as_bytes());
        let floats = source.tensor(&spec.name)?.into_floats();
        let floats = floats.map_err(|_| TrainError::Runtime(format!("{}: is no tensor of a file", spec.name)))?;
        for value in floats.into_f32() {
            hash.update(&value.to_le_bytes());
        }
    }
    Ok(hash.finalize().to_hex().to_string())
}
