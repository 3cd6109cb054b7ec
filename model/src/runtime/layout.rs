//! Which layout the ternary matrices of a model are kept in. A binary one that came as `b1` stays as it is.
//!
//! `t5` has a fifth fewer bytes and takes a third more instructions to open. So it is for models that come from memory at every token; one
//! that stays in the caches is faster as `t2`, and so is any on a CPU without lookups of 64 bytes.

use alloc::vec;
use alloc::vec::Vec;

use onebit_kernels_cpu::ternary::Layout;
use onebit_kernels_cpu::{Isa, t2, t5, ternary_columns};
#[cfg(feature = "std")]
use rayon::prelude::*;

use super::floats::{FloatMatrix, FloatValues};
use super::weights::{Linear, PackedModel};

/// Bytes a token from which on a model is taken to come from memory: more than the caches of most machines hold.
const FROM_MEMORY: usize = 32 << 20;

fn opens_t5(isa: Isa) -> bool {
    match isa {
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512(token) => token.has_vbmi(),
        _ => false,
    }
}

impl PackedModel {
    /// Whether a token's weights are taken to come from memory, and not from the caches: then fewer bytes are worth instructions, and
    /// several tokens are worth reading at once.
    pub fn comes_from_memory(&self) -> bool {
        self.bytes_per_token() > FROM_MEMORY
    }

    /// Puts each ternary matrix into the layout that is fastest with `isa`.
    pub(super) fn lay_out_for(&mut self, isa: Isa) {
        if opens_t5(isa) && self.comes_from_memory() {
            self.relay(smallest);
        }
        if ternary_columns::is_fast(isa) && self.comes_from_memory() {
            self.add_columns();
        }
    }

    /// The same model with each ternary matrix in the layout of the fewest bytes: `t5`, or `t2` where rows are short. The same answers,
    /// bit for bit.
    pub fn smallest(mut self) -> Self {
        self.relay(smallest);
        self
    }

    /// The same model with every ternary matrix in `layout`: the same answers, bit for bit. `b1` is not given to a matrix that is not in it,
    /// nor taken from one that is.
    pub fn with_layout(mut self, layout: Layout) -> Self {
        self.relay(|_| layout);
        self
    }

    /// Puts each ternary matrix into the layout that `choose(cols)` gives for it.
    fn relay(&mut self, choose: impl Fn(usize) -> Layout + Sync) {
        let linears: Vec<&mut Linear> = self.blocks.iter_mut().flat_map(|block| block.linears_mut()).collect();
        for table in [Some(&mut self.embedding), self.head.as_mut()].into_iter().flatten() {
            let wanted = choose(table.cols);
            table.lay_out(wanted);
        }
        let relay = |linear: &mut Linear| {
            let wanted = choose(linear.cols());
            linear.lay_out(wanted);
        };
        #[cfg(feature = "std")]
        linears.into_par_iter().for_each(relay);
        #[cfg(not(feature = "std"))]
        linears.into_iter().for_each(relay);
    }
}

impl FloatMatrix {
    /// Puts a matrix of trits into this layout; another stays as it is.
    pub(crate) fn lay_out(&mut self, wanted: Layout) {
        if let FloatValues::Trits {
            layout,
            packed,
            rows,
            cols,
            ..
        } = &mut self.values
            && let Some(relaid) = relaid(packed, *rows, *cols, *layout, wanted)
        {
            *packed = relaid.into();
            *layout = wanted;
        }
    }
}

impl Linear {
    /// Puts a ternary or binary linear into this layout; another stays as it is, and so does one in `b1` or for which `b1` is wanted: it
    /// holds no 0, and of a matrix nobody knows here whether it has one.
    pub(crate) fn lay_out(&mut self, wanted: Layout) {
        if let Linear::Ternary {
            rows,
            cols,
            layout,
            packed,
            ..
        } = self
            && let Some(relaid) = relaid(packed, *rows, *cols, *layout, wanted)
        {
            *packed = relaid.into();
            *layout = wanted;
        }
    }
}

/// The layout of the fewest bytes for rows of `cols` weights: padding can eat what the shorter code saves.
pub(crate) fn smallest(cols: usize) -> Layout {
    if 8 * t5::group_bytes(cols) <= 7 * t2::group_bytes(cols) {
        Layout::T5
    } else {
        Layout::T2
    }
}

/// The bytes of the matrix in layout `wanted`, if it is to change.
fn relaid(packed: &[u8], rows: usize, cols: usize, layout: Layout, wanted: Layout) -> Option<Vec<u8>> {
    let convert = match (layout, wanted) {
        (Layout::T5, Layout::T2) => t5::to_t2,
        (Layout::T2, Layout::T5) => t5::from_t2,
        (Layout::T2, Layout::T2) | (Layout::T5, Layout::T5) | (Layout::B1, _) | (_, Layout::B1) => return None,
    };
    let mut out = vec![0; wanted.bytes(rows, cols)];
    convert(packed, rows, cols, &mut out, &mut vec![0; t2::GROUP_ROWS * cols]);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linear(layout: Layout, signs: &[i8], rows: usize, cols: usize) -> Linear {
        let mut packed = vec![0; layout.bytes(rows, cols)];
        layout.pack(signs, rows, cols, &mut packed);
        Linear::Ternary {
            rows,
            cols,
            layout,
            packed: packed.into(),
            scale: 0.5,
            columns: None,
        }
    }

    #[test]
    fn ternary_layouts_turn_into_each_other_and_b1_stays() {
        let (rows, cols) = (5, 700);
        let signs: Vec<i8> = (0..rows * cols).map(|i| 1 - 2 * (i * 7 % 5 % 2) as i8).collect();
        for from in Layout::ALL {
            for wanted in Layout::ALL {
                let mut laid = linear(from, &signs, rows, cols);
                laid.lay_out(wanted);
                let becomes = if from.has_zero() && wanted.has_zero() {
                    wanted
                } else {
                    from
                };
                assert_eq!(laid, linear(becomes, &signs, rows, cols), "{from:?} to {wanted:?}");
            }
        }
    }
}
