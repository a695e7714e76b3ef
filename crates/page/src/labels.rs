//! Where the names of points go, so that none lies on another: each tries the places around its point, and one that finds
//! none is left out (its tooltip still has it).

use crate::frame::LETTER;

/// Half the size of a point's mark, with some air.
const MARK: f64 = 5.5;
const LINE: f64 = 10.0;

/// A rectangle: left, top, right, bottom.
type Area = [f64; 4];

/// Where a label is written from, and how SVG calls its alignment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Place {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) anchor: &'static str,
}

/// Places for as many labels as can be, each `(x, y, letters)`, in the order of their importance.
pub(crate) fn place(points: &[(f64, f64, usize)], within: Area) -> Vec<Option<Place>> {
    let marks: Vec<Area> = points.iter().map(|&(x, y, _)| [x - MARK, y - MARK, x + MARK, y + MARK]).collect();
    let mut taken: Vec<Area> = Vec::new();
    let mut places = Vec::new();
    for (index, &(x, y, letters)) in points.iter().enumerate() {
        let others = marks.iter().enumerate().filter(|(other, _)| *other != index).map(|(_, mark)| *mark);
        let occupied: Vec<Area> = others.chain(taken.iter().copied()).collect();
        let free = candidates(x, y).into_iter().find(|place| {
            let area = area(place, letters);
            inside(area, within) && !occupied.iter().any(|other| overlap(area, *other))
        });
        taken.extend(free.map(|place| area(&place, letters)));
        places.push(free);
    }
    places
}

fn candidates(x: f64, y: f64) -> [Place; 8] {
    let place = |dx: f64, dy: f64, anchor| Place { x: x + dx, y: y + dy, anchor };
    [
        place(7.0, 3.5, "start"),
        place(-7.0, 3.5, "end"),
        place(0.0, -7.5, "middle"),
        place(0.0, 14.5, "middle"),
        place(5.0, -5.0, "start"),
        place(5.0, 11.5, "start"),
        place(-5.0, -5.0, "end"),
        place(-5.0, 11.5, "end"),
    ]
}

fn area(place: &Place, letters: usize) -> Area {
    let width = LETTER * letters as f64;
    let left = match place.anchor {
        "start" => place.x,
        "end" => place.x - width,
        _ => place.x - width / 2.0,
    };
    // The line that letters stand on is a fifth above their lowest point.
    [left, place.y - 0.8 * LINE, left + width, place.y + 0.2 * LINE]
}

fn overlap(a: Area, b: Area) -> bool {
    a[0] < b[2] && b[0] < a[2] && a[1] < b[3] && b[1] < a[3]
}

fn inside(a: Area, within: Area) -> bool {
    a[0] >= within[0] && a[1] >= within[1] && a[2] <= within[2] && a[3] <= within[3]
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Area = [0.0, 0.0, 300.0, 100.0];

    #[test]
    fn a_label_goes_to_the_right_if_it_can() {
        let places = place(&[(50.0, 50.0, 4), (280.0, 50.0, 10)], ALL);
        assert_eq!(places[0], Some(Place { x: 57.0, y: 53.5, anchor: "start" }));
        // Ten letters are 59 wide: they would leave the picture.
        assert_eq!(places[1], Some(Place { x: 273.0, y: 53.5, anchor: "end" }));
    }

    #[test]
    fn no_label_lies_on_another_or_on_a_mark() {
        let points: Vec<_> = (0..40).map(|i| (f64::from(i * 37 % 300), f64::from(i * 23 % 100), 8)).collect();
        let areas: Vec<Area> = place(&points, ALL).iter().flatten().map(|place| area(place, 8)).collect();
        assert!(areas.len() > 5, "{}", areas.len());
        for (i, a) in areas.iter().enumerate() {
            assert!(inside(*a, ALL));
            assert!(areas[..i].iter().all(|b| !overlap(*a, *b)));
            let on = points.iter().filter(|p| overlap(*a, [p.0 - 3.0, p.1 - 3.0, p.0 + 3.0, p.1 + 3.0]));
            assert_eq!(on.count(), 0);
        }
    }

    #[test]
    fn without_room_there_is_no_label() {
        assert_eq!(place(&[(5.0, 5.0, 50)], ALL), [None]);
        assert!(place(&[], ALL).is_empty());
    }
}
