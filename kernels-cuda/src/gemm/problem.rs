//! What a product is, for both of its implementations: operands, sizes, and what happens to the sums.

use half::bf16;

use crate::device::{CudaError, DeviceArray, Result};

/// How the operands of C\[m,n\] = Σ_k A·B lie in memory. Letters as in BLAS, for row-major matrices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Layout {
    /// A \[m,k\], B \[n,k\]: Y = X·Wᵀ, the forward pass.
    NT,
    /// A \[m,k\], B \[k,n\]: dX = dY·W.
    NN,
    /// A \[k,m\], B \[k,n\]: dW = dYᵀ·X.
    TN,
}

/// The two matrices.
#[derive(Clone, Copy, Debug)]
pub enum Operands<'a> {
    /// bfloat16, summed in f32.
    Bf16 {
        /// A.
        a: &'a DeviceArray<bf16>,
        /// B.
        b: &'a DeviceArray<bf16>,
    },
    /// Signed bytes, summed exactly in i32; [`Layout::NT`] only.
    Int8 {
        /// A.
        a: &'a DeviceArray<i8>,
        /// B.
        b: &'a DeviceArray<i8>,
    },
}

/// Where the result goes.
#[derive(Clone, Copy, Debug)]
pub enum Output<'a> {
    /// C \[m,n\], rounded to nearest, ties to even.
    Bf16(&'a DeviceArray<bf16>),
    /// C \[m,n\].
    F32(&'a DeviceArray<f32>),
    /// C \[m,n\], added to what is there.
    Accumulate(&'a DeviceArray<f32>),
}

/// Products of equal sizes and scales in one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// How many.
    pub count: usize,
    /// Elements from the first of a product's A to the next product's: a multiple of 16 bytes.
    pub a_step: usize,
    /// The same of B.
    pub b_step: usize,
    /// The same of C, at least what a C takes.
    pub c_step: usize,
}

impl Batch {
    /// One product.
    pub const ONE: Batch = Batch {
        count: 1,
        a_step: 0,
        b_step: 0,
        c_step: 0,
    };
}

/// C\[m,n\] = Σ_k A·B · `alpha` · `row_scale`\[m\] · `col_scale`\[n\], `batch.count` times.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// How A and B lie.
    pub layout: Layout,
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Products in a sum.
    pub k: usize,
    /// A and B.
    pub operands: Operands<'a>,
    /// Elements from a row of A to the next: a multiple of 16 bytes.
    pub a_stride: usize,
    /// Elements from a row of B to the next: a multiple of 16 bytes.
    pub b_stride: usize,
    /// C.
    pub output: Output<'a>,
    /// Elements from a row of C to the next: a multiple of 16 bytes.
    pub c_stride: usize,
    /// A factor for each row of C.
    pub row_scale: Option<&'a DeviceArray<f32>>,
    /// A factor for each column of C.
    pub col_scale: Option<&'a DeviceArray<f32>>,
    /// A factor for all.
    pub alpha: f32,
    /// Products.
    pub batch: Batch,
}

const OP: &str = "gemm";

impl Problem<'_> {
    /// Rows and columns of C, and the length of a sum.
    pub fn sizes(&self) -> (usize, usize, usize) {
        (self.m, self.n, self.k)
    }

    /// Whether A and B are bytes.
    pub fn is_int8(&self) -> bool {
        matches!(self.operands, Operands::Int8 { .. })
    }

    /// Rows and columns of A as it lies in memory.
    pub fn a_shape(&self) -> (usize, usize) {
        match self.layout {
            Layout::NT | Layout::NN => (self.m, self.k),
            Layout::TN => (self.k, self.m),
        }
    }

    /// Rows and columns of B as it lies in memory.
    pub fn b_shape(&self) -> (usize, usize) {
        match self.layout {
            Layout::NT => (self.n, self.k),
            Layout::NN | Layout::TN => (self.k, self.n),
        }
    }

    /// Elements from a row of a partial product to the next. Those of split-K lie in a workspace `[splits][partial_rows][partial_stride]` of f32, without
    /// scales; rows from `m` and columns from `n` on hold anything.
    pub fn partial_stride(&self) -> usize {
        self.n.next_multiple_of(4)
    }

    /// Rows of a partial product: `m`, filled up to a multiple of 128, so that no tile reaches into the next one.
    pub fn partial_rows(&self) -> usize {
        self.m.next_multiple_of(128)
    }

    /// Elements of the workspace for `splits` partial products; none for one, which goes to C at once.
    pub fn workspace_len(&self, splits: usize) -> usize {
        if splits > 1 {
            splits * self.partial_rows() * self.partial_stride()
        } else {
            0
        }
    }

    /// Whether everything is where the kernels will look for it.
    ///
    /// # Errors
    /// [`CudaError::Shape`].
    pub fn check(&self) -> Result<()> {
        let others = self.batch.count.saturating_sub(1);
        let matrix = |what: &str,
                      (rows, cols): (usize, usize),
                      stride: usize,
                      len: usize,
                      address: u64,
                      size: usize,
                      step: usize| {
            let end = if rows == 0 || cols == 0 {
                0
            } else {
                others * step + (rows - 1) * stride + cols
            };
            let aligned =
                [stride * size, step * size].iter().all(|at| at.is_multiple_of(16)) && address.is_multiple_of(16);
            if cols <= stride && end <= len && aligned && rows <= i32::MAX as usize && cols <= i32::MAX as usize {
                return Ok(());
            }
            let expected = format!("{what} of {rows}x{cols}, rows a multiple of 16 bytes apart and 16-byte aligned");
            Err(CudaError::shape(
                OP,
                expected,
                format!("rows {stride} apart in {len} elements at {address:#x}"),
            ))
        };
        let scale = |what: &str, array: Option<&DeviceArray<f32>>, len: usize| match array {
            Some(array) if array.len() != len || !array.address().is_multiple_of(16) => Err(CudaError::shape(
                OP,
                format!("{what} of {len} elements, 16-byte aligned"),
                format!("{array:?}"),
            )),
            _ => Ok(()),
        };
        let ((a_len, a_at), (b_len, b_at), size) = match self.operands {
            Operands::Bf16 { a, b } => ((a.len(), a.address()), (b.len(), b.address()), 2),
            Operands::Int8 { a, b } => {
                if self.layout != Layout::NT {
                    return Err(CudaError::shape(
                        OP,
                        "int8 operands in NT",
                        format!("{:?}", self.layout),
                    ));
                }
                ((a.len(), a.address()), (b.len(), b.address()), 1)
            }
        };
        let Batch {
            a_step, b_step, c_step, ..
        } = self.batch;
        matrix("A", self.a_shape(), self.a_stride, a_len, a_at, size, a_step)?;
        matrix("B", self.b_shape(), self.b_stride, b_len, b_at, size, b_step)?;
        let (c_len, c_at, size) = match self.output {
            Output::Bf16(c) => (c.len(), c.address(), 2),
            Output::F32(c) | Output::Accumulate(c) => (c.len(), c.address(), 4),
        };
        matrix("C", (self.m, self.n), self.c_stride, c_len, c_at, size, c_step)?;
        let c_elements = self.m.saturating_sub(1) * self.c_stride + self.n;
        if self.batch.count > u16::MAX as usize || (others > 0 && c_step < c_elements) {
            let expected = format!(
                "at most {} products, their results {c_elements} elements apart",
                u16::MAX
            );
            return Err(CudaError::shape(OP, expected, format!("{:?}", self.batch)));
        }
        scale("row scales", self.row_scale, self.m)?;
        scale("column scales", self.col_scale, self.n)
    }
}
