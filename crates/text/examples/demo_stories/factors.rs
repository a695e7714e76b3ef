//! The factors behind every story, and the record of their values along its text.

use serde::Serialize;

/// What a story varies. Every factor has a fixed, named list of values ([`Factor::values`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Factor {
    /// The person named last.
    Name,
    /// Of the person named last, or referred to last as `he` or `she`.
    Gender,
    /// Whether the last subject was one person or several.
    Number,
    /// The animal that comes along.
    Companion,
    /// Where the story is.
    Place,
    /// The thing that the story turns on.
    Object,
    /// The colour of that thing.
    Colour,
    /// The weather.
    Weather,
    /// The time of day.
    Time,
    /// How the main character feels.
    Mood,
    /// The tense of the narration (direct speech within keeps its narrator's value).
    Tense,
    /// Narration or direct speech.
    Mode,
    /// The part that the sentence plays in the story.
    Beat,
}

impl Factor {
    /// All factors, in the order of their columns.
    pub(crate) const ALL: [Factor; 13] = [
        Factor::Name,
        Factor::Gender,
        Factor::Number,
        Factor::Companion,
        Factor::Place,
        Factor::Object,
        Factor::Colour,
        Factor::Weather,
        Factor::Time,
        Factor::Mood,
        Factor::Tense,
        Factor::Mode,
        Factor::Beat,
    ];

    /// The name of the factor in labels.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Factor::Name => "name",
            Factor::Gender => "gender",
            Factor::Number => "number",
            Factor::Companion => "companion",
            Factor::Place => "place",
            Factor::Object => "object",
            Factor::Colour => "colour",
            Factor::Weather => "weather",
            Factor::Time => "time",
            Factor::Mood => "mood",
            Factor::Tense => "tense",
            Factor::Mode => "mode",
            Factor::Beat => "beat",
        }
    }

    /// The values of the factor. A value is an index into this list.
    pub(crate) fn values(self) -> &'static [&'static str] {
        match self {
            Factor::Name => &[
                "Anna", "Lily", "Maya", "Clara", "Rosa", "Nina", "Ben", "Tom", "Oscar", "Leo", "Hugo", "Sam",
            ],
            Factor::Gender => &["female", "male"],
            Factor::Number => &["singular", "plural"],
            Factor::Companion => &["dog", "cat", "horse", "parrot", "goat", "rabbit", "duck", "donkey"],
            Factor::Place => &[
                "forest", "beach", "market", "bakery", "school", "farm", "harbour", "library", "mountain",
                "garden",
            ],
            Factor::Object => &[
                "kite", "lantern", "map", "basket", "key", "book", "ball", "scarf", "flute", "boat", "bell",
                "hat",
            ],
            Factor::Colour => &["red", "blue", "green", "yellow", "white", "black", "silver", "golden"],
            Factor::Weather => &["clear", "rainy", "windy", "snowy", "foggy", "stormy"],
            Factor::Time => &["dawn", "morning", "afternoon", "evening", "night"],
            Factor::Mood => &["happy", "sad", "angry", "afraid", "tired", "curious", "proud", "calm"],
            Factor::Tense => &["past", "present"],
            Factor::Mode => &["narration", "speech"],
            Factor::Beat => &[
                "opening",
                "scene",
                "weather",
                "time",
                "companion",
                "object",
                "activity",
                "event",
                "feeling",
                "dialogue",
                "journey",
                "closing",
            ],
        }
    }
}

/// The index of `value` among the values of `factor`. Panics if it is none of them.
pub(crate) fn index(factor: Factor, value: &str) -> usize {
    factor.values().iter().position(|v| *v == value).expect("a value of the factor")
}

/// The factors along one text: a step function each. A value holds from the word that first gives it away
/// until the word that gives away the next; before the first, the factor is unknown.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Record {
    steps: Vec<(usize, Factor, usize)>,
}

/// `value` of `factor` holds for the bytes `start..end`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Span(pub(crate) usize, pub(crate) usize, pub(crate) &'static str, pub(crate) &'static str);

impl Record {
    /// From byte `at` on, `factor` has the value of index `value`.
    pub(crate) fn set(&mut self, at: usize, factor: Factor, value: usize) {
        if self.value(factor, usize::MAX) != Some(value) {
            self.steps.push((at, factor, value));
        }
    }

    /// The value of `factor` once the first `end` bytes have been read.
    pub(crate) fn value(&self, factor: Factor, end: usize) -> Option<usize> {
        self.steps.iter().rev().find(|s| s.1 == factor && s.0 < end).map(|s| s.2)
    }

    /// Maximal spans in a text of `len` bytes, by factor and then by place.
    pub(crate) fn spans(&self, len: usize) -> Vec<Span> {
        let mut spans = Vec::new();
        for factor in Factor::ALL {
            let steps: Vec<_> = self.steps.iter().filter(|s| s.1 == factor && s.0 < len).collect();
            for (i, step) in steps.iter().enumerate() {
                let end = steps.get(i + 1).map_or(len, |next| next.0);
                // Two steps in one place: the second is what holds.
                if end > step.0 {
                    spans.push(Span(step.0, end, factor.name(), factor.values()[step.2]));
                }
            }
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_holds_until_the_next_and_repeats_are_one_span() {
        let mut record = Record::default();
        record.set(2, Factor::Mood, 0);
        record.set(4, Factor::Mood, 0);
        record.set(5, Factor::Mood, 1);
        let spans = record.spans(9);
        assert_eq!(spans, [Span(2, 5, "mood", "happy"), Span(5, 9, "mood", "sad")]);
        // A token that ends where the revealing word begins does not know it yet.
        assert_eq!(record.value(Factor::Mood, 2), None);
        assert_eq!(record.value(Factor::Mood, 3), Some(0));
        assert_eq!(record.value(Factor::Mood, 6), Some(1));
    }
}
