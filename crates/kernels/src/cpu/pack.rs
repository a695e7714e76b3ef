//! Matrices in the order in which [`tile`](super::tile) reads them.

use rayon::prelude::*;

use super::{
    line::{LANES, Line},
    tile::{Across, Along, COLUMNS, LINES, ROWS},
};

/// `rows [n, width]` in groups of [`ROWS`] rows, `[n / ROWS, width]`; the last group is filled up with zeros.
#[inline(always)]
pub(super) fn across(rows: &[f32], width: usize) -> Vec<Across> {
    let groups = rows.len().div_ceil(width * ROWS);
    let mut packed = vec![[0.0; ROWS]; groups * width];
    for (group, rows) in packed.chunks_exact_mut(width).zip(rows.chunks(width * ROWS)) {
        for (i, row) in rows.chunks_exact(width).enumerate() {
            group.iter_mut().zip(row).for_each(|(across, value)| across[i] = *value);
        }
    }
    packed
}

/// `rows [n, width]`, whose rows are columns of the product, in panels of [`COLUMNS`]: `[n / COLUMNS, width]`; the last panel
/// is filled up with zeros.
pub(super) fn along_rows(rows: &[f32], width: usize) -> Vec<Along> {
    let panels = rows.len().div_ceil(width * COLUMNS);
    let mut packed = vec![[Line::ZERO; LINES]; panels * width];
    let tasks = packed.par_chunks_exact_mut(width).zip(rows.par_chunks(width * COLUMNS));
    tasks.for_each(|(panel, rows)| {
        for (i, row) in rows.chunks_exact(width).enumerate() {
            let (line, lane) = (i / LANES, i % LANES);
            panel.iter_mut().zip(row).for_each(|(along, value)| along[line].0[lane] = *value);
        }
    });
    packed
}

/// Matrices of `width` columns, one below the other, in panels of [`COLUMNS`]: `[width / COLUMNS, rows]`; the last panel is
/// filled up with zeros.
pub(super) fn along_columns(matrices: &[&[f32]], width: usize) -> Vec<Along> {
    let rows: usize = matrices.iter().map(|matrix| matrix.len() / width).sum();
    let mut packed = vec![[Line::ZERO; LINES]; width.div_ceil(COLUMNS) * rows];
    packed.par_chunks_exact_mut(rows).enumerate().for_each(|(panel, packed)| {
        let columns = panel * COLUMNS..((panel + 1) * COLUMNS).min(width);
        let rows = matrices.iter().flat_map(|matrix| matrix.chunks_exact(width));
        for (along, row) in packed.iter_mut().zip(rows) {
            for (line, values) in along.iter_mut().zip(row[columns.clone()].chunks(LANES)) {
                line.0[..values.len()].copy_from_slice(values);
            }
        }
    });
    packed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_columns_find_their_places() {
        let (n, width) = (COLUMNS + 2, 3);
        let rows: Vec<f32> = (0..n * width).map(|i| i as f32 + 1.0).collect();
        let at =
            |row: usize, column: usize| rows.get(row * width + column).copied().filter(|_| column < width);

        let across = across(&rows, width);
        assert_eq!(across.len(), n.div_ceil(ROWS) * width);
        for row in 0..n.next_multiple_of(ROWS) {
            for column in 0..width {
                let found = across[row / ROWS * width + column][row % ROWS];
                assert_eq!(found, at(row, column).unwrap_or(0.0));
            }
        }
        let lane = |along: &Along, i: usize| along[i / LANES].0[i % LANES];
        let along = along_rows(&rows, width);
        assert_eq!(along.len(), 2 * width);
        for row in 0..2 * COLUMNS {
            for column in 0..width {
                let found = lane(&along[row / COLUMNS * width + column], row % COLUMNS);
                assert_eq!(found, at(row, column).unwrap_or(0.0));
            }
        }
        let (above, below) = rows.split_at(4 * width);
        let along = along_columns(&[above, below], width);
        assert_eq!(along.len(), n);
        for (row, along) in along.iter().enumerate() {
            for column in 0..COLUMNS {
                assert_eq!(lane(along, column), at(row, column).unwrap_or(0.0));
            }
        }
    }
}
