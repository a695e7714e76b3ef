//! English verbs: the forms that a narrator in the third person needs.

/// The tense of the narration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tense {
    Past,
    Present,
}

/// Base form and past form where `-ed` is wrong.
const IRREGULAR: &[(&str, &str)] = &[
    ("beat", "beat"),
    ("become", "became"),
    ("begin", "began"),
    ("blow", "blew"),
    ("break", "broke"),
    ("bring", "brought"),
    ("build", "built"),
    ("buy", "bought"),
    ("can", "could"),
    ("catch", "caught"),
    ("come", "came"),
    ("dig", "dug"),
    ("draw", "drew"),
    ("drink", "drank"),
    ("eat", "ate"),
    ("fall", "fell"),
    ("feed", "fed"),
    ("feel", "felt"),
    ("find", "found"),
    ("fly", "flew"),
    ("forget", "forgot"),
    ("give", "gave"),
    ("go", "went"),
    ("grow", "grew"),
    ("hang", "hung"),
    ("hide", "hid"),
    ("hold", "held"),
    ("know", "knew"),
    ("leave", "left"),
    ("lie", "lay"),
    ("light", "lit"),
    ("make", "made"),
    ("mean", "meant"),
    ("ring", "rang"),
    ("rise", "rose"),
    ("run", "ran"),
    ("say", "said"),
    ("see", "saw"),
    ("sell", "sold"),
    ("shake", "shook"),
    ("shine", "shone"),
    ("sing", "sang"),
    ("sit", "sat"),
    ("sleep", "slept"),
    ("smell", "smelled"),
    ("stand", "stood"),
    ("sweep", "swept"),
    ("swim", "swam"),
    ("swing", "swung"),
    ("take", "took"),
    ("tell", "told"),
    ("think", "thought"),
    ("throw", "threw"),
    ("wake", "woke"),
    ("wear", "wore"),
    ("weep", "wept"),
    ("win", "won"),
    ("wind", "wound"),
    ("write", "wrote"),
];

/// Regular verbs that double their last letter.
const DOUBLING: &[&str] = &[
    "clap", "drip", "drop", "flap", "hop", "hug", "hum", "nod", "rub", "slam", "snap", "sob", "stop", "tap",
    "trot", "wag",
];

/// `verb` in the third person, singular or plural.
pub(crate) fn conjugate(verb: &str, tense: Tense, plural: bool) -> String {
    match (verb, tense, plural) {
        ("be", Tense::Past, false) => return "was".into(),
        ("be", Tense::Past, true) => return "were".into(),
        ("be", Tense::Present, false) => return "is".into(),
        ("be", Tense::Present, true) => return "are".into(),
        ("have", Tense::Past, _) => return "had".into(),
        ("have", Tense::Present, false) => return "has".into(),
        ("do", Tense::Past, _) => return "did".into(),
        ("can", Tense::Present, _) => return verb.into(),
        _ => {}
    }
    match tense {
        Tense::Past => past(verb),
        Tense::Present if plural => verb.into(),
        Tense::Present => third_person(verb),
    }
}

fn past(verb: &str) -> String {
    if let Some((_, past)) = IRREGULAR.iter().find(|(base, _)| *base == verb) {
        return (*past).into();
    }
    let last = verb.chars().last().expect("a verb has letters");
    if last == 'e' {
        format!("{verb}d")
    } else if let Some(stem) = consonant_y(verb) {
        format!("{stem}ied")
    } else if DOUBLING.contains(&verb) {
        format!("{verb}{last}ed")
    } else {
        format!("{verb}ed")
    }
}

fn third_person(verb: &str) -> String {
    if let Some(stem) = consonant_y(verb) {
        format!("{stem}ies")
    } else if ["s", "x", "z", "ch", "sh", "o"].iter().any(|end| verb.ends_with(end)) {
        format!("{verb}es")
    } else {
        format!("{verb}s")
    }
}

/// `carr` of `carry`, nothing of `play`.
fn consonant_y(verb: &str) -> Option<&str> {
    let stem = verb.strip_suffix('y')?;
    (!stem.ends_with(['a', 'e', 'o', 'u'])).then_some(stem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let forms = |verb| {
            [
                conjugate(verb, Tense::Past, false),
                conjugate(verb, Tense::Present, false),
                conjugate(verb, Tense::Present, true),
            ]
        };
        assert_eq!(forms("walk"), ["walked", "walks", "walk"]);
        assert_eq!(forms("carry"), ["carried", "carries", "carry"]);
        assert_eq!(forms("play"), ["played", "plays", "play"]);
        assert_eq!(forms("go"), ["went", "goes", "go"]);
        assert_eq!(forms("watch"), ["watched", "watches", "watch"]);
        assert_eq!(forms("stop"), ["stopped", "stops", "stop"]);
        assert_eq!(forms("be"), ["was", "is", "are"]);
        assert_eq!(forms("have"), ["had", "has", "have"]);
        assert_eq!(forms("can"), ["could", "can", "can"]);
        assert_eq!(conjugate("be", Tense::Past, true), "were");
    }
}
