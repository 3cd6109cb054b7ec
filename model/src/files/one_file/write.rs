//! From any source to a file, one tensor in memory at a time.
//!
//! The header is known before the first value is read: types and shapes follow from the configuration, from the options and from the form in
//! which the source holds embedding, head and float linears. γ of each linear is known when the linear has been quantised, so the scales, which
//! stand first, are written last; the checksum is made from the file once it is whole.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use bytemuck::cast_slice;
use onebit_kernels_cpu::Isa;
use onebit_kernels_cpu::ternary::Layout;

use super::plan::{Item, items, metadata, plan};
use super::{ALIGNMENT, CHECKSUM_LEN, COLUMNS, PADDING, SCALES, SKETCH, TOKENIZER_JSON, TOKENIZER_PACKED};
use crate::chat::ChatTemplate;
use crate::config::{FeedForward, LinearKind, LinearMode, LinearShape, ModelConfig};
use crate::files::atomic::replace_file;
use crate::files::stream::{TensorFile, refused};
use crate::files::{FileError, GenerationConfig, ModelSource, PartProblem};
use crate::runtime::{
    FloatMatrix, FloatStorage, FloatValues, HeadSketch, Linear, LinearSite, LoadError, Pool, RuntimeError, norm,
    smallest, table,
};

/// What goes into the file beside the model; each may be left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Parts<'a> {
    /// The bytes of `tokenizer.json`.
    pub tokenizer: Option<&'a [u8]>,
    /// The same as [`Tokenizer::pack`](crate::tokenizer::Tokenizer::pack) gives it.
    pub packed_tokenizer: Option<&'a [u8]>,
    /// Recommended sampling settings.
    pub generation: Option<&'a GenerationConfig>,
    /// The chat template, with the tokens that it may name.
    pub chat_template: Option<&'a ChatTemplate>,
}

/// How ternary and binary linears lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TernaryLayout {
    /// All in this layout; `b1`, which not every such linear fits, is as [`Smallest`](Self::Smallest).
    All(Layout),
    /// Each in the one of the fewest bytes: `t5`, or `t2` where rows are so short that padding would eat the gain.
    Smallest,
}

/// How a model is to lie in the file.
#[derive(Clone, Copy, Debug)]
pub struct OneFileOptions {
    /// Layout of the ternary and binary linears.
    pub layout: TernaryLayout,
    /// Type of embedding and head, and of linears in mode `f16` as far as it is a float type.
    pub storage: FloatStorage,
    /// Whether ternary and binary `down_proj`s lie there by columns too. It has no effect after SwiGLU, where there is nothing to skip.
    pub columns: bool,
    /// Heads of more than so many bytes get a [sketch](HeadSketch), if they can have one; `None`: no head does.
    pub sketch_above: Option<usize>,
    /// Threads that make the sketch.
    pub threads: usize,
}

impl Default for OneFileOptions {
    fn default() -> Self {
        Self {
            layout: TernaryLayout::Smallest,
            storage: FloatStorage::Stored,
            columns: false,
            sketch_above: Some(Self::SKETCH_ABOVE),
            threads: 1,
        }
    }
}

impl OneFileOptions {
    /// As small as a file of given modes can be: what is high precision is f16, and nothing is there twice.
    pub const SMALLEST: Self = Self {
        layout: TernaryLayout::Smallest,
        storage: FloatStorage::F16,
        columns: false,
        sketch_above: None,
        threads: 1,
    };
    /// Bytes of a head from which on a sketch is worth its room.
    pub const SKETCH_ABOVE: usize = 2 << 20;

    /// The layout of a matrix of trits with rows of `cols`.
    pub(super) fn layout_of(&self, mode: LinearMode, cols: usize) -> Layout {
        match (mode, self.layout) {
            (LinearMode::Binary, _) => Layout::B1,
            (_, TernaryLayout::All(layout)) if layout.has_zero() => layout,
            _ => smallest(cols),
        }
    }

    /// Whether such a linear lies there by columns too.
    pub(super) fn with_columns(&self, config: &ModelConfig, linear: &LinearShape) -> bool {
        let useful = linear.kind == LinearKind::Down && config.feed_forward != FeedForward::SwiGlu;
        self.columns && useful && linear.mode == LinearMode::Ternary
    }
}

fn write_matrix(file: &mut TensorFile<'_>, name: &str, matrix: &FloatMatrix) -> Result<(), FileError> {
    match &matrix.values {
        FloatValues::F32(values) => file.put(name, cast_slice(values)),
        FloatValues::F16(values) => file.put(name, cast_slice(values)),
        FloatValues::Bf16(values) => file.put(name, cast_slice(values)),
        FloatValues::Int8 { values, steps } => {
            file.put(&format!("{name}.i8"), cast_slice(values))?;
            file.put(&format!("{name}.steps"), cast_slice(steps))
        }
        FloatValues::Int4 { codes, steps, .. } => {
            file.put(&format!("{name}.i4"), codes)?;
            file.put(&format!("{name}.steps"), cast_slice(steps))
        }
        FloatValues::Trits { layout, packed, .. } => file.put(&format!("{name}.{}", layout.name()), packed),
    }
}

/// Writes a linear and gives its γ, if it has one.
fn write_linear(
    file: &mut TensorFile<'_>,
    name: &str,
    linear: &Linear,
    columns: bool,
) -> Result<Option<f32>, FileError> {
    match linear {
        Linear::Ternary {
            layout, packed, scale, ..
        } => {
            file.put(&format!("{name}.{}", layout.name()), packed)?;
            if let Some(lines) = columns.then(|| linear.make_columns()).flatten() {
                file.put(&format!("{name}{COLUMNS}"), cast_slice(&lines))?;
            }
            Ok(Some(*scale))
        }
        Linear::Int8 { values, steps, .. } => {
            file.put(&format!("{name}.i8"), cast_slice(values))?;
            file.put(&format!("{name}.steps"), cast_slice(steps))?;
            Ok(None)
        }
        Linear::Int4 { codes, steps, .. } => {
            file.put(&format!("{name}.i4"), codes)?;
            file.put(&format!("{name}.steps"), cast_slice(steps))?;
            Ok(None)
        }
        Linear::Float(matrix) => write_matrix(file, name, matrix).map(|()| None),
    }
}

/// Writes the sketch of a head.
fn write_sketch(file: &mut TensorFile<'_>, head: &FloatMatrix, threads: usize) -> Result<(), LoadError> {
    let Some(sketch) = HeadSketch::build(&Pool::new(threads)?, Isa::best(), head) else {
        return Err(LoadError::Runtime(RuntimeError::TensorValue {
            name: "the head".to_string(),
            expected: "finite weights",
        }));
    };
    for ((plane, figures), names) in sketch.parts().zip(SKETCH) {
        file.put(names.0, plane)?;
        file.put(names.1, cast_slice(figures))?;
    }
    Ok(())
}

/// Writes all tensors.
fn write(
    file: &mut TensorFile<'_>,
    source: &dyn ModelSource,
    options: &OneFileOptions,
    items: &[Item],
    sketched: bool,
) -> Result<(), LoadError> {
    // Every path gives the same bits, so the fastest will do.
    let isa = Isa::best();
    let config = source.config();
    let mut scales = Vec::new();
    for (at, item) in items.iter().enumerate() {
        match item {
            Item::Norm(spec) => {
                let values = norm(&spec.name, spec.len(), source.tensor(&spec.name)?)?;
                file.put(&spec.name, cast_slice(&values))?;
            }
            Item::Linear(shape) => {
                let site = LinearSite {
                    name: shape.name.clone(),
                    rows: shape.rows,
                    cols: shape.cols,
                    mode: shape.mode,
                };
                let mut linear = site.build(isa, options.storage, source.tensor(&shape.name)?)?;
                linear.lay_out(options.layout_of(shape.mode, shape.cols));
                scales.extend(write_linear(
                    file,
                    &shape.name,
                    &linear,
                    options.with_columns(config, shape),
                )?);
            }
            Item::Table(spec) => {
                let sizes = (config.vocab_size, config.hidden_size);
                let mode = spec.mode(config);
                let given = source.tensor(&spec.name)?;
                let mut matrix = table(isa, (mode, options.storage), &spec.name, sizes, given)?;
                matrix.lay_out(options.layout_of(mode, sizes.1));
                write_matrix(file, &spec.name, &matrix)?;
                if let FloatValues::Trits { scale, .. } = matrix.values {
                    scales.push(scale);
                }
                // The last one is the head, whether tied or not.
                if sketched && at + 1 == items.len() {
                    write_sketch(file, &matrix, options.threads)?;
                }
            }
        }
    }
    Ok(file.put(SCALES, cast_slice(&scales))?)
}

/// Writes a model as one file under a temporary name that is renamed once it is on disk. The same model, options and parts give the same bytes.
/// The tensors come from `source` one at a time: what is in memory at once is about three times the largest of them.
/// `progress(done, total)` is told in bytes, each counted twice: as written, and for the checksum.
///
/// # Errors
/// Those of the source and of the runtime; [`FileError::Io`]; [`FileError::Part`] on a machine with the other byte order.
pub fn save_one_file(
    path: &Path,
    source: &dyn ModelSource,
    options: &OneFileOptions,
    parts: &Parts<'_>,
    progress: &dyn Fn(u64, u64),
) -> Result<(), LoadError> {
    if cfg!(target_endian = "big") {
        return Err(LoadError::Files(FileError::Part {
            path: path.to_path_buf(),
            part: "every tensor".to_string(),
            problem: PartProblem::NotInPlace,
        }));
    }
    let config = source.config();
    config.validate().map_err(RuntimeError::from)?;
    let items = items(config);
    let (plan, sketched) = plan(source, options, parts, &items)?;
    let header = plan.header(metadata(config, parts), ALIGNMENT);
    let zeros = header
        .windows(CHECKSUM_LEN)
        .position(|window| window == [b'0'; CHECKSUM_LEN]);
    let total = header.len() as u64 + 2 * plan.bytes();
    let done = std::cell::Cell::new(0);
    let told = |bytes: u64| {
        done.set(done.get() + bytes);
        progress(done.get(), total);
    };
    replace_file(path, |temporary| {
        let mut file = TensorFile::create(temporary, path, &plan, &header, &told)?;
        for (name, bytes) in [
            (TOKENIZER_PACKED, parts.packed_tokenizer),
            (TOKENIZER_JSON, parts.tokenizer),
        ] {
            if let Some(bytes) = bytes {
                file.put(name, bytes)?;
            }
        }
        for padding in plan.list().iter().filter(|tensor| tensor.name.starts_with(PADDING)) {
            file.put(&padding.name, &[0; ALIGNMENT][..padding.len])?;
        }
        write(&mut file, source, options, &items, sketched)?;
        let mut file = file.finish()?;
        sign(&mut file, zeros.unwrap_or_default(), &told).map_err(refused(path))?;
        Ok(())
    })
}

/// Bytes of the file that [`save_one_file`] would write, without reading a value.
///
/// # Errors
/// As [`save_one_file`], as far as headers tell.
pub fn one_file_bytes(source: &dyn ModelSource, options: &OneFileOptions, parts: &Parts<'_>) -> Result<u64, LoadError> {
    let config = source.config();
    config.validate().map_err(RuntimeError::from)?;
    let (plan, _) = plan(source, options, parts, &items(config))?;
    Ok(plan.header(metadata(config, parts), ALIGNMENT).len() as u64 + plan.bytes())
}

/// Makes the checksum of a file, with zeros in its place, and puts it there.
fn sign(file: &mut File, place: usize, told: &dyn Fn(u64)) -> io::Result<()> {
    let mut hasher = blake3::Hasher::new();
    let mut piece = vec![0; 1 << 20];
    file.seek(SeekFrom::Start(0))?;
    loop {
        match file.read(&mut piece)? {
            0 => break,
            read => {
                hasher.update(&piece[..read]);
                told(read as u64);
            }
        }
    }
    file.seek(SeekFrom::Start(place as u64))?;
    file.write_all(hasher.finalize().to_hex().as_bytes())
}
