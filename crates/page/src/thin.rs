//! Long series made short without changing how they look: what a column of pixels shows of them is their first and last
//! value there, and how far they reach.

/// Pieces of a line, each without a gap, in which no more than four points share a column. `points` are in the picture's
/// coordinates and rise in x; `None` is a gap, of which those narrower than a column are not seen.
pub(crate) fn thin(
    points: impl IntoIterator<Item = Option<(f64, f64)>>,
    column_width: f64,
) -> Vec<Vec<(f64, f64)>> {
    let column_of = |x: f64| (x / column_width).floor();
    let mut pieces: Vec<Vec<(f64, f64)>> = Vec::new();
    let mut column = Column::default();
    let mut gap = false;
    let mut last = f64::NEG_INFINITY;
    for point in points {
        let Some((x, y)) = point.filter(|(x, y)| x.is_finite() && y.is_finite()) else {
            gap = true;
            continue;
        };
        let number = column_of(x);
        if column.number != Some(number) {
            column.empty_into(&mut pieces);
            if pieces.is_empty() || (gap && x - last >= column_width) {
                pieces.push(Vec::new());
            }
            column.number = Some(number);
        }
        (gap, last) = (false, x);
        column.points.push((x, y));
        if column.points.len() > 64 {
            column.thin();
        }
    }
    column.empty_into(&mut pieces);
    pieces
}

/// Points that share a column of pixels.
#[derive(Default)]
struct Column {
    number: Option<f64>,
    points: Vec<(f64, f64)>,
}

impl Column {
    fn empty_into(&mut self, pieces: &mut [Vec<(f64, f64)>]) {
        self.thin();
        if let Some(piece) = pieces.last_mut() {
            piece.append(&mut self.points);
        }
    }

    /// Leaves the first, the lowest, the highest and the last, in their order.
    fn thin(&mut self) {
        if self.points.len() <= 4 {
            return;
        }
        let by_y = |a: &usize, b: &usize| self.points[*a].1.total_cmp(&self.points[*b].1);
        let all = || 0..self.points.len();
        let mut kept: Vec<usize> =
            [Some(0), all().min_by(by_y), all().max_by(by_y), all().last()].into_iter().flatten().collect();
        kept.sort_unstable();
        kept.dedup();
        self.points = kept.into_iter().map(|i| self.points[i]).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_keeps_its_ends_and_its_reach() {
        // Six points in column 0 and one in column 1.
        let points = [(0.0, 5.0), (0.1, 1.0), (0.2, 6.0), (0.3, 9.0), (0.4, 2.0), (0.5, 4.0), (1.2, 7.0)];
        let thinned = thin(points.map(Some), 1.0);
        assert_eq!(thinned, [[(0.0, 5.0), (0.1, 1.0), (0.3, 9.0), (0.5, 4.0), (1.2, 7.0)]]);
    }

    #[test]
    fn gaps_divide_unless_they_are_narrower_than_a_column() {
        let points = [None, Some((0.0, 1.0)), None, Some((0.5, 2.0)), None, Some((3.0, 3.0)), None];
        assert_eq!(thin(points, 1.0), [vec![(0.0, 1.0), (0.5, 2.0)], vec![(3.0, 3.0)]]);
        let not_numbers = [Some((0.0, 1.0)), Some((1.0, f64::NAN)), Some((2.0, 1.0))];
        assert_eq!(thin(not_numbers, 1.0).len(), 2);
        assert!(thin([None, None], 1.0).is_empty());
        assert!(thin([], 1.0).is_empty());
    }

    #[test]
    fn however_many_points_the_picture_stays_small_and_spikes_stay_in_it() {
        // A sine over 300 columns, every third point a gap, one spike.
        let points = (0..100_000).map(|i| {
            let y = if i == 43_210 { 1e6 } else { (f64::from(i) * 0.01).sin() };
            (i % 3 != 2).then_some((f64::from(i) * 0.003, y))
        });
        let thinned = thin(points, 1.0);
        assert_eq!(thinned.len(), 1);
        assert!(thinned[0].len() <= 4 * 300, "{}", thinned[0].len());
        assert_eq!(thinned[0].iter().filter(|(_, y)| *y == 1e6).count(), 1);
        assert!(thinned[0].windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
