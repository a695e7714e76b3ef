//! A chosen set of positions, in a small notation: `"1..64"`, `"0, 5, 10.."`, `"last"`.

use std::{fmt, ops::Range, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// What stands for the last token of each document.
const LAST: &str = "last";

/// Positions within a window. Pieces are separated by commas, and what is in any of them is chosen: `5`; `1..64`, which is
/// 1 to 63 as in Rust and Python; `10..` and `..10`; `last`, the last token of each document wherever it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Positions {
    ranges: Vec<Range<usize>>,
    last: bool,
}

impl Positions {
    /// Whether a token at `position` of its window is chosen; `is_last` if it is the last of its document.
    pub(crate) fn contain(&self, position: usize, is_last: bool) -> bool {
        self.last && is_last || self.ranges.iter().any(|range| range.contains(&position))
    }

    /// The first piece that begins at or after `length`.
    pub(crate) fn beyond(&self, length: usize) -> Option<String> {
        self.ranges.iter().find(|range| range.start >= length).map(piece)
    }

    /// Whether any position of `range` may be chosen.
    pub(crate) fn meet(&self, range: &Range<usize>) -> bool {
        self.last || self.ranges.iter().any(|own| own.start.max(range.start) < own.end.min(range.end))
    }
}

impl FromStr for Positions {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut positions = Self { ranges: Vec::new(), last: false };
        for part in text.split(',').map(str::trim) {
            let bad = |why: &str| {
                format!(
                    "positions `{text}`: `{part}`: {why}; expected pieces like `5`, `1..64` (64 not included), `10..`, \
                     `..10` or `{LAST}`, separated by commas"
                )
            };
            let number = |text: &str| text.trim().parse::<usize>().map_err(|_| bad("not a position"));
            if part == LAST {
                positions.last = true;
                continue;
            }
            let range = match part.split_once("..") {
                Some(("", "")) => return Err(bad("not a position")),
                Some((start, "")) => number(start)?..usize::MAX,
                Some(("", end)) => 0..number(end)?,
                Some((start, end)) => number(start)?..number(end)?,
                None => {
                    let position = number(part)?;
                    position..position.saturating_add(1)
                }
            };
            if range.is_empty() {
                return Err(bad("no position is in it"));
            }
            positions.ranges.push(range);
        }
        Ok(positions)
    }
}

fn piece(range: &Range<usize>) -> String {
    match *range {
        Range { start, end: usize::MAX } => format!("{start}.."),
        Range { start, end } if end == start + 1 => start.to_string(),
        Range { start, end } => format!("{start}..{end}"),
    }
}

impl fmt::Display for Positions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.last.then(|| LAST.to_owned());
        f.write_str(&self.ranges.iter().map(piece).chain(last).collect::<Vec<_>>().join(","))
    }
}

impl Serialize for Positions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Positions {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(text: &str, last: usize) -> Vec<usize> {
        let positions: Positions = text.parse().unwrap();
        (0..12).filter(|&position| positions.contain(position, position == last)).collect()
    }

    #[test]
    fn pieces_choose_positions() {
        assert_eq!(chosen("5", 11), [5]);
        assert_eq!(chosen("2..5", 11), [2, 3, 4]);
        assert_eq!(chosen("9..", 3), [9, 10, 11]);
        assert_eq!(chosen("..2", 3), [0, 1]);
        assert_eq!(chosen("last", 7), [7]);
        assert_eq!(chosen(" ..2 , 1..3,10 ,last", 7), [0, 1, 2, 7, 10]);
    }

    #[test]
    fn what_is_written_reads_back() {
        for (text, written) in [("..3, 5", "0..3,5"), ("7..", "7.."), ("last,1..64", "1..64,last")] {
            let positions: Positions = text.parse().unwrap();
            assert_eq!(positions.to_string(), written);
            assert_eq!(written.parse::<Positions>().unwrap(), positions);
            let json = serde_json::to_string(&positions).unwrap();
            assert_eq!(serde_json::from_str::<Positions>(&json).unwrap(), positions);
        }
    }

    #[test]
    fn where_they_lie() {
        let positions = |text: &str| text.parse::<Positions>().unwrap();
        assert!(positions("0..3").meet(&(2..8)) && !positions("0..3").meet(&(3..8)));
        assert!(positions("0,last").meet(&(3..8)));
        assert_eq!(positions("3,8..10,last").beyond(8), Some("8..10".into()));
        assert_eq!(positions("3,7..").beyond(8), None);
    }

    #[test]
    fn what_is_no_set_of_positions_is_refused() {
        for text in ["", "a", "1..x", "..", "3..3", "5..2", "-1", "1,,2", "first", "1.5", "1...4"] {
            let error = text.parse::<Positions>().unwrap_err();
            assert!(error.contains(&format!("`{text}`")) && error.contains("`1..64`"), "{error}");
        }
    }
}
