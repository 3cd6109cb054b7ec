//! Embedding: rows of a table by token id.

use onebit_kernels_cpu::embedding as kernel;

use crate::error::shape_error;
use crate::parallel::over_rows;
use crate::{EngineError, Result, Tensor};

/// Rows `ids` of `table` `[vocab, dim]`: `[tokens, dim]`.
///
/// # Errors
/// An id at or past the table's end, or wrong element types.
pub fn embedding(table: &Tensor, ids: &Tensor) -> Result<Tensor> {
    let dim = table.shape().last();
    let isa = table.device().isa();
    let ids = ids.u32()?;
    check_ids("embedding", ids, table.shape().rows())?;
    let mut out = Tensor::for_overwrite(table.device(), [ids.len(), dim]);
    let table = table.f32()?;
    over_rows(out.f32_mut()?, dim, |row, out| {
        kernel::gather(isa, table, dim, &ids[row..row + out.len() / dim], out)
    });
    Ok(out)
}

/// Gradient of [`embedding`] with respect to a table of `rows` rows: rows of `dy` added where their ids point, in token order.
///
/// # Errors
/// Shapes that do not fit, or wrong element types.
pub fn embedding_backward(rows: usize, ids: &Tensor, dy: &Tensor) -> Result<Tensor> {
    let dim = dy.shape().last();
    let mut dtable = Tensor::zeros(dy.device(), [rows, dim]);
    let ids = ids.u32()?;
    check_ids("embedding_backward", ids, rows)?;
    if ids.len() * dim != dy.len() {
        return Err(shape_error(
            "embedding_backward",
            format!("[{}, {dim}]", ids.len()),
            dy.shape(),
        ));
    }
    kernel::scatter_add(dy.device().isa(), dy.f32()?, dim, ids, dtable.f32_mut()?);
    Ok(dtable)
}

pub(crate) fn check_ids(op: &'static str, ids: &[u32], rows: usize) -> Result<()> {
    match ids.iter().position(|&id| id as usize >= rows) {
        Some(position) => Err(EngineError::Id {
            op,
            id: ids[position],
            position,
            rows,
        }),
        None => Ok(()),
    }
}
