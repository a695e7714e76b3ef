//! What the members of a sweep came to, side by side.

use std::path::{Path, PathBuf};

use anyhow::Context;
use monosema_core::{AtomicFile, Manifest, Stage, manifest::Work};
use monosema_evaluator::{HTML_FILE, Report};
use monosema_trainer::{
    Diverged, Training,
    sweep_page::{self, MemberRow},
};
use serde_json::{Value, json};

use crate::{
    failure::{Failure, Outcome},
    output,
    places::{Places, SWEEP},
    replace,
};

/// The summary's page and its numbers, within the run's directory of members.
const PAGE: &str = "summary.html";
const NUMBERS: &str = "summary.json";

/// The page of a training, within the dictionary's directory.
const LOGS_PAGE: &str = "logs/report.html";

const UNKNOWN: &str = "unknown";

/// A member: its name, what tells it from the others, and where it is.
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) differs: Vec<(String, Value)>,
    pub(crate) places: Places,
    /// How it diverged, if it did.
    pub(crate) failed: Option<String>,
}

/// Writes the summary of `members`, and shows it.
pub(crate) fn summarise(places: &Places, members: &[Member], as_json: bool) -> Outcome {
    let rows: Vec<MemberRow> = members.iter().map(row).collect::<Outcome<_>>()?;
    let directory = places.out.join(SWEEP);
    let numbers = json!(rows);
    let name = places.out.file_name().map_or_else(|| "run".into(), |name| name.to_string_lossy());
    write(&directory.join(PAGE), sweep_page::page(&name, &rows).as_bytes())?;
    write(&directory.join(NUMBERS), format!("{numbers:#}\n").as_bytes())?;
    if as_json {
        return output::print(format_args!("{numbers:#}"));
    }
    output::print(format_args!("{}summary: {}", sweep_page::text(&rows), directory.join(PAGE).display()))
}

fn write(path: &Path, contents: &[u8]) -> Outcome {
    AtomicFile::write(path, contents)
        .with_context(|| format!("cannot write {}", path.display()))
        .map_err(Failure::run)
}

/// What a member came to: what the evaluation measured if there was one, else what training saw last.
fn row(member: &Member) -> Outcome<MemberRow> {
    let Member { name, differs, places, failed } = member;
    let differs = differs.iter().map(|(key, value)| (key.clone(), plain(value))).collect();
    if let Some(error) = failed {
        // What it came to before says little, and must be on no front.
        let (page, architecture) = remains(&places.dictionary);
        let (name, note) = (name.clone(), Some(error.clone()));
        let link =
            page.and_then(|page| Some(page.strip_prefix(places.out.parent()?).ok()?.display().to_string()));
        return Ok(MemberRow { name, differs, architecture, link, note, ..MemberRow::default() });
    }
    let manifest = Manifest::read(&places.dictionary, Stage::Train).map_err(Failure::run)?;
    let Training { last, tokens_per_s } = Training::read(&places.dictionary).map_err(Failure::run)?;
    let report = Report::read(&places.out).ok();
    let of_report = |figure: &str| report.as_ref().and_then(|report| report.figure(figure));
    let dead = manifest.counts.get("dead_latents").zip(manifest.counts.get("d_sae"));
    let page = if report.is_some() { HTML_FILE } else { &format!("dictionary/{LOGS_PAGE}") };
    let architecture = architecture(&manifest.work);
    Ok(MemberRow {
        name: name.clone(),
        differs,
        architecture,
        l0: of_report("l0").or(Some(last.l0)),
        fvu: of_report("fvu").or(Some(last.fvu)),
        dead: of_report("dead").or_else(|| dead.map(|(dead, of)| *dead as f64 / *of as f64)),
        loss_recovered: of_report("loss_recovered.zero"),
        tokens_per_s,
        link: Some(format!("{name}/{page}")),
        note: None,
    })
}

/// What a training of this dictionary that diverged left, there or beside it: its page, and its architecture.
fn remains(dictionary: &Path) -> (Option<PathBuf>, String) {
    let places = [replace::beside(dictionary), dictionary.to_owned()];
    let diverged = places.into_iter().find_map(|place| Some((Diverged::read(&place)?, place)));
    let Some((Diverged { work, .. }, place)) = diverged else { return (None, UNKNOWN.into()) };
    (Some(place.join(LOGS_PAGE)).filter(|page| page.exists()), architecture(&work))
}

fn architecture(work: &Work) -> String {
    work.config["architecture"]["kind"].as_str().unwrap_or(UNKNOWN).to_owned()
}

/// As a configuration would have it, but for the quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
