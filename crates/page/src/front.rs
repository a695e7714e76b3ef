//! Which of several trade-offs are not beaten by another.

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// Less.
    Lower,
    /// More.
    Higher,
}

/// The places of those `points` that no other one beats: as good in both coordinates and better in one. They rise in x;
/// equal points are all on the front, points that are not finite never.
pub fn pareto_front(points: &[(f64, f64)], better: [Better; 2]) -> Vec<usize> {
    // As costs: lower is better. Adding 0 makes -0 sort as what it equals.
    let cost = |value: f64, better: Better| if better == Better::Lower { value + 0.0 } else { 0.0 - value };
    let costs: Vec<_> = points.iter().map(|&(x, y)| (cost(x, better[0]), cost(y, better[1]))).collect();
    let mut order: Vec<usize> =
        (0..points.len()).filter(|&i| points[i].0.is_finite() && points[i].1.is_finite()).collect();
    order.sort_by(|&a, &b| costs[a].0.total_cmp(&costs[b].0).then(costs[a].1.total_cmp(&costs[b].1)));
    let mut front: Vec<usize> = Vec::new();
    for place in order {
        let beaten = front.last().is_some_and(|&last| {
            costs[last].1 < costs[place].1
                || (costs[last].1 == costs[place].1 && costs[last].0 < costs[place].0)
        });
        if !beaten {
            front.push(place);
        }
    }
    front.sort_by(|&a, &b| points[a].0.total_cmp(&points[b].0).then(a.cmp(&b)));
    front
}

#[cfg(test)]
mod tests {
    use super::{Better::*, *};

    #[test]
    fn fronts_by_hand() {
        // L0 and FVU: (20, 0.30) is beaten by (10, 0.30), (40, 0.35) by all but (10, 0.30) and (20, 0.30)'s equals.
        let points = [(40.0, 0.35), (10.0, 0.30), (20.0, 0.30), (30.0, 0.10), (50.0, 0.05)];
        assert_eq!(pareto_front(&points, [Lower, Lower]), [1, 3, 4]);
        // The same with the second coordinate to be large.
        assert_eq!(pareto_front(&points, [Lower, Higher]), [1, 0]);
        assert_eq!(pareto_front(&points, [Higher, Lower]), [4]);
    }

    #[test]
    fn equals_are_all_on_the_front() {
        let points = [(1.0, 2.0), (1.0, 2.0), (1.0, 3.0), (2.0, 1.0), (2.0, 1.0)];
        assert_eq!(pareto_front(&points, [Lower, Lower]), [0, 1, 3, 4]);
    }

    #[test]
    fn what_is_not_finite_is_on_no_front() {
        let points = [(f64::NAN, 0.0), (1.0, f64::NEG_INFINITY), (2.0, 2.0), (f64::INFINITY, 0.0)];
        assert_eq!(pareto_front(&points, [Lower, Lower]), [2]);
        assert!(pareto_front(&[], [Lower, Lower]).is_empty());
    }

    #[test]
    fn a_front_is_what_its_definition_says() {
        // Pseudo-random points on a grid, so that there are ties.
        let mut state = 1_u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) % 12) as f64
        };
        let points: Vec<_> = (0..60).map(|_| (next(), next())).collect();
        let beats = |a: (f64, f64), b: (f64, f64)| a.0 <= b.0 && a.1 <= b.1 && a != b;
        let mut front = pareto_front(&points, [Lower, Lower]);
        front.sort_unstable();
        let expected: Vec<_> =
            (0..60).filter(|&i| !points.iter().any(|&other| beats(other, points[i]))).collect();
        assert_eq!(front, expected);
    }
}
