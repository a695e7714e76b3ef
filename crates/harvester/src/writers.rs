//! Where rows go: into one set of shards, or one for each hook.

use std::{
    collections::BTreeMap,
    ops::Range,
    path::{Path, PathBuf},
};

use monosema_core::{Manifest, ManifestError, Stage, manifest::Work};
use monosema_store::{Place, Rows, StoreError, Stored, Writer, Written};

use crate::{HarvestError, HarvestPlan, rows::OwnedRows};

/// The writers of a harvest, which get the same rows.
pub(crate) struct Writers {
    sets: Vec<Set>,
}

/// Shards of some of the hooks.
struct Set {
    directory: PathBuf,
    /// The name of its directory within that of the harvest; nothing if it is that one.
    name: Option<String>,
    /// Which of the plan's hooks.
    hooks: Range<usize>,
    /// None if it is finished already.
    writer: Option<Writer>,
}

impl Writers {
    /// Those of `plan`, whose work is `work`, into `out`.
    pub(crate) fn create(plan: &HarvestPlan, work: &Work, out: &Path) -> Result<Self, HarvestError> {
        if !plan.hooks_apart {
            let writer = Some(Writer::create(out, plan.schema(), plan.shards, work)?);
            let hooks = 0..plan.hooks.len();
            let set = Set { directory: out.to_owned(), name: None, hooks, writer };
            return Ok(Self { sets: vec![set] });
        }
        if Manifest::read(&Place::at(out)?, Stage::Harvest).is_ok() {
            return Err(StoreError::Sealed { directory: out.to_owned() }.into());
        }
        let mut sets = Vec::new();
        for (i, (hook, schema)) in plan.sets().into_iter().enumerate() {
            let name = hook.to_string();
            let directory = out.join(&name);
            let finished = match Manifest::read(&Place::at(&directory)?, Stage::Harvest) {
                Ok(manifest) => manifest.work == *work,
                Err(_) => false,
            };
            let writer = match finished {
                true => None,
                false => Some(Writer::create(&directory, schema, plan.shards, work)?),
            };
            sets.push(Set { directory, name: Some(name), hooks: i..i + 1, writer });
        }
        Ok(Self { sets })
    }

    /// What all of them have already.
    pub(crate) fn stored(&self) -> AllStored {
        AllStored(self.sets.iter().filter_map(|set| Some(set.writer.as_ref()?.stored().clone())).collect())
    }

    /// Passes by `n` rows that are stored already.
    pub(crate) fn skip(&mut self, n: u64) {
        self.sets.iter_mut().filter_map(|set| set.writer.as_mut()).for_each(|writer| writer.skip(n));
    }

    pub(crate) fn append(&mut self, rows: &OwnedRows) -> Result<(), HarvestError> {
        rows.with(|rows| {
            self.sets.iter_mut().try_for_each(|set| {
                let Some(writer) = &mut set.writer else { return Ok(()) };
                Ok(writer.append(Rows { vectors: &rows.vectors[set.hooks.clone()], ..rows })?)
            })
        })
    }

    /// Writes what is left and seals every set, and the whole in `out`, where that is not done.
    pub(crate) fn finish(
        self,
        out: &Path,
        manifest: Manifest,
        counts: &BTreeMap<String, u64>,
    ) -> Result<Manifest, HarvestError> {
        let mut files = BTreeMap::new();
        let apart = self.sets.iter().any(|set| set.name.is_some());
        for Set { directory, name, writer, .. } in self.sets {
            let written = writer.map(Writer::finish).transpose()?;
            let sealed = seal(&directory, &manifest, counts, written)?;
            let Some(name) = name else { return Ok(sealed) };
            files.extend(sealed.files.into_iter().map(|(file, entry)| (format!("{name}/{file}"), entry)));
        }
        let place = Place::at(out)?;
        match Manifest::read(&place, Stage::Harvest) {
            Err(ManifestError::Unsealed { .. }) if apart => {
                let mut counts = counts.clone();
                counts.insert("shards".to_owned(), files.len() as u64);
                let whole = Manifest { files, counts, ..manifest };
                whole.write(&place)?;
                Ok(whole)
            }
            sealed => {
                let sealed = sealed?;
                // A set that was lost as a whole knew nothing of what it had been.
                for (name, found) in files {
                    if let Some(expected) = sealed.files.get(&name).filter(|&expected| *expected != found) {
                        let (file, expected) = (out.join(name), expected.sha256.clone());
                        return Err(StoreError::NotTheSame { file, expected, found: found.sha256 }.into());
                    }
                }
                Ok(sealed)
            }
        }
    }
}

/// Seals a directory, unless it is sealed and has got back what it had lost.
fn seal(
    directory: &Path,
    manifest: &Manifest,
    counts: &BTreeMap<String, u64>,
    written: Option<Written>,
) -> Result<Manifest, HarvestError> {
    let place = Place::at(directory)?;
    match (Manifest::read(&place, Stage::Harvest), written) {
        (Err(ManifestError::Unsealed { .. }), Some(Written { shards, files, tokens })) => {
            let mut counts = counts.clone();
            counts.extend([("tokens".to_owned(), tokens), ("shards".to_owned(), shards.len() as u64)]);
            Ok(Manifest { files, ..manifest.clone() }.seal(&place, counts, &shards)?)
        }
        (sealed, _) => Ok(sealed?),
    }
}

/// What is there of every set that is not finished.
pub(crate) struct AllStored(Vec<Stored>);

impl AllStored {
    /// Whether nobody wants any of these rows.
    pub(crate) fn covers(&self, rows: &Range<u64>) -> bool {
        self.0.iter().all(|stored| stored.covers(rows.clone()))
    }
}
