//! Labelled spans of a text, and what holds at its tokens.

use std::collections::BTreeMap;

use serde_json::Value;

use super::Labels;

/// A value that a factor has from one character on to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The character at which it begins to hold.
    pub(crate) start: usize,
    /// The character before which it ends.
    pub(crate) end: usize,
    /// Of what.
    pub(crate) factor: String,
    /// Which.
    pub(crate) value: String,
}

/// Reads `[[start, end, factor, value], …]` about a text of `n_characters`.
///
/// # Errors
/// Expected and found, if it is anything else, beyond the text, or if a factor has two values at once.
pub(crate) fn parse_spans(spans: &Value, n_characters: usize) -> Result<Vec<Span>, String> {
    let Value::Array(list) = spans else {
        return Err(format!("expected a list of [start, end, factor, value], found {}", kind(spans)));
    };
    let mut spans = Vec::with_capacity(list.len());
    for (number, span) in list.iter().enumerate() {
        let span = parse_span(span, n_characters).map_err(|reason| format!("span {number}: {reason}"))?;
        spans.push(span);
    }
    let mut order: Vec<&Span> = spans.iter().collect();
    order.sort_by(|a, b| a.factor.cmp(&b.factor).then(a.start.cmp(&b.start)));
    // Of each value of the factor the span that ends last.
    let mut last: BTreeMap<&str, &Span> = BTreeMap::new();
    for b in order {
        if last.values().next().is_some_and(|a| a.factor != b.factor) {
            last.clear();
        }
        if let Some(a) = last.values().find(|a| a.value != b.value && b.start < a.end) {
            return Err(format!(
                "expected one value of `{}` at a time, found `{}` at {}..{} and `{}` at {}..{}",
                a.factor, a.value, a.start, a.end, b.value, b.start, b.end
            ));
        }
        let longest = last.entry(&b.value).or_insert(b);
        if b.end > longest.end {
            *longest = b;
        }
    }
    Ok(spans)
}

fn parse_span(span: &Value, n_characters: usize) -> Result<Span, String> {
    let expected = "expected [start, end, factor, value]: two numbers of characters, a string, and a string, number or boolean";
    let Some([start, end, factor, value]) = span.as_array().map(Vec::as_slice) else {
        return Err(format!("{expected}; found {span}"));
    };
    let index = |value: &Value| value.as_u64().and_then(|value| usize::try_from(value).ok());
    let (Some(start), Some(end), Some(factor), Some(value)) =
        (index(start), index(end), factor.as_str(), plain(value))
    else {
        return Err(format!("{expected}; found {span}"));
    };
    if start >= end || end > n_characters {
        return Err(format!(
            "expected 0 <= start < end <= {n_characters}, the text's length in characters; found {span}"
        ));
    }
    Ok(Span { start, end, factor: factor.to_owned(), value })
}

/// A string, a number or a boolean as a name.
pub(crate) fn plain(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// What kind of JSON value it is, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// The classes of tokens that end before the characters `ends`: a token has the values that hold once it has been read, those of the spans
/// with `start < end of the token <= end`.
pub(crate) fn classes_of_tokens(spans: &[Span], ends: &[usize], labels: &mut Labels) -> Vec<Vec<u32>> {
    let mut classes = vec![Vec::new(); ends.len()];
    for span in spans {
        let class = labels.number(&span.factor, &span.value);
        let first = ends.partition_point(|&end| end <= span.start);
        for (of_token, _) in
            classes[first..].iter_mut().zip(&ends[first..]).take_while(|(_, end)| **end <= span.end)
        {
            // Two spans of one value may overlap.
            if !of_token.contains(&class) {
                of_token.push(class);
            }
        }
    }
    classes
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_has_what_holds_once_it_was_read() {
        // "at the beach now": the words end at 2, 6, 12, 16; `beach` holds from its first letter.
        let spans = parse_spans(&json!([[7, 16, "place", "beach"], [0, 6, "day", 3]]), 16).unwrap();
        let mut labels = Labels::default();
        let classes = classes_of_tokens(&spans, &[2, 6, 12, 16], &mut labels);
        assert_eq!(classes, [vec![1], vec![1], vec![0], vec![0]]);
        assert_eq!(labels.classes()[1].value, "3");
        // A span that ends within a token does not hold once that was read.
        let spans = parse_spans(&json!([[0, 10, "place", "farm"]]), 16).unwrap();
        let classes = classes_of_tokens(&spans, &[2, 6, 12, 16], &mut labels);
        assert_eq!(classes, [vec![2], vec![2], vec![], vec![]]);
    }

    #[test]
    fn what_is_no_span_is_refused() {
        let error = |spans: Value| parse_spans(&spans, 16).unwrap_err();
        assert!(error(json!("x")).contains("found a string"));
        for bad in
            [json!([1, 2, "f"]), json!([1, 2, 3, "v"]), json!([-1, 2, "f", "v"]), json!([1, 2, "f", null])]
        {
            let error = error(json!([[0, 1, "f", "v"], bad]));
            assert!(error.starts_with("span 1: expected [start, end, factor, value]"), "{error}");
        }
        assert!(error(json!([[3, 17, "f", "v"]])).contains("start < end <= 16"));
        assert!(error(json!([[3, 3, "f", "v"]])).contains("start < end <= 16"));
        let two = error(json!([[0, 5, "f", "v"], [4, 9, "f", "w"]]));
        assert!(two.contains("one value of `f` at a time, found `v` at 0..5 and `w` at 4..9"), "{two}");
        // Not only of neighbours.
        let two = error(json!([[0, 15, "f", "v"], [5, 6, "f", "v"], [8, 9, "f", "w"]]));
        assert!(two.contains("found `v` at 0..15 and `w` at 8..9"), "{two}");
        assert!(parse_spans(&json!([[0, 5, "f", "v"], [4, 9, "f", "v"], [0, 9, "g", "w"]]), 16).is_ok());
    }
}
