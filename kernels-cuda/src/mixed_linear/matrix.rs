//! The matrices of a stack, those of one type together.

use crate::chain_gemv::{ChainKind, ChainMatrix, ChainPart, groups};
use crate::device::{CudaError, Gpu, Result};
use crate::ternary_gemv::{Epilogue, Extent, TernaryCode, TernaryMatrix, TernaryPart};

/// A linear as the runtime has it.
#[derive(Clone, Copy, Debug)]
pub enum LinearPart<'a> {
    /// Whose sums are integers.
    Packed(TernaryPart<'a>),
    /// Whose sums are floats.
    Chains(ChainPart<'a>),
}

/// The type of a linear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearKind {
    /// Whose sums are integers.
    Packed(TernaryCode),
    /// Whose sums are floats.
    Chains(ChainKind),
}

impl LinearKind {
    /// Bytes that a matrix of `[rows, cols]` takes on a GPU.
    pub const fn bytes_needed(self, size: [usize; 2]) -> usize {
        match self {
            LinearKind::Packed(code) => TernaryMatrix::bytes_needed(code, size),
            LinearKind::Chains(kind) => kind.bytes_needed(size),
        }
    }

    /// What products need room for, of matrices of so many `[rows, cols]` that lie together.
    fn extent_needed(self, sizes: &[[usize; 2]]) -> Extent {
        match self {
            LinearKind::Packed(code) => TernaryMatrix::extent_needed(code, sizes),
            LinearKind::Chains(kind) => chain_extent(kind, sizes.first().map_or(0, |size| size[1])),
        }
    }
}

fn chain_extent(kind: ChainKind, cols: usize) -> Extent {
    let floats = kind.takes_floats();
    Extent {
        cols: if floats { 0 } else { 32 * groups(cols) },
        floats: if floats { cols } else { 0 },
        ..Extent::default()
    }
}

impl LinearPart<'_> {
    /// Its type.
    pub fn kind(&self) -> LinearKind {
        match self {
            LinearPart::Packed(part) => LinearKind::Packed(part.code),
            LinearPart::Chains(part) => LinearKind::Chains(part.values.kind()),
        }
    }

    fn size(&self) -> [usize; 2] {
        match self {
            LinearPart::Packed(part) => [part.rows, part.cols],
            LinearPart::Chains(part) => [part.rows, part.cols],
        }
    }
}

/// Matrices of one type.
#[derive(Clone, Debug)]
pub(super) enum Matrix {
    Packed(TernaryMatrix),
    Chains(ChainMatrix),
}

impl Matrix {
    fn bytes(&self) -> usize {
        match self {
            Matrix::Packed(matrix) => matrix.bytes(),
            Matrix::Chains(matrix) => matrix.bytes(),
        }
    }

    fn extent(&self) -> Extent {
        match self {
            Matrix::Packed(matrix) => matrix.extent(),
            Matrix::Chains(matrix) => chain_extent(matrix.kind(), matrix.cols()),
        }
    }
}

/// Linears over one input, on the GPU.
#[derive(Clone, Debug)]
pub struct LinearStack {
    rows: usize,
    cols: usize,
    /// Whether it is a gate, beside an up.
    gated: bool,
    /// One for each type; gate and up of two types: these two.
    matrices: Vec<Matrix>,
}

impl From<TernaryMatrix> for LinearStack {
    /// A stack, or a gate and an up if that is what the matrix is, of one packed type.
    fn from(matrix: TernaryMatrix) -> Self {
        LinearStack {
            rows: matrix.rows(),
            cols: matrix.cols(),
            gated: matrix.paired,
            matrices: vec![Matrix::Packed(matrix)],
        }
    }
}

/// What `parts` are of the first one's type, with the first output row of each; the others.
type Alike<'p, 'a> = (Vec<(usize, &'p LinearPart<'a>)>, Vec<(usize, &'p LinearPart<'a>)>);

fn upload(gpu: &Gpu, parts: &[(usize, &LinearPart<'_>)], rows: usize) -> Result<Matrix> {
    let packed = parts.iter().filter_map(|(first, part)| match part {
        LinearPart::Packed(part) => Some((*first, *part)),
        LinearPart::Chains(_) => None,
    });
    let packed: Vec<_> = packed.collect();
    if !packed.is_empty() {
        return Ok(Matrix::Packed(TernaryMatrix::within(gpu, &packed, rows)?));
    }
    let chains = parts.iter().filter_map(|(first, part)| match part {
        LinearPart::Chains(part) => Some((*first, *part)),
        LinearPart::Packed(_) => None,
    });
    let chains: Vec<_> = chains.collect();
    Ok(Matrix::Chains(ChainMatrix::within(gpu, &chains, rows)?))
}

impl LinearStack {
    /// Matrices one below the other: the output is that of the first, then that of the second, …
    ///
    /// # Errors
    /// [`CudaError::Shape`] if there is none, columns differ or a length is not that of its matrix.
    pub fn stacked(gpu: &Gpu, parts: &[LinearPart<'_>]) -> Result<Self> {
        let cols = Self::cols_of(parts)?;
        let rows = parts.iter().map(|part| part.size()[0]).sum();
        let mut left: Vec<_> = parts
            .iter()
            .scan(0, |rows, part| {
                let first = *rows;
                *rows += part.size()[0];
                Some((first, part))
            })
            .collect();
        let mut matrices = Vec::new();
        while let Some(&(_, first)) = left.first() {
            let (alike, others): Alike<'_, '_> = left.into_iter().partition(|(_, part)| part.kind() == first.kind());
            matrices.push(upload(gpu, &alike, rows)?);
            left = others;
        }
        Ok(LinearStack {
            rows,
            cols,
            gated: false,
            matrices,
        })
    }

    /// Gate and up of a gated feed-forward network.
    ///
    /// # Errors
    /// As [`stacked`](Self::stacked), and if their rows differ.
    pub fn gated(gpu: &Gpu, gate: LinearPart<'_>, up: LinearPart<'_>) -> Result<Self> {
        if let (LinearPart::Packed(gate), LinearPart::Packed(up)) = (&gate, &up)
            && gate.code == up.code
        {
            return Ok(TernaryMatrix::paired(gpu, *gate, *up)?.into());
        }
        let ([rows, _], cols) = (gate.size(), Self::cols_of(&[gate, up])?);
        crate::ternary_gemv::need("LinearStack", "up", rows, up.size()[0])?;
        Ok(LinearStack {
            rows,
            cols,
            gated: true,
            matrices: vec![upload(gpu, &[(0, &gate)], rows)?, upload(gpu, &[(0, &up)], rows)?],
        })
    }

    fn cols_of(parts: &[LinearPart<'_>]) -> Result<usize> {
        const OP: &str = "LinearStack";
        let cols = |part: &LinearPart<'_>| part.size()[1];
        let first = parts.first().map(cols);
        let first = first.ok_or_else(|| CudaError::shape(OP, "a matrix", "none"))?;
        match parts.iter().map(cols).find(|&cols| cols != first) {
            None => Ok(first),
            Some(other) => Err(CudaError::shape(OP, format!("{first} columns"), other)),
        }
    }

    /// What products with a stack of matrices of these types and sizes need room for; `gated` if they are gate and up.
    pub fn extent_needed(parts: &[(LinearKind, [usize; 2])], gated: bool) -> Extent {
        let mut extent = Extent::default();
        for (i, (kind, size)) in parts.iter().enumerate() {
            let alike = parts.iter().filter(|(other, _)| other == kind).map(|(_, size)| *size);
            // Of gate and up only packed ones lie together.
            let together: Vec<_> = match (gated, kind) {
                (true, LinearKind::Chains(_)) => vec![*size],
                _ => alike.collect(),
            };
            if parts[..i].iter().all(|(other, _)| other != kind) {
                extent = extent.max(kind.extent_needed(&together));
            }
        }
        extent
    }

    /// Output values of a token.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Input values.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes that a product reads of it.
    pub fn bytes(&self) -> usize {
        self.matrices.iter().map(Matrix::bytes).sum()
    }

    /// What its products need room for.
    pub fn extent(&self) -> Extent {
        self.matrices
            .iter()
            .fold(Extent::default(), |extent, matrix| extent.max(matrix.extent()))
    }

    /// Normed values of a token that its products read: all, or none.
    pub(super) fn float_cols(&self) -> usize {
        self.extent().floats
    }

    /// Bytes of a token that its products read: the columns, filled up for whichever needs most, or none.
    pub(super) fn byte_cols(&self) -> usize {
        self.extent().cols
    }

    /// Its only matrix, if that is packed.
    pub(crate) fn single(&self) -> Option<&TernaryMatrix> {
        match &self.matrices[..] {
            [Matrix::Packed(matrix)] => Some(matrix),
            _ => None,
        }
    }

    /// The products, one after the other, with what becomes of each one's results.
    pub(super) fn in_turn<'a>(&self, epilogue: Epilogue<'a>) -> Result<Vec<(&Matrix, Epilogue<'a>)>> {
        let by_gate = match epilogue {
            Epilogue::GatedRelu2(out) => Some((out, Epilogue::ByGateRelu2(out))),
            Epilogue::GatedSilu(out) => Some((out, Epilogue::ByGateSilu(out))),
            _ => None,
        };
        if by_gate.is_some() != self.gated {
            let word = |gated| if gated { "a gate and an up" } else { "a stack" };
            return Err(CudaError::shape(
                "LinearStack",
                word(by_gate.is_some()),
                word(self.gated),
            ));
        }
        Ok(match (by_gate, &self.matrices[..]) {
            (Some((out, by_gate)), [gate, up]) => vec![(gate, Epilogue::Store(out)), (up, by_gate)],
            _ => self.matrices.iter().map(|matrix| (matrix, epilogue)).collect(),
        })
    }
}
