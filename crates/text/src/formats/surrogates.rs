//! Halves of surrogate pairs that stand alone in JSON (`\ud83d`), as Python writes a text that holds one: JSON allows the
//! escape, but it names no character.

use std::ops::Range;

/// Where escapes stand in `json` that are one half of a surrogate pair without the other.
pub(super) fn lone(json: &str) -> Vec<Range<usize>> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(next) = json.get(at..).and_then(|rest| rest.find('\\')) {
        at += next;
        match (unit(json, at), unit(json, at + ESCAPE)) {
            (Some(0xD800..=0xDBFF), Some(0xDC00..=0xDFFF)) => at += 2 * ESCAPE,
            (Some(0xD800..=0xDFFF), _) => {
                found.push(at..at + ESCAPE);
                at += ESCAPE;
            }
            // A backslash and whatever it escapes, which is one byte in JSON.
            _ => at += 2,
        }
    }
    found
}

/// Bytes of `\uXXXX`.
const ESCAPE: usize = 6;

/// The code unit of the escape `\uXXXX` at this byte.
fn unit(json: &str, at: usize) -> Option<u32> {
    let digits = json.get(at..at + ESCAPE)?.strip_prefix("\\u")?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_told_from_halves() {
        let found =
            |json: &str| lone(json).into_iter().map(|range| json[range].to_owned()).collect::<Vec<_>>();
        assert_eq!(found(r#""\ud83d\ude00 \u00e9 \n \\ud83d""#), [""; 0]);
        assert_eq!(found(r#""\ud83d" "\uDE00""#), [r"\ud83d", r"\uDE00"]);
        assert_eq!(found(r#""\ud83d\ud83d\ude00\ude00\ud83dx""#), [r"\ud83d", r"\ude00", r"\ud83d"]);
        assert_eq!(found(r#""\\\ud83d\"#), [r"\ud83d"]);
        // What is not JSON is left to whoever reads it.
        assert_eq!(found("\\é \\ud8 \\u+123 \\"), [""; 0]);
    }
}
