//! Where a run's results are, and what is there already.

use std::{
    collections::BTreeSet,
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use monosema_core::{Manifest, ManifestError, Stage, manifest, manifest::Work};
use monosema_evaluator::{JSON_FILE, Report};
use monosema_store::{Part, Place, StoreError, makers, parts, whole_work};
use monosema_trainer::{Diverged, Found};

use crate::{
    experiment::Experiment,
    failure::{Failure, Outcome},
    replace,
};

/// Where the members of a sweep are, within a run's directory.
pub(crate) const SWEEP: &str = "sweep";

/// Where the reports of dictionaries from anywhere are, within a run's directory.
pub(crate) const EVAL: &str = "eval";

/// Where a run's results are.
#[derive(Clone)]
pub(crate) struct Places {
    /// The whole run: `report.json` and `report.html` are here.
    pub out: PathBuf,
    /// The activations: all of them, or the part that is harvested here.
    pub acts: PathBuf,
    /// All of the activations.
    all: PathBuf,
    /// The part of the harvest, if it is not all.
    pub part: Option<Part>,
    /// The dictionary.
    pub dictionary: PathBuf,
    overwrite: bool,
}

/// What is to be done for a stage's directory.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing: the same work is done.
    Done,
    /// The work, there: there is nothing, or what was interrupted goes on.
    Here,
    /// The work, beside what is there: it takes its place once it is done.
    Beside {
        /// Not to go on with what was interrupted there.
        anew: bool,
    },
}

impl Places {
    /// Of the experiment in the file `config`, in `out` if it says so.
    pub(crate) fn new(
        config: &Path,
        experiment: &Experiment,
        out: Option<&Path>,
        overwrite: bool,
        part: Option<Part>,
    ) -> Outcome<Self> {
        let name = config.file_stem().unwrap_or("run".as_ref());
        let out = out.map_or_else(|| Path::new("runs").join(name), Path::to_owned);
        if Place::is_elsewhere(&out) {
            let reason = "expected a directory; activations alone go to an object store, with [harvest] to";
            return Err(Failure::usage(anyhow!("--out {}: {reason}", out.display())));
        }
        let to = experiment.harvest.as_ref().and_then(|harvest| harvest.to.as_deref());
        let all = to.map_or_else(|| out.join("acts"), |to| PathBuf::from(to.trim_end_matches('/')));
        if let Some(to) = to.filter(|_| !Place::is_elsewhere(&all)) {
            let expected = "expected a place in an object store, such as s3://bucket/acts; a directory is named with --out";
            return Err(Failure::usage(anyhow!("{}: [harvest] to = \"{to}\": {expected}", config.display())));
        }
        Place::at(&all).map_err(Failure::usage)?;
        let acts = part.map_or(all.clone(), |part| all.join(part.directory()));
        Ok(Self { acts, all, part, dictionary: out.join("dictionary"), out, overwrite })
    }

    /// Those of a member of a sweep, which shares the activations.
    pub(crate) fn member(&self, name: &str) -> Self {
        let out = self.out.join(SWEEP).join(name);
        Self { dictionary: out.join("dictionary"), out, ..self.clone() }
    }

    /// Those of a dictionary from anywhere, whose report belongs to this run.
    pub(crate) fn guest(&self, name: &str, dictionary: PathBuf) -> Self {
        Self { dictionary, out: self.out.join(EVAL).join(name), ..self.clone() }
    }

    /// The directory of a stage that has one of its own.
    pub(crate) fn of(&self, stage: Stage) -> Option<&Path> {
        match stage {
            Stage::Harvest => Some(&self.acts),
            Stage::Train => Some(&self.dictionary),
            Stage::Eval => None,
        }
    }

    /// Keeps a second process out for as long as the files are open. Who harvests a part lets those in that harvest others.
    pub(crate) fn lock(&self) -> Outcome<Vec<File>> {
        let Some(part) = self.part else { return Ok(vec![self.lock_file(".lock", File::try_lock)?]) };
        let all = self.lock_file(".lock", File::try_lock_shared)?;
        Ok(vec![all, self.lock_file(&format!(".lock-{}", part.directory()), File::try_lock)?])
    }

    fn lock_file(&self, name: &str, lock: fn(&File) -> Result<(), TryLockError>) -> Outcome<File> {
        let out = &self.out;
        let opened = fs::create_dir_all(out).and_then(|()| File::create(out.join(name)));
        let file = opened
            .with_context(|| format!("--out {}: cannot write there", out.display()))
            .map_err(Failure::usage)?;
        match lock(&file) {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::usage(anyhow!(
                "{}: another monosema is at work there; wait for it",
                out.display()
            ))),
            // Some file systems cannot lock; that is no reason not to work on them.
            Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    /// Ends what was being replaced when it was killed. Only for who holds the lock.
    pub(crate) fn recover(&self) -> Outcome {
        self.recover_stage(Stage::Harvest).and_then(|()| self.recover_stage(Stage::Train))
    }

    /// Lets what replaces a stage's results take their place, if it is whole.
    pub(crate) fn recover_stage(&self, stage: Stage) -> Outcome {
        // Nothing elsewhere is ever replaced.
        let here = self.of(stage).filter(|directory| !Place::is_elsewhere(directory));
        let Some(directory) = here else { return Ok(()) };
        let cannot = || format!("{}: cannot be replaced", directory.display());
        if replace::recover(directory, stage).with_context(cannot).map_err(Failure::run)? {
            tracing::info!("{}: replaced; what was there before is removed", directory.display());
        }
        Ok(())
    }

    /// Refuses, before anything is done, what no stage could replace.
    pub(crate) fn check(&self, stages: &[Stage]) -> Outcome {
        if self.out.exists() && !self.out.is_dir() {
            let out = self.out.display();
            return Err(Failure::usage(anyhow!("--out {out}: expected a directory, found something else")));
        }
        for &stage in stages {
            let Some(directory) = self.of(stage) else { continue };
            if let Found::Foreign(reason) = found(directory, stage)
                && (!self.overwrite || !directory.is_dir())
            {
                return Err(Failure::usage(foreign(directory, &reason)));
            }
        }
        let report = self.out.join(JSON_FILE);
        if stages.contains(&Stage::Eval) && report.exists() && !self.overwrite {
            Report::read(&self.out).map_err(|error| Failure::usage(anyhow!(error).context(UNUSABLE)))?;
        }
        Ok(())
    }

    /// What is to be done for the directory of `work`'s stage.
    ///
    /// # Errors
    /// Something that `--overwrite` alone may replace.
    pub(crate) fn standing(&self, directory: &Path, work: &Work) -> anyhow::Result<Standing> {
        let here = found(directory, work.stage);
        if Place::is_elsewhere(directory) {
            return self.standing_elsewhere(directory, here, work);
        }
        if matches!(&here, Found::Finished(there) if whole_work(there) == *work) {
            return Ok(Standing::Done);
        }
        if work.stage == Stage::Harvest {
            self.check_parts(&here)?;
            if let Some(standing) = self.standing_of_shards(directory, &here, work)? {
                return Ok(standing);
            }
        }
        // What `--overwrite` began goes on whether it is said again or not: it is the same command, or one that wants the same.
        match found(&replace::beside(directory), work.stage) {
            Found::Interrupted(there, _) if there == *work => return Ok(Standing::Beside { anew: false }),
            Found::Diverged(there) if there.work == *work => {
                return Ok(Standing::Beside { anew: self.overwrite });
            }
            _ => {}
        }
        let refused = match here {
            Found::Nothing => return Ok(Standing::Here),
            Found::Unsealed => None,
            Found::Foreign(reason) => Some(foreign(directory, &reason)),
            Found::Finished(there) => Some(other_work(directory, &there, work)),
            Found::Interrupted(ref there, _) | Found::Diverged(Diverged { work: ref there, .. }) => {
                match there == work {
                    true if !self.overwrite => return Ok(Standing::Here),
                    true => None,
                    false => Some(other_work(directory, there, work)),
                }
            }
        };
        match refused {
            Some(error) if !self.overwrite => Err(error),
            _ => Ok(Standing::Beside { anew: true }),
        }
    }

    /// What is to be done in an object store: what is there stays, and is gone on with or refused.
    fn standing_elsewhere(&self, directory: &Path, here: Found, work: &Work) -> anyhow::Result<Standing> {
        let remove = "choose another `to`, or remove what is there";
        let other =
            |there: &Work| anyhow!("{remove}").context(other_work(directory, there, work).to_string());
        match here {
            Found::Finished(there) if whole_work(&there) == *work => return Ok(Standing::Done),
            Found::Finished(there) | Found::Interrupted(there, _) if there != *work => {
                return Err(other(&there));
            }
            Found::Foreign(reason) => return Err(foreign(directory, &reason)),
            _ => {}
        }
        self.check_parts(&here)?;
        let there = makers(directory)?;
        if there.is_empty() || there == BTreeSet::from([Some(work.digest().to_string())]) {
            return Ok(Standing::Here);
        }
        Err(anyhow!("{}: an interrupted harvest of other work is there; {remove}", directory.display()))
    }

    /// What is to be done where there are shards and no manifest; `None` if there are none.
    fn standing_of_shards(
        &self,
        directory: &Path,
        here: &Found,
        work: &Work,
    ) -> anyhow::Result<Option<Standing>> {
        let goes_on = BTreeSet::from([Some(work.digest().to_string())]);
        if makers(&replace::beside(directory))? == goes_on {
            return Ok(Some(Standing::Beside { anew: false }));
        }
        if *here != Found::Nothing {
            return Ok(None);
        }
        let there = match makers(directory) {
            Err(_) if self.overwrite => return Ok(Some(Standing::Beside { anew: true })),
            there => there?,
        };
        match there == goes_on {
            // Parts that nobody joined.
            _ if there.is_empty() && self.overwrite && !parts(directory)?.is_empty() => {
                Ok(Some(Standing::Beside { anew: true }))
            }
            _ if there.is_empty() => Ok(None),
            _ if self.overwrite => Ok(Some(Standing::Beside { anew: true })),
            true => Ok(Some(Standing::Here)),
            false => Err(StoreError::OtherWork { directory: directory.to_owned() }.into()),
        }
    }

    /// Refuses what would mix a harvest with parts of one. `here` is what is where this harvest goes.
    fn check_parts(&self, here: &Found) -> anyhow::Result<()> {
        let all = &self.all;
        let place = Place::at(all)?;
        let sealed = Manifest::read_unchecked(&place, Stage::Harvest).ok();
        let joined = sealed.as_ref().filter(|manifest| whole_work(&manifest.work) != manifest.work);
        let Some(part) = self.part else {
            let lost = joined.and_then(|manifest| manifest.missing(&place).into_iter().next());
            if let Some(lost) = lost.filter(|_| !self.overwrite) {
                let part = lost.split('/').next().and_then(Part::of_directory);
                let part = part.map_or_else(String::new, |part| format!(" --part {part}"));
                let file = all.join(lost);
                return Err(anyhow!(
                    "{}: missing, or cut short; harvest{part} again makes it anew",
                    file.display()
                ));
            }
            return match parts(all)?.first() {
                Some(part) if sealed.is_none() && (!self.overwrite || Place::is_elsewhere(all)) => {
                    let (found, of) = (parts(all)?.len() as u64, part.of());
                    Err(StoreError::Unjoined { directory: all.clone(), found, of }.into())
                }
                _ => Ok(()),
            };
        };
        if sealed.is_some() && joined.is_none() || !makers(all)?.is_empty() {
            return Err(anyhow!(
                "{}: a harvest that is not split into parts is there; choose another --out, or remove it",
                all.display()
            ));
        }
        // What a sealed whole is made of may be repaired, and not replaced.
        let kept = matches!(here, Found::Finished(_) | Found::Interrupted(..));
        if joined.is_some() && (self.overwrite || !kept) {
            let manifest = all.join(manifest::FILE_NAME);
            let what =
                format!("the parts there are joined; to make part {part} anew, remove this file first");
            return Err(anyhow!("{}: {what}, and seal again afterwards", manifest.display()));
        }
        Ok(())
    }

    /// Refuses to replace the report of other work unless `--overwrite` says so.
    pub(crate) fn may_replace_report(&self, work: &Work) -> anyhow::Result<()> {
        let path = self.out.join(JSON_FILE);
        if self.overwrite || !path.exists() {
            return Ok(());
        }
        let report = Report::read(&self.out).context(UNUSABLE)?;
        if report.manifest.work == *work {
            Ok(())
        } else {
            Err(other_work(&path, &report.manifest.work, work))
        }
    }
}

/// What is in the directory of `stage`.
fn found(directory: &Path, stage: Stage) -> Found {
    match stage {
        Stage::Train => Found::dictionary(directory),
        Stage::Eval => Found::sealed(directory, stage),
        Stage::Harvest if Place::is_elsewhere(directory) => found_elsewhere(directory),
        Stage::Harvest => match Found::sealed(directory, stage) {
            Found::Foreign(reason) => match Manifest::read_unchecked(directory, stage) {
                // Shards that were lost are made anew.
                Ok(manifest) => Found::Interrupted(manifest.work, Vec::new()),
                Err(_) => Found::Foreign(reason),
            },
            found => found,
        },
    }
}

/// What is at a place in an object store.
fn found_elsewhere(directory: &Path) -> Found {
    // Why nobody can tell is what the store says, at the end of the chain.
    let foreign = |error: anyhow::Error| Found::Foreign(format!("{error:#}"));
    let place = match Place::at(directory) {
        Ok(place) => place,
        Err(error) => return foreign(error.into()),
    };
    match Manifest::read(&place, Stage::Harvest) {
        Ok(manifest) => Found::Finished(manifest.work),
        Err(ManifestError::Unsealed { .. }) => Found::Nothing,
        // Shards that were lost are made anew.
        Err(error @ ManifestError::Damaged { .. }) => {
            match Manifest::read_unchecked(&place, Stage::Harvest) {
                Ok(manifest) => Found::Interrupted(manifest.work, Vec::new()),
                Err(_) => foreign(error.into()),
            }
        }
        Err(error) => foreign(error.into()),
    }
}

fn foreign(directory: &Path, reason: &str) -> anyhow::Error {
    if Place::is_elsewhere(directory) {
        return anyhow!("{}: {reason}", directory.display());
    }
    anyhow!("{}: {reason}; choose another --out, or replace it with --overwrite", directory.display())
}

const UNUSABLE: &str = "what is there cannot be used; choose another --out, or replace it with --overwrite";

fn other_work(place: &Path, there: &Work, wanted: &Work) -> anyhow::Error {
    let differing = differing(place, there, wanted);
    anyhow!("{differing}\nchoose another --out, or replace them with --overwrite")
}

fn differing(place: &Path, there: &Work, wanted: &Work) -> String {
    let differences = there.differences(wanted);
    let shown = differences.iter().take(8).map(|line| format!("\n  {line}")).collect::<String>();
    let more = differences.len().saturating_sub(8);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    format!("{}: results of other work are there, made with (there → wanted):{shown}{more}", place.display())
}
