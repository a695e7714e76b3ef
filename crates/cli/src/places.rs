//! Where a run's results are, and what is there already.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow};
use monosema_core::{Manifest, ManifestError, Stage, manifest::Work};
use monosema_evaluator::{JSON_FILE, Report};
use monosema_sae::Description;
use monosema_trainer::checkpoint;

use crate::{
    args::RunArgs,
    failure::{Failure, Outcome},
    replace::Aside,
};

/// Where the members of a sweep are, within a run's directory.
pub(crate) const SWEEP: &str = "sweep";

/// Where a run's results are.
#[derive(Clone)]
pub(crate) struct Places {
    /// The whole run: `report.json` and `report.html` are here.
    pub out: PathBuf,
    /// The activations.
    pub acts: PathBuf,
    /// The dictionary.
    pub dictionary: PathBuf,
    overwrite: bool,
}

/// What a stage's directory holds already.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The same work, done: nothing to do.
    Done,
    /// Nothing, or what an interrupted stage left.
    Open,
    /// Something that must come back if the stage fails.
    Replace,
}

impl Places {
    pub(crate) fn new(args: &RunArgs) -> Self {
        let name = args.config.file_stem().unwrap_or("run".as_ref());
        let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(name));
        Self { acts: out.join("acts"), dictionary: out.join("dictionary"), out, overwrite: args.overwrite }
    }

    /// Those of a member of a sweep, which shares the activations.
    pub(crate) fn member(&self, name: &str) -> Self {
        let out = self.out.join(SWEEP).join(name);
        Self { dictionary: out.join("dictionary"), out, ..self.clone() }
    }

    /// The directory of a stage that has one of its own.
    pub(crate) fn of(&self, stage: Stage) -> Option<&Path> {
        match stage {
            Stage::Harvest => Some(&self.acts),
            Stage::Train => Some(&self.dictionary),
            Stage::Eval => None,
        }
    }

    /// Keeps a second process out for as long as the file is open.
    pub(crate) fn lock(&self) -> Outcome<File> {
        let out = &self.out;
        let path = out.join(".lock");
        let opened = fs::create_dir_all(out).and_then(|()| File::create(&path));
        let file = opened
            .with_context(|| format!("--out {}: cannot write there", out.display()))
            .map_err(Failure::usage)?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => Err(Failure::usage(anyhow!(
                "{}: another monosema is at work there; wait for it",
                out.display()
            ))),
            // Some file systems cannot lock; that is no reason not to work on them.
            Err(TryLockError::Error(_)) => Ok(file),
        }
    }

    /// Ends what a killed `--overwrite` began. Only for who holds the lock.
    pub(crate) fn recover(&self) -> Outcome {
        [&self.acts, &self.dictionary].into_iter().try_for_each(|directory| {
            let cannot = || format!("{}: cannot restore what was there before", directory.display());
            Aside::recover(directory).with_context(cannot).map_err(Failure::run)
        })
    }

    /// Refuses, before anything is done, what no stage could replace.
    pub(crate) fn check(&self, stages: &[Stage]) -> Outcome {
        if self.out.exists() && !self.out.is_dir() {
            let out = self.out.display();
            return Err(Failure::usage(anyhow!("--out {out}: expected a directory, found something else")));
        }
        for &stage in stages {
            let Some(directory) = self.of(stage) else { continue };
            if directory.exists() && !directory.is_dir() {
                return Err(Failure::usage(anyhow!(
                    "{}: expected a directory, found a file",
                    directory.display()
                )));
            }
            match Manifest::read(directory, stage) {
                Ok(_) => {}
                Err(ManifestError::Unsealed { .. }) => {
                    self.unsealed(stage, directory, None).map_err(Failure::usage)?;
                }
                Err(_) if self.overwrite => {}
                Err(error) => return Err(Failure::usage(anyhow!(error).context(UNUSABLE))),
            }
        }
        let report = self.out.join(JSON_FILE);
        if stages.contains(&Stage::Eval) && report.exists() && !self.overwrite {
            Report::read(&self.out).map_err(|error| Failure::usage(anyhow!(error).context(UNUSABLE)))?;
        }
        Ok(())
    }

    /// What the directory of `work`'s stage holds.
    ///
    /// # Errors
    /// Something that `--overwrite` alone may replace.
    pub(crate) fn standing(&self, directory: &Path, work: &Work) -> anyhow::Result<Standing> {
        let reason = match Manifest::read(directory, work.stage) {
            Ok(manifest) if manifest.work == *work => return Ok(Standing::Done),
            Err(ManifestError::Unsealed { .. }) => return self.unsealed(work.stage, directory, Some(work)),
            Ok(manifest) => other_work(directory, &manifest.work, work),
            Err(error) => anyhow!(error).context(UNUSABLE),
        };
        if self.overwrite { Ok(Standing::Replace) } else { Err(reason) }
    }

    /// A directory without a manifest is what an interrupted stage left. A training goes on from its checkpoints, if `work` is
    /// what they are of. But a dictionary may come from elsewhere.
    fn unsealed(&self, stage: Stage, directory: &Path, work: Option<&Work>) -> anyhow::Result<Standing> {
        if stage == Stage::Train
            && let Some(begun) = checkpoint::interrupted(directory)
        {
            return match work {
                Some(wanted) if begun != *wanted && !self.overwrite => {
                    Err(other_work(directory, &begun, wanted))
                }
                Some(wanted) if begun != *wanted => Ok(Standing::Replace),
                _ => Ok(Standing::Open),
            };
        }
        if stage != Stage::Train || !directory.join("cfg.json").exists() {
            return Ok(Standing::Open);
        }
        let ours = Description::read(directory).is_ok_and(|dictionary| !dictionary.metadata.facts.is_empty());
        if ours || self.overwrite {
            return Ok(Standing::Replace);
        }
        Err(anyhow!(
            "{}: a dictionary that monosema did not train is there; choose another --out, or replace it with --overwrite",
            directory.display()
        ))
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

const UNUSABLE: &str = "what is there cannot be used; choose another --out, or replace it with --overwrite";

fn other_work(place: &Path, there: &Work, wanted: &Work) -> anyhow::Error {
    let differences = there.differences(wanted);
    let shown = differences.iter().take(8).map(|line| format!("\n  {line}")).collect::<String>();
    let more = differences.len().saturating_sub(8);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    anyhow!(
        "{}: results of other work are there; choose another --out, or replace them with --overwrite\nmade with \
         (there → wanted):{shown}{more}",
        place.display()
    )
}
