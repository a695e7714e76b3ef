//! Activations for a training straight from the model, without shards.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

use burn::tensor::Device;
use monosema_core::{Ahead, Digest, manifest::Work};
use monosema_store::{
    Activations, BatchPlan, GroupNumbers, HookColumn, RowGroup, RowGroups, StoreError, StoreSchema,
};
use monosema_transformer::{Checkpoint, LanguageModel};

use crate::{
    HarvestError, HarvestPlan,
    rows::{OwnedRows, RowMaker},
    windows::{Windows, windows},
};

/// Groups of rows that wait to be shuffled.
const GROUPS_AHEAD: usize = 2;

/// What a [`HarvestPlan`] would store, made as it is asked for: the model runs beside the training. Rows come in the order of
/// the text, which begins again at its end, and are shuffled in the buffer alone. They depend on the model, the text and
/// the plan, so that a training can be taken up: what it has had already is passed by without running the model.
pub struct Stream {
    plan: HarvestPlan,
    schema: StoreSchema,
    work: Work,
    checkpoint: Checkpoint,
    device: Device,
    /// Loaded when it is needed first.
    model: OnceLock<LanguageModel>,
    kept: Arc<Mutex<Kept>>,
}

/// Groups of a short reading, a sample, with which a longer one begins: the model need not run over them twice.
#[derive(Default)]
struct Kept {
    /// Of which hooks.
    hooks: Vec<HookColumn>,
    groups: BTreeMap<usize, RowGroup>,
}

impl Kept {
    /// The group of this number, if it is there. A long reading needs none before it again.
    fn find(&mut self, number: usize, long: bool) -> Option<RowGroup> {
        if long {
            self.groups = self.groups.split_off(&number);
        }
        self.groups.get(&number).cloned()
    }
}

impl Stream {
    /// Of the model in `checkpoint`, on `device`; `work` is the plan's.
    pub fn new(plan: HarvestPlan, work: Work, checkpoint: Checkpoint, device: &Device) -> Self {
        let (schema, device) = (plan.schema(), device.clone());
        Self { plan, schema, work, checkpoint, device, model: OnceLock::new(), kept: Arc::default() }
    }

    fn model(&self) -> Result<LanguageModel, HarvestError> {
        if let Some(model) = self.model.get() {
            return Ok(model.clone());
        }
        let model = self.checkpoint.load(&self.device)?;
        Ok(self.model.get_or_init(|| model).clone())
    }

    /// On its way from the beginning of the text on, past `hooks`.
    fn pass(&self, hooks: &[HookColumn]) -> Result<Pass, HarvestError> {
        Ok(Pass {
            windows: windows(&self.plan, &self.checkpoint, u64::MAX)?,
            maker: RowMaker::new(&self.plan, self.model()?, hooks),
            known: !self.plan.rows_depend_on_values(),
            rows: OwnedRows::default(),
            first: 0,
        })
    }

    /// How rows are cut into groups.
    fn group_tokens(&self) -> u64 {
        self.plan.shards.row_group_tokens
    }
}

impl Activations for Stream {
    fn name(&self) -> String {
        format!("activations of {}", self.plan.model)
    }

    fn schema(&self) -> &StoreSchema {
        &self.schema
    }

    /// As many as the plan expects.
    fn tokens(&self) -> u64 {
        self.plan.tokens
    }

    fn work(&self) -> &Work {
        &self.work
    }

    fn digest(&self) -> Digest {
        self.work.digest()
    }

    /// Loads the model.
    fn verify(&self) -> Result<(), StoreError> {
        self.model().map(drop).map_err(stored)
    }

    /// All is one epoch: nobody waits at the end of the text until the buffer is empty.
    fn group_sizes(&self, plan: &BatchPlan, epoch: u64) -> Vec<usize> {
        let most = self.group_tokens();
        let groups = if epoch == 0 { plan.tokens.div_ceil(most) } else { 0 };
        // A group is held in memory.
        (0..groups).map(|group| (plan.tokens - group * most).min(most) as usize).collect()
    }

    fn read(&self, plan: &BatchPlan, numbers: GroupNumbers) -> RowGroups {
        let hooks = [Some(plan.hook), plan.hook_out].into_iter().flatten();
        let opened = hooks.map(|hook| self.hook_column(hook)).collect::<Result<Vec<_>, _>>();
        let opened = opened.and_then(|hooks| Ok((self.pass(&hooks).map_err(stored)?, hooks)));
        let (pass, hooks) = match opened {
            Ok(opened) => opened,
            Err(error) => return Ahead::once(Err(error)),
        };
        let groups = Groups {
            schema: StoreSchema { hooks, ..self.schema.clone() },
            pass,
            kept: self.kept.clone(),
            group_tokens: self.group_tokens(),
            tokens: plan.tokens,
            long: plan.tokens > plan.buffer_tokens as u64,
        };
        Ahead::new(GROUPS_AHEAD, groups.of(numbers))
    }
}

/// One reading.
struct Groups {
    /// With the hooks that are read.
    schema: StoreSchema,
    pass: Pass,
    kept: Arc<Mutex<Kept>>,
    group_tokens: u64,
    /// In all groups.
    tokens: u64,
    /// Whether it is of more than the shuffle buffer holds.
    long: bool,
}

impl Groups {
    fn of(mut self, numbers: GroupNumbers) -> impl Iterator<Item = Result<RowGroup, StoreError>> + Send {
        let (each, all) = (self.group_tokens, self.tokens);
        let mut failed = false;
        // An error is the last that comes.
        numbers.take_while(move |&number| (number as u64) * each < all).map_while(move |number| {
            let made = (!failed).then(|| self.make(number))?;
            failed = made.is_err();
            Some(made)
        })
    }

    fn make(&mut self, number: usize) -> Result<RowGroup, StoreError> {
        if let Some(group) = self.kept().find(number, self.long) {
            return Ok(group);
        }
        let start = number as u64 * self.group_tokens;
        let end = start + self.group_tokens;
        let rows = self.pass.take(start..end.min(self.tokens)).map_err(stored)?;
        let group = rows.with(|rows| RowGroup::new(&self.schema, rows))?;
        if !self.long && end <= self.tokens {
            self.kept().groups.insert(number, group.clone());
        }
        Ok(group)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        let mut kept = self.kept.lock().expect("nothing panics while it is locked");
        if kept.hooks != self.schema.hooks {
            *kept = Kept { hooks: self.schema.hooks.clone(), ..Kept::default() };
        }
        kept
    }
}

/// The model on its way through the text.
struct Pass {
    windows: Ahead<Result<Windows, HarvestError>>,
    maker: RowMaker,
    /// Whether windows tell how many rows they give.
    known: bool,
    /// Rows that were computed and not taken yet.
    rows: OwnedRows,
    /// The number of the first of them, counted from the beginning of the text on.
    first: u64,
}

impl Pass {
    /// Rows of these numbers, which are none that were taken before. What comes before them is passed by.
    fn take(&mut self, wanted: Range<u64>) -> Result<OwnedRows, HarvestError> {
        loop {
            let end = self.first + self.rows.len() as u64;
            // Rows fit into memory, and so do their numbers.
            let dropped = wanted.start.min(end) - self.first;
            self.rows.take_first(dropped as usize);
            self.first += dropped;
            if wanted.end <= end {
                self.first = wanted.end;
                return Ok(self.rows.take_first((wanted.end - wanted.start) as usize));
            }
            let windows = self.windows.next().expect("the text begins again, or fails")?;
            let next = end + windows.batch.n_counted() as u64;
            if self.known && next <= wanted.start {
                self.maker.pass_by(&windows);
                self.first = next;
            } else {
                self.rows.append(self.maker.make(&windows)?.0);
            }
        }
    }
}

fn stored(error: HarvestError) -> StoreError {
    match error {
        HarvestError::Store(error) => error,
        other => StoreError::Source(Box::new(other)),
    }
}
