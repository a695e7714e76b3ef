//! A harvest split into parts that know nothing of one another, and joined again.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::Path,
    str::FromStr,
};

use monosema_core::{Manifest, ManifestError, Stage, manifest, manifest::Work};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{Place, StoreError};

const PREFIX: &str = "part-";
const INFIX: &str = "-of-";

/// The key of a part's work that says which it is.
const PART: &str = "part";

/// The key of the work of joined parts that says how many there were.
const PARTS: &str = "parts";

/// One of the parts that a harvest is split into: `3/16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Part {
    /// Which of them, from 1.
    number: u64,
    /// How many there are.
    of: u64,
}

impl Part {
    /// All parts of so many.
    pub fn all(of: u64) -> impl Iterator<Item = Self> {
        (1..=of).map(move |number| Self { number, of })
    }

    /// How many parts there are.
    pub fn of(self) -> u64 {
        self.of
    }

    /// Whether this part takes the document of this number: every `of`-th, so that parts are about as long.
    pub fn takes(self, document: u64) -> bool {
        document % self.of == self.number - 1
    }

    /// How many of `n` this part has, so that all have `n`.
    pub fn share(self, n: u64) -> u64 {
        n / self.of + u64::from(self.number <= n % self.of)
    }

    /// The name of its directory, within that of the whole.
    pub fn directory(self) -> String {
        format!("{PREFIX}{:05}{INFIX}{:05}", self.number, self.of)
    }

    /// The part whose directory is called so.
    pub fn of_directory(name: &str) -> Option<Self> {
        let (number, of) = name.strip_prefix(PREFIX)?.split_once(INFIX)?;
        let part: Self = format!("{number}/{of}").parse().ok()?;
        (part.directory() == name).then_some(part)
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let numbers =
            text.split_once('/').and_then(|(number, of)| Some((number.parse().ok()?, of.parse().ok()?)));
        match numbers {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(format!("expected a part and how many there are, such as 1/16, found `{text}`")),
        }
    }
}

/// The parts whose directories are in `directory`; none if there is no such directory.
///
/// # Errors
/// A directory that cannot be read.
pub fn parts(directory: &Path) -> Result<BTreeSet<Part>, StoreError> {
    let places = Place::at(directory)?.names()?.places;
    Ok(places.iter().filter_map(|name| Part::of_directory(name)).collect())
}

/// The work of the whole that a joined store is of: it says how many parts there were, because windows that span documents
/// are other ones in every part. Of another store, its own.
pub fn whole_work(work: &Work) -> Work {
    let mut work = work.clone();
    if let Some(config) = work.config.as_object_mut() {
        config.shift_remove(PARTS);
    }
    work
}

/// Joins the parts in `directory` into one store of `work`: verifies all that they hold, and seals it.
///
/// # Errors
/// No parts; one that is missing, not finished, of other work, or damaged; no token in any; a disk that fails.
pub fn join(directory: &Path, mut work: Work) -> Result<Manifest, StoreError> {
    let cannot =
        |directory: &Path, reason: String| StoreError::CannotJoin { directory: directory.to_owned(), reason };
    let (all, found) = (Place::at(directory)?, parts(directory)?);
    let numbers: BTreeSet<u64> = found.iter().map(|part| part.of).collect();
    let of = match numbers.into_iter().collect::<Vec<_>>()[..] {
        [of] => of,
        [] => {
            let reason = "expected parts of a harvest, found none; make them with `monosema harvest --part 1/2` and so on";
            return Err(cannot(directory, reason.into()));
        }
        ref several => {
            let several: Vec<_> = several.iter().map(u64::to_string).collect();
            let several = several.join(" and of ");
            let reason =
                format!("parts of {several} are there; remove those that do not belong to this harvest");
            return Err(cannot(directory, reason));
        }
    };
    let config = |work: &mut Work, key: &str, value| {
        work.config.as_object_mut().expect("a plan is an object").insert(key.to_owned(), value);
    };
    let (mut counts, mut files) = (BTreeMap::<String, u64>::new(), BTreeMap::new());
    let mut devices = BTreeSet::new();
    let mut read = Vec::new();
    for part in Part::all(of) {
        let name = part.directory();
        let place = all.within(&name);
        let manifest = match Manifest::read(&place, Stage::Harvest) {
            Err(ManifestError::Unsealed { .. }) => {
                return Err(StoreError::UnfinishedPart { directory: place.path().to_owned(), part });
            }
            manifest => manifest?,
        };
        let mut expected = work.clone();
        config(&mut expected, PART, json!(part));
        if manifest.work != expected {
            let differences = manifest.work.differences(&expected).join("\n  ");
            let reason = format!(
                "a part of other work; remove it and make it anew\n(there → wanted):\n  {differences}"
            );
            return Err(cannot(place.path(), reason));
        }
        read.push((name, place, manifest));
    }
    for (name, place, manifest) in read {
        manifest.verify(&place)?;
        manifest.counts.into_iter().for_each(|(key, n)| *counts.entry(key).or_default() += n);
        files.extend(manifest.files.into_iter().map(|(file, entry)| (format!("{name}/{file}"), entry)));
        devices.insert(manifest.device);
    }
    if counts.get("tokens").is_none_or(|&tokens| tokens == 0) {
        return Err(cannot(directory, "no part holds a token; the text has nothing that counts".into()));
    }
    config(&mut work, PARTS, json!(of));
    let device = devices.into_iter().collect::<Vec<_>>().join(", ");
    let manifest = Manifest { counts, files, ..Manifest::new(work, &device) };
    manifest.write(&all)?;
    tracing::debug!("{}: {of} parts joined", directory.join(manifest::FILE_NAME).display());
    Ok(manifest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part {
        text.parse().unwrap()
    }

    #[test]
    fn parts_are_named_and_told_apart() {
        assert_eq!(part("3/16").directory(), "part-00003-of-00016");
        assert_eq!(Part::of_directory("part-00003-of-00016"), Some(part("3/16")));
        for other in
            ["part-3-of-16", "part-00000-of-00016", "part-00017-of-00016", "part-00003", "shard-00003"]
        {
            assert_eq!(Part::of_directory(other), None, "{other}");
        }
        for wrong in ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", ""] {
            let error = wrong.parse::<Part>().unwrap_err();
            assert!(error.contains("such as 1/16") && error.contains(wrong), "{error}");
        }
        assert_eq!(part("3/16").to_string(), "3/16");
    }

    #[test]
    fn every_document_and_token_has_one_part() {
        for n in [0, 1, 7, 100] {
            assert_eq!(Part::all(7).map(|part| part.share(n)).sum::<u64>(), n);
        }
        for document in 0..50 {
            assert_eq!(Part::all(7).filter(|part| part.takes(document)).count(), 1);
        }
        assert!(part("1/7").takes(0) && part("7/7").takes(6));
    }
}
