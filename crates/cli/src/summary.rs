//! `monosema eval CONFIG DICTIONARY...`: how several dictionaries are called, and how they are shown together.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use monosema_evaluator::EvalSummary;

use crate::{
    failure::{Failure, Outcome},
    output,
    places::{EVAL, Places},
    table,
};

/// Short names of dictionaries: as many of the last parts of their paths as it takes to tell them apart, without `dictionary`.
pub(crate) fn names(paths: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let parts: Vec<Vec<String>> = paths.iter().map(|path| parts(path)).collect();
    let longest = parts.iter().map(Vec::len).max().unwrap_or(0);
    for taken in 1..=longest.max(1) {
        let name = |parts: &Vec<String>| parts[parts.len().saturating_sub(taken)..].join("-");
        let names: Vec<String> = parts.iter().map(name).collect();
        if names.iter().collect::<BTreeSet<_>>().len() == names.len() {
            return Ok(names);
        }
    }
    let given: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    Err(anyhow!("expected different dictionaries, found one more than once: {}", given.join(", ")))
}

fn parts(path: &Path) -> Vec<String> {
    // As the system names it, if it is there: `.` is no name.
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let normal = path.components().filter_map(|part| match part {
        std::path::Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        _ => None,
    });
    let mut parts: Vec<String> = normal.collect();
    if parts.len() > 1 && parts.last().is_some_and(|last| last == "dictionary") {
        parts.pop();
    }
    parts
}

/// Writes the summary beside the reports, and shows it.
pub(crate) fn show(summary: &EvalSummary, places: &Places, as_json: bool) -> Outcome {
    let directory = places.out.join(EVAL);
    summary.write(&directory).map_err(Failure::run)?;
    if as_json {
        return output::print(format_args!("{:#}", summary.to_json()));
    }
    let (head, rows) = summary.cells();
    let head: Vec<&str> = head.iter().map(String::as_str).collect();
    let page = directory.join(EvalSummary::HTML_FILE);
    output::print(format_args!("{}\nsummary: {}", table::render(&head, 1, rows), page.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_short_as_they_can_be() {
        let of = |paths: &[&str]| {
            names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>()).map_err(|error| error.to_string())
        };
        let named = |names: &[&str]| Ok(names.iter().map(|name| (*name).to_owned()).collect());
        assert_eq!(of(&["/r/a/dictionary", "/r/b"]), named(&["a", "b"]));
        assert_eq!(of(&["/r/a/x", "/r/b/x", "/r/b/y"]), named(&["a-x", "b-x", "b-y"]));
        assert!(of(&["/r/a", "/r/a/dictionary"]).is_err_and(|error| error.contains("more than once")));
    }
}
