//! The tensors of a file, each as the runtime takes it, where it lies.

use alloc::collections::BTreeSet;
use alloc::format;
use core::cell::RefCell;

use bytemuck::Pod;
use half::{bf16, f16};
use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::ternary_columns::{Line, column_lines};
use onebit_kernels_cpu::{int4_gemv, t2};
use safetensors::Dtype;

use super::{ALIGNMENT, COLUMNS, Image, ImageError, PADDING, PARTS, PartProblem, SCALES, SKETCH, VERSION, refused};
use crate::config::json::nearest;
use crate::config::{FeedForward, LinearKind, LinearMode, LinearShape, TensorSpec};
use crate::runtime::{FloatValues, HeadSketch, Linear, RowFigures, RuntimeError, Values};

/// The layouts that a matrix of this mode may lie in: `b1` has no 0, so only a binary one.
pub(crate) fn layouts(mode: LinearMode) -> &'static [Layout] {
    match mode {
        LinearMode::Binary => &Layout::ALL,
        _ => &Layout::TERNARY,
    }
}

/// Why a tensor could not be given to the model.
pub(crate) enum Refused {
    Image(ImageError),
    Runtime(RuntimeError),
}

impl From<ImageError> for Refused {
    fn from(error: ImageError) -> Self {
        Self::Image(error)
    }
}

impl From<RuntimeError> for Refused {
    fn from(error: RuntimeError) -> Self {
        Self::Runtime(error)
    }
}

fn check_scale(name: &str, value: f32) -> Result<(), ImageError> {
    match value.is_finite() && value > 0.0 {
        true => Ok(()),
        false => {
            let linear = name.into();
            Err(refused(SCALES, PartProblem::Scale { linear, value }))
        }
    }
}

/// The tensors of a file as views of it, and those not asked for yet.
pub(crate) struct PartsOf<'f> {
    file: &'f Image,
    unused: RefCell<BTreeSet<&'f str>>,
}

impl<'f> PartsOf<'f> {
    pub fn new(file: &'f Image) -> Self {
        Self {
            file,
            unused: RefCell::new(file.weights.names().collect()),
        }
    }

    /// The values of a tensor of this type and shape.
    pub fn values<T: Pod>(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Result<Values<T>, ImageError> {
        let refuse = |problem| Err(refused(name, problem));
        let weights = &self.file.weights;
        let (Some(view), Some((bytes, range))) = (weights.get(name), weights.place(name)) else {
            let spare = self.unused.borrow();
            let suggestion = nearest(name, spare.iter().copied());
            return refuse(PartProblem::Missing { suggestion });
        };
        self.unused.borrow_mut().remove(name);
        if view.dtype != dtype {
            let (expected, found) = (dtype, view.dtype);
            return refuse(PartProblem::Type { expected, found });
        }
        if view.shape != shape {
            let (expected, found) = (shape.to_vec(), view.shape.to_vec());
            return refuse(PartProblem::Shape { expected, found });
        }
        if range.start % ALIGNMENT != 0 {
            let (start, alignment) = (range.start, ALIGNMENT);
            return refuse(PartProblem::Misaligned { start, alignment });
        }
        match bytes.view(range) {
            Some(values) => Ok(values),
            None => refuse(PartProblem::NotInPlace),
        }
    }

    /// An embedding or a head: one in a mode of trits with its γ, `scale`.
    pub fn table(&self, spec: &TensorSpec, mode: LinearMode, scale: f32) -> Result<FloatValues, ImageError> {
        match (mode, spec.shape.as_slice()) {
            (LinearMode::Ternary | LinearMode::Binary, &[rows, cols]) => {
                let (layout, packed) = self.trits(&spec.name, mode, rows, cols)?;
                check_scale(&spec.name, scale)?;
                Ok(FloatValues::Trits {
                    layout,
                    packed,
                    scale,
                    rows,
                    cols,
                })
            }
            (_, shape) => self.floats(&spec.name, shape),
        }
    }

    /// A float matrix of whichever type.
    pub fn floats(&self, name: &str, shape: &[usize]) -> Result<FloatValues, ImageError> {
        if let [rows, cols] = *shape
            && self.file.weights.get(name).is_none()
            && self.file.weights.get(&format!("{name}.i8")).is_some()
        {
            let (values, steps) = self.int8(name, rows, cols)?;
            return Ok(FloatValues::Int8 { values, steps });
        }
        if let [rows, cols] = *shape
            && self.file.weights.get(name).is_none()
            && self.file.weights.get(&format!("{name}.i4")).is_some()
        {
            let (codes, steps) = self.int4(name, rows, cols)?;
            return Ok(FloatValues::Int4 { codes, steps, cols });
        }
        Ok(match self.file.weights.get(name).map(|view| view.dtype) {
            Some(Dtype::F16) => FloatValues::F16(self.values::<f16>(name, Dtype::F16, shape)?),
            Some(Dtype::BF16) => FloatValues::Bf16(self.values::<bf16>(name, Dtype::BF16, shape)?),
            _ => FloatValues::F32(self.values(name, Dtype::F32, shape)?),
        })
    }

    pub fn ternary(&self, shape: &LinearShape, scale: f32) -> Result<Linear, ImageError> {
        let (rows, cols) = (shape.rows, shape.cols);
        let (layout, packed) = self.trits(&shape.name, shape.mode, rows, cols)?;
        check_scale(&shape.name, scale)?;
        Ok(Linear::Ternary {
            rows,
            cols,
            layout,
            packed,
            scale,
            columns: self.columns(shape)?,
        })
    }

    /// A packed matrix `[rows, cols]`, and how it lies.
    pub fn trits(
        &self,
        name: &str,
        mode: LinearMode,
        rows: usize,
        cols: usize,
    ) -> Result<(Layout, Values<u8>), ImageError> {
        let layout = self.layout_of(name, mode);
        let group = layout.group_bytes(cols);
        let shape = [layout.bytes(rows, cols) / group.max(1), group];
        let packed = self.values(&format!("{name}.{}", layout.name()), Dtype::U8, &shape)?;
        Ok((layout, packed))
    }

    /// The layout in which the file has a matrix of trits; of one that is in none of its mode, the first.
    pub fn layout_of(&self, name: &str, mode: LinearMode) -> Layout {
        let there = |layout: &&Layout| self.file.weights.get(&format!("{name}.{}", layout.name())).is_some();
        let layouts = layouts(mode);
        layouts
            .iter()
            .find(there)
            .or(layouts.first())
            .copied()
            .unwrap_or_default()
    }

    /// The weights of a linear by columns, if the file has them and the model a use for them.
    fn columns(&self, shape: &LinearShape) -> Result<Option<Values<Line>>, ImageError> {
        let name = format!("{}{COLUMNS}", shape.name);
        let useful = shape.kind == LinearKind::Down && self.file.config().feed_forward != FeedForward::SwiGlu;
        if !useful || self.file.weights.get(&name).is_none() {
            return Ok(None);
        }
        let lines = size_of::<Line>() * column_lines(shape.rows);
        self.values(&name, Dtype::U8, &[shape.cols, lines]).map(Some)
    }

    pub fn integers(&self, shape: &LinearShape) -> Result<Linear, ImageError> {
        let (rows, cols) = (shape.rows, shape.cols);
        if shape.mode == LinearMode::Int4 {
            let (codes, steps) = self.int4(&shape.name, rows, cols)?;
            return Ok(Linear::Int4 {
                rows,
                cols,
                codes,
                steps,
            });
        }
        let (values, steps) = self.int8(&shape.name, rows, cols)?;
        Ok(Linear::Int8 {
            rows,
            cols,
            values,
            steps,
        })
    }

    /// Codes `[rows, bytes of a row]` and a step for each group of columns.
    pub fn int4(&self, name: &str, rows: usize, cols: usize) -> Result<(Values<u8>, Values<f16>), ImageError> {
        let (bytes, steps) = (int4_gemv::row_bytes(cols), int4_gemv::row_steps(cols));
        Ok((
            self.values(&format!("{name}.i4"), Dtype::U8, &[rows, bytes])?,
            self.values(&format!("{name}.steps"), Dtype::F16, &[rows, steps])?,
        ))
    }

    /// Bytes `[rows, cols]` and a step for each row.
    pub fn int8(&self, name: &str, rows: usize, cols: usize) -> Result<(Values<i8>, Values<f32>), ImageError> {
        Ok((
            self.values(&format!("{name}.i8"), Dtype::I8, &[rows, cols])?,
            self.values(&format!("{name}.steps"), Dtype::F32, &[rows])?,
        ))
    }

    /// The sketch of a head `[rows, cols]`, if the file has one.
    pub fn sketch(&self, rows: usize, cols: usize) -> Result<Option<HeadSketch>, ImageError> {
        let there = |name: &str| self.file.weights.get(name).is_some();
        let [(first, _), ..] = SKETCH;
        if !SKETCH.iter().any(|(plane, figures)| there(plane) || there(figures)) {
            return Ok(None);
        }
        let plane = |names: (&str, &str)| {
            let groups = [rows.div_ceil(t2::GROUP_ROWS), t2::group_bytes(cols)];
            Ok::<_, ImageError>((
                self.values(names.0, Dtype::U8, &groups)?,
                self.values(names.1, Dtype::F32, &[rows, RowFigures::LEN])?,
            ))
        };
        let [one, two] = SKETCH;
        match HeadSketch::from_parts(rows, cols, [plane(one)?, plane(two)?]) {
            Some(sketch) => Ok(Some(sketch)),
            None => Err(refused(first, PartProblem::Sketch)),
        }
    }

    /// Refuses what nobody asked for, other than optional parts and padding.
    pub fn finish(self) -> Result<(), ImageError> {
        for name in self.unused.take() {
            if PARTS.contains(&name) {
                continue;
            }
            let padding = |bytes: &[u8]| bytes.len() < ALIGNMENT && bytes.iter().all(|byte| *byte == 0);
            let view = self.file.weights.get(name);
            if !name.starts_with(PADDING) {
                return Err(refused(name, PartProblem::Unknown { version: VERSION }));
            }
            if !view.is_some_and(|view| view.dtype == Dtype::U8 && padding(view.bytes)) {
                let alignment = ALIGNMENT;
                return Err(refused(name, PartProblem::Padding { alignment }));
            }
        }
        Ok(())
    }
}
