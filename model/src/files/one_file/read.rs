//! From a file to a packed model that lies in it.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytemuck::Pod;
use half::{bf16, f16};
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, t2};
use safetensors::Dtype;

use super::{
    ALIGNMENT, CHECKSUM_LEN, ENTRIES, FORMAT, PADDING, PARTS, SCALES, SKETCH, TOKENIZER_JSON, TOKENIZER_PACKED, VERSION,
};
use crate::chat::ChatTemplate;
use crate::config::json::{Parsed, nearest};
use crate::config::{LinearMode, LinearShape, ModelConfig, TensorKind, TensorSpec, json};
use crate::files::{FileError, GenerationConfig, MappedFile, Weights};
use crate::runtime::{
    FloatMatrix, FloatStorage, FloatValues, HeadSketch, Linear, PackedModel, Pool, RowFigures, RuntimeError,
    SharedBytes, TensorSource, Values,
};
use crate::tokenizer::Tokenizer;

/// A one-file model, its header read and its texts checked.
#[derive(Debug)]
pub struct OneFile {
    path: PathBuf,
    bytes: SharedBytes,
    weights: Weights,
    parsed: Parsed,
    generation: Option<GenerationConfig>,
}

impl OneFile {
    /// Maps a file.
    ///
    /// # Errors
    /// [`FileError::Io`], [`FileError::Header`] for a damaged container, [`FileError::Part`] or [`FileError::Config`] for one of something
    /// else, or of a later version.
    pub fn open(path: &Path) -> Result<Self, FileError> {
        let map = MappedFile::open(path).map_err(|source| FileError::Io {
            action: "open",
            path: path.to_path_buf(),
            source,
        })?;
        Self::from_shared(SharedBytes::new(Arc::new(map)), path)
    }

    /// Reads a file that is in memory already, such as one that is part of the program; `label` stands for its path in errors.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn from_shared(bytes: SharedBytes, label: &Path) -> Result<Self, FileError> {
        let weights = Weights::from_shared(bytes.clone(), label)?;
        let path = label.to_path_buf();
        let refuse = |part: &str, problem: String| FileError::Part {
            path: path.clone(),
            part: part.to_string(),
            problem,
        };
        let entry = |name: &str| weights.metadata().get(name).map(String::as_str);
        for (name, expected) in [("format", FORMAT), ("version", VERSION)] {
            if entry(name) != Some(expected) {
                let found = entry(name).map_or("nothing".to_string(), |text| format!("{text:.40?}"));
                return Err(refuse(name, format!("expected \"{expected}\", found {found}")));
            }
        }
        if let Some(unknown) = weights.metadata().keys().find(|key| !ENTRIES.contains(&key.as_str())) {
            return Err(refuse(
                unknown,
                format!("no entry of a one-file model of version {VERSION}"),
            ));
        }
        let config = entry("config").ok_or_else(|| refuse("config", "is missing".to_string()))?;
        let parsed = json::parse(config).map_err(|source| FileError::Config {
            path: path.clone(),
            source,
        })?;
        let generation = entry("generation_config")
            .map(GenerationConfig::from_json)
            .transpose()
            .map_err(|error| refuse("generation_config", error.to_string()))?;
        Ok(Self {
            path,
            bytes,
            weights,
            parsed,
            generation,
        })
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.parsed.config
    }

    /// What the configuration's reader wants said.
    pub fn notes(&self) -> &[String] {
        &self.parsed.notes
    }

    /// Recommended sampling settings.
    pub fn generation(&self) -> Option<&GenerationConfig> {
        self.generation.as_ref()
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> usize {
        self.bytes.bytes().len()
    }

    /// The names and bytes of the tensors that are no weights: scales, sketch of the head, tokenizer.
    pub fn parts(&self) -> impl Iterator<Item = (&str, usize)> {
        let part = |name: &'static str| Some((name, self.weights.get(name)?.bytes.len()));
        let sketch = SKETCH.into_iter().flat_map(|(plane, figures)| [plane, figures]);
        std::iter::once(SCALES).chain(PARTS).chain(sketch).filter_map(part)
    }

    /// The chat template, or the default one if the file has none.
    ///
    /// # Errors
    /// [`FileError::Part`] for a text that is no template.
    pub fn chat_template(&self) -> Result<ChatTemplate, FileError> {
        let entry = |name: &str| self.weights.metadata().get(name).map_or("", String::as_str);
        if !self.weights.metadata().contains_key("chat_template") {
            return Ok(ChatTemplate::fallback());
        }
        let origin = self.path.display().to_string();
        ChatTemplate::from_text(entry("chat_template"), &origin, entry("bos_token"), entry("eos_token"))
            .map_err(|error| self.refuse("chat_template", error.to_string()))
    }

    /// The bytes of the model's `tokenizer.json`, if it has one.
    pub fn tokenizer_json(&self) -> Option<&[u8]> {
        Some(self.weights.get(TOKENIZER_JSON)?.bytes)
    }

    /// The tokenizer: from its packed form, which is looked up in where it lies, or else from its JSON.
    ///
    /// # Errors
    /// [`FileError::Part`] if there is none or it cannot be used.
    pub fn tokenizer(&self) -> Result<Tokenizer, FileError> {
        let refuse = |part, error: crate::tokenizer::TokenizerError| self.refuse(part, error.to_string());
        let Some(json) = self.bytes_of(TOKENIZER_JSON)? else {
            return Err(self.refuse(TOKENIZER_JSON, "the file has no tokenizer".to_string()));
        };
        match self.bytes_of(TOKENIZER_PACKED)? {
            Some(packed) => Tokenizer::from_packed(packed, json).map_err(|error| refuse(TOKENIZER_PACKED, error)),
            None => Tokenizer::from_bytes(&*json).map_err(|error| refuse(TOKENIZER_JSON, error)),
        }
    }

    /// The model, its weights where they lie in the file.
    ///
    /// # Errors
    /// [`FileError::Part`] that names the tensor: missing, unknown, of another type or shape, misplaced; a scale that is none.
    pub fn model(&self) -> Result<PackedModel, FileError> {
        self.model_as(FloatStorage::Stored)
    }

    /// As [`model`](Self::model), with embedding and head in another type than the file's: they are then copies. The sketch of the head is
    /// left out where the head is another.
    ///
    /// # Errors
    /// As [`model`](Self::model), and for values that cannot be in that type.
    pub fn model_as(&self, storage: FloatStorage) -> Result<PackedModel, FileError> {
        let config = self.config();
        let linears: Vec<LinearShape> = (0..config.num_hidden_layers)
            .flat_map(|layer| config.linears(layer).collect::<Vec<_>>())
            .collect();
        let specs: Vec<TensorSpec> = config.tensors();
        let ternary = |mode| matches!(mode, LinearMode::Ternary | LinearMode::Binary);
        let parts = PartsOf {
            file: self,
            unused: RefCell::new(self.weights.names().collect()),
        };
        let count = linears.iter().filter(|linear| ternary(linear.mode)).count();
        let scales: Values<f32> = parts.values(SCALES, Dtype::F32, &[count])?;
        let mut scales = scales.iter().copied();
        // Both lists are in the order in which the model asks.
        let mut linears = linears.iter().peekable();
        let specs: BTreeMap<&str, &TensorSpec> = specs.iter().map(|spec| (spec.name.as_str(), spec)).collect();
        let mut model = PackedModel::from_parts_as_they_are(config.clone(), storage, |name| {
            let shape = linears.next_if(|linear| linear.name == name);
            let Some(shape) = shape.filter(|linear| linear.mode != LinearMode::F16) else {
                let Some(spec) = specs.get(name) else {
                    return Err(Refused::Runtime(RuntimeError::TensorForm {
                        name: name.to_string(),
                        expected: "a tensor of the configuration",
                        found: "none",
                    }));
                };
                let floats = match spec.kind {
                    TensorKind::Norm => FloatValues::F32(parts.values(name, Dtype::F32, &spec.shape)?),
                    _ => parts.floats(name, &spec.shape)?,
                };
                return Ok(TensorSource::Float(floats));
            };
            let linear = match ternary(shape.mode) {
                true => parts.ternary(shape, scales.next().unwrap_or_default())?,
                false => parts.integers(shape)?,
            };
            Ok(TensorSource::Ready(linear))
        })
        .map_err(|refused| match refused {
            Refused::File(error) => error,
            Refused::Runtime(error) => self.refuse("the model", error.to_string()),
        })?;
        let sketch = parts.sketch(config.vocab_size, config.hidden_size)?;
        model.take_sketch(sketch.filter(|_| model.head().values.is_shared()));
        parts.finish()?;
        Ok(model)
    }

    /// Reads the whole file: its checksum, every code, every float. What this accepts is what was exported.
    ///
    /// # Errors
    /// [`FileError::Part`] with what is not as it should be.
    pub fn verify(&self) -> Result<(), FileError> {
        let recorded = self.weights.metadata().get("checksum").map_or("", String::as_str);
        let refused = |problem: &str| self.refuse("checksum", problem.to_string());
        let bytes = self.bytes.bytes();
        let length = bytes.first_chunk::<8>().map_or(0, |n| u64::from_le_bytes(*n));
        let (header, data) = bytes
            .split_at_checked(usize::try_from(length).unwrap_or(usize::MAX).saturating_add(8))
            .ok_or_else(|| refused("the file is shorter than its header"))?;
        let hex = recorded.len() == CHECKSUM_LEN && recorded.bytes().all(|b| b.is_ascii_hexdigit());
        let place = header
            .windows(CHECKSUM_LEN)
            .position(|window| window == recorded.as_bytes());
        let Some(place) = place.filter(|_| hex) else {
            return Err(refused("is missing or no checksum"));
        };
        let mut hasher = blake3::Hasher::new();
        hasher.update(&header[..place]);
        hasher.update(&[b'0'; CHECKSUM_LEN]);
        hasher.update(&header[place + CHECKSUM_LEN..]);
        hasher.update(data);
        if hasher.finalize().to_hex().as_str() != recorded {
            return Err(refused("the bytes are not those that were written"));
        }
        let model = self.model()?;
        if let Some(name) = not_finite(&model) {
            return Err(self.refuse(
                name,
                "holds a value that is not finite, or an integer outside ±127".to_string(),
            ));
        }
        for (layer, block) in model.blocks().iter().enumerate() {
            for (shape, linear) in model.config().linears(layer).zip(block.linears()) {
                if let Some(problem) = flaw(shape.mode, linear) {
                    return Err(self.refuse(&shape.name, problem.to_string()));
                }
            }
        }
        if let Some(sketch) = model.sketch() {
            let threads = std::thread::available_parallelism().map_or(1, usize::from);
            let pool = Pool::new(threads).map_err(|e| self.refuse("the model", e.to_string()))?;
            if HeadSketch::build(&pool, Isa::best(), model.head()).as_ref() != Some(sketch) {
                return Err(self.refuse(SKETCH[0].0, "is not the sketch of this head".to_string()));
            }
        }
        if let (Some(packed), Some(json)) = (self.bytes_of(TOKENIZER_PACKED)?, self.tokenizer_json()) {
            let tokenizer = Tokenizer::from_bytes(json).map_err(|e| self.refuse(TOKENIZER_JSON, e.to_string()))?;
            if tokenizer.pack().is_none_or(|bytes| bytes != *packed) {
                return Err(self.refuse(TOKENIZER_PACKED, format!("is not what {TOKENIZER_JSON} says")));
            }
        }
        Ok(())
    }

    /// The bytes of an optional part.
    fn bytes_of(&self, part: &str) -> Result<Option<Values<u8>>, FileError> {
        let Some(view) = self.weights.get(part) else {
            return Ok(None);
        };
        let shape = view.shape.to_vec();
        let parts = PartsOf {
            file: self,
            unused: RefCell::default(),
        };
        Ok(Some(parts.values(part, Dtype::U8, &shape)?))
    }

    fn refuse(&self, part: &str, problem: String) -> FileError {
        FileError::Part {
            path: self.path.clone(),
            part: part.to_string(),
            problem,
        }
    }
}

/// Why a tensor could not be given to the model.
enum Refused {
    File(FileError),
    Runtime(RuntimeError),
}

impl From<FileError> for Refused {
    fn from(error: FileError) -> Self {
        Self::File(error)
    }
}

impl From<RuntimeError> for Refused {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

/// The tensors of a file as views of it, and those not asked for yet.
struct PartsOf<'f> {
    file: &'f OneFile,
    unused: RefCell<BTreeSet<&'f str>>,
}

impl PartsOf<'_> {
    /// The values of a tensor of this type and shape.
    fn values<T: Pod>(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Values<T>, FileError> {
        let refuse = |problem| Err(self.file.refuse(name, problem));
        let weights = &self.file.weights;
        let (Some(view), Some((bytes, range))) = (weights.get(name), weights.place(name)) else {
            let spare = self.unused.borrow();
            let hint = nearest(name, spare.iter().copied());
            let hint = hint.map_or_else(String::new, |name| format!(" (did you mean {name}?)"));
            return refuse(format!("is missing{hint}"));
        };
        self.unused.borrow_mut().remove(name);
        if view.dtype != dtype {
            return refuse(format!("expected {dtype:?}, found {:?}", view.dtype));
        }
        if view.shape != shape {
            return refuse(format!("expected shape {shape:?}, found {:?}", view.shape));
        }
        if range.start % ALIGNMENT != 0 {
            return refuse(format!(
                "begins at byte {}, which is no multiple of {ALIGNMENT}",
                range.start
            ));
        }
        match bytes.view(range) {
            Some(values) => Ok(values),
            None => refuse("does not lie in memory as this machine reads it".to_string()),
        }
    }

    /// A float matrix of whichever type.
    fn floats(&self, name: &str, shape: &[usize]) -> Result<FloatValues, FileError> {
        if let [rows, cols] = *shape
            && self.file.weights.get(name).is_none()
            && self.file.weights.get(&format!("{name}.i8")).is_some()
        {
            let (values, steps) = self.int8(name, rows, cols)?;
            return Ok(FloatValues::Int8 { values, steps });
        }
        Ok(match self.file.weights.get(name).map(|view| view.dtype) {
            Some(Dtype::F16) => FloatValues::F16(self.values::<f16>(name, Dtype::F16, shape)?),
            Some(Dtype::BF16) => FloatValues::Bf16(self.values::<bf16>(name, Dtype::BF16, shape)?),
            _ => FloatValues::F32(self.values(name, Dtype::F32, shape)?),
        })
    }

    fn ternary(&self, shape: &LinearShape, scale: f32) -> Result<Linear, FileError> {
        let named = |layout: Layout| format!("{}.{}", shape.name, layout.name());
        let there = |layout: &Layout| self.file.weights.get(&named(*layout)).is_some();
        let layout = Layout::ALL.into_iter().find(there).unwrap_or_default();
        let (rows, cols) = (shape.rows, shape.cols);
        let group = layout.group_bytes(cols);
        let packed = self.values(
            &named(layout),
            Dtype::U8,
            &[layout.bytes(rows, cols) / group.max(1), group],
        )?;
        if !(scale.is_finite() && scale > 0.0) {
            let problem = format!("expected a positive finite scale for {}, found {scale}", shape.name);
            return Err(self.file.refuse(SCALES, problem));
        }
        Ok(Linear::Ternary {
            rows,
            cols,
            layout,
            packed,
            scale,
            columns: None,
        })
    }

    fn integers(&self, shape: &LinearShape) -> Result<Linear, FileError> {
        let (rows, cols) = (shape.rows, shape.cols);
        let (values, steps) = self.int8(&shape.name, rows, cols)?;
        Ok(Linear::Int8 {
            rows,
            cols,
            values,
            steps,
        })
    }

    /// Bytes `[rows, cols]` and a step for each row.
    fn int8(&self, name: &str, rows: usize, cols: usize) -> Result<(Values<i8>, Values<f32>), FileError> {
        Ok((
            self.values(&format!("{name}.i8"), Dtype::I8, &[rows, cols])?,
            self.values(&format!("{name}.steps"), Dtype::F32, &[rows])?,
        ))
    }

    /// The sketch of a head `[rows, cols]`, if the file has one.
    fn sketch(&self, rows: usize, cols: usize) -> Result<Option<HeadSketch>, FileError> {
        let there = |name: &str| self.file.weights.get(name).is_some();
        let [(first, _), ..] = SKETCH;
        if !SKETCH.iter().any(|(plane, figures)| there(plane) || there(figures)) {
            return Ok(None);
        }
        let plane = |names: (&str, &str)| {
            let groups = [rows.div_ceil(t2::GROUP_ROWS), t2::group_bytes(cols)];
            Ok::<_, FileError>((
                self.values(names.0, Dtype::U8, &groups)?,
                self.values(names.1, Dtype::F32, &[rows, RowFigures::LEN])?,
            ))
        };
        let [one, two] = SKETCH;
        match HeadSketch::from_parts(rows, cols, [plane(one)?, plane(two)?]) {
            Some(sketch) => Ok(Some(sketch)),
            None => Err(self.file.refuse(
                first,
                "is no sketch: its figures must be finite and not below zero, and the width of the head one that can be rotated".to_string(),
            )),
        }
    }

    /// Refuses what nobody asked for, other than optional parts and padding.
    fn finish(self) -> Result<(), FileError> {
        for name in self.unused.take() {
            if PARTS.contains(&name) {
                continue;
            }
            let padding = |bytes: &[u8]| bytes.len() < ALIGNMENT && bytes.iter().all(|byte| *byte == 0);
            let view = self.file.weights.get(name);
            if !name.starts_with(PADDING) {
                return Err(self
                    .file
                    .refuse(name, format!("is no part of such a model in version {VERSION}")));
            }
            if !view.is_some_and(|view| view.dtype == Dtype::U8 && padding(view.bytes)) {
                let problem = format!("expected less than {ALIGNMENT} zero bytes of padding");
                return Err(self.file.refuse(name, problem));
            }
        }
        Ok(())
    }
}

/// What a linear holds that its mode does not allow.
fn flaw(mode: LinearMode, linear: &Linear) -> Option<&'static str> {
    match linear {
        Linear::Ternary {
            layout: Layout::T2,
            packed,
            ..
        } if !t2::is_valid(packed) => Some("holds a code that stands for no weight"),
        Linear::Int8 { values, .. } => {
            let most = if mode == LinearMode::Int4 { 7 } else { 127 };
            let outside = values.iter().any(|value| value.unsigned_abs() > most);
            outside.then_some("holds an integer outside the range of its mode")
        }
        Linear::Float(matrix) if !all_finite(&matrix.values) => Some("holds a value that is not finite"),
        _ => None,
    }
}

fn all_finite(values: &FloatValues) -> bool {
    match values {
        FloatValues::F32(values) => values.iter().all(|v| v.is_finite()),
        FloatValues::F16(values) => values.iter().all(|v| v.is_finite()),
        FloatValues::Bf16(values) => values.iter().all(|v| v.is_finite()),
        FloatValues::Int8 { values, steps } => steps.iter().all(|v| v.is_finite()) && !values.contains(&i8::MIN),
    }
}

/// The embedding, the head or the norms, if a value in them is NaN or infinite.
fn not_finite(model: &PackedModel) -> Option<&'static str> {
    let finite = |matrix: &FloatMatrix| all_finite(&matrix.values);
    let norm = |values: &[f32]| values.iter().all(|v| v.is_finite());
    let norms = model.blocks().iter().flat_map(|block| block.norms()).all(|w| norm(w)) && norm(model.norm());
    [
        ("model.embed_tokens.weight", finite(model.embedding())),
        ("lm_head.weight", finite(model.head())),
        ("the norms", norms),
    ]
    .into_iter()
    .find_map(|(name, good)| (!good).then_some(name))
}
