//! All cosines between two sets of directions, in blocks: never all of them at once.

use burn::tensor::{Device, Tensor, TensorData};

use super::{directions::Directions, error::CompareError};

/// Cosines in a block: 64 MiB, of which the first use costs as much as a product of them.
const BLOCK: usize = 1 << 24;

/// Hands on the cosines of some rows of `a` with all of `b`, row after row: the number of the first row, and the cosines
/// `[rows, b.n()]`. They are a matrix product on `device`, with its rounding.
pub(super) fn for_each_block(
    a: &Directions,
    b: &Directions,
    device: &Device,
    each: impl FnMut(usize, &[f32]),
) -> Result<(), CompareError> {
    in_blocks_of(BLOCK, a, b, device, each)
}

/// As [`for_each_block`], of at most `most` cosines a block, but a row at least.
pub(super) fn in_blocks_of(
    most: usize,
    a: &Directions,
    b: &Directions,
    device: &Device,
    mut each: impl FnMut(usize, &[f32]),
) -> Result<(), CompareError> {
    let tensor = |directions: &Directions, first: usize, n: usize| {
        let values = directions.rows(first, n).to_vec();
        Tensor::<2>::from_data(TensorData::new(values, [n, directions.width()]), device)
    };
    let columns = tensor(b, 0, b.n()).transpose();
    let rows = (most / b.n()).max(1);
    for first in (0..a.n()).step_by(rows) {
        let n = rows.min(a.n() - first);
        let cosines = tensor(a, first, n).matmul(columns.clone());
        let cosines =
            cosines.try_into_vec_as::<f32>().map_err(|e| CompareError::Device { reason: e.to_string() })?;
        each(first, &cosines);
    }
    Ok(())
}
