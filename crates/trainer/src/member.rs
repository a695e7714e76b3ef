//! One dictionary while it is trained: what is done with a batch, what is carried to the next, what is saved of it.

use std::{
    collections::VecDeque,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor};
use monosema_core::manifest::Work;
use monosema_sae::{Sae, Scales};

use crate::{
    Logs, Rates, Record, TrainBatch, TrainError, TrainPlan,
    checkpoint::{Carried, Checkpoint},
    logs::{self, Lengths},
    resample::resample,
    schedule::MEASURED,
    step::{self, StepStats, TrainStep},
    watch::watch,
    window::{Means, Window},
};

/// Added to a frequency before its logarithm is taken; SAELens does the same.
const LOG_FLOOR: f64 = 1e-10;

/// A dictionary that is being trained.
pub(crate) struct Member {
    pub(crate) plan: TrainPlan,
    pub(crate) work: Work,
    /// The dictionary's directory.
    pub(crate) out: PathBuf,
    step: Box<dyn TrainStep>,
    window: Window,
    logs: Logs,
    carried: Carried,
    /// The mean of the smallest activations of batches, on the device.
    threshold: Option<Tensor<1>>,
    /// The penalties of the last steps before their exponent changes, with this one and the next.
    penalties: VecDeque<[Tensor<1>; 2]>,
    device: Device,
    /// FVU of a reconstruction that is zero.
    zero_fvu: f64,
    /// The last line of the logs.
    pub(crate) last: Option<Record>,
}

/// How often latents fired in the run's last `dead_window_tokens`.
pub(crate) struct Firing {
    /// log10(frequency + 1e-10) of each.
    pub(crate) log_sparsity: Vec<f32>,
    /// How many never did.
    pub(crate) dead_latents: u64,
}

impl Member {
    /// Begins, or takes up a checkpoint of the same work; `b_dec` is what b_dec begins with, in the units of training, and `zero_fvu`
    /// the FVU of a reconstruction that is zero.
    pub(crate) fn begin(
        plan: TrainPlan,
        work: Work,
        out: &Path,
        b_dec: Vec<f32>,
        zero_fvu: f64,
        checkpoint: Option<Checkpoint>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (step, _) = step::begin(&plan, b_dec, device);
        let lengths = checkpoint.as_ref().map_or_else(Lengths::new, |checkpoint| checkpoint.logs.clone());
        let mut member = Self::with_step(plan, work, out, step, &lengths, device)?;
        member.zero_fvu = zero_fvu;
        if let Some(checkpoint) = checkpoint {
            member.last = logs::read(out, logs::METRICS)?.pop();
            member.restore(checkpoint);
        }
        Ok(member)
    }

    /// Begins with a step of the caller's, and logs that go on after so many bytes.
    pub(crate) fn with_step(
        plan: TrainPlan,
        work: Work,
        out: &Path,
        step: Box<dyn TrainStep>,
        logs: &Lengths,
        device: &Device,
    ) -> Result<Self, TrainError> {
        Ok(Self {
            step,
            window: Window::new(&plan, device),
            logs: Logs::open(out, logs)?,
            carried: Carried::default(),
            threshold: None,
            penalties: VecDeque::new(),
            device: device.clone(),
            zero_fvu: 1.0,
            last: None,
            out: out.to_owned(),
            plan,
            work,
        })
    }

    /// Takes the step `index`, from 0, on a batch.
    pub(crate) fn advance(&mut self, index: u64, batch: &TrainBatch) {
        let rates = self.rates(index);
        let dead = self.plan.architecture.heeds_dead().then(|| self.window.dead());
        let stats = self.step.step(batch, rates, dead);
        self.follow_threshold(&stats);
        self.follow_annealing(&stats, rates);
        self.window.add(stats, batch.variance);
        self.revive(index, batch);
    }

    /// What the schedule says of a step, λ as annealing left it.
    fn rates(&self, index: u64) -> Rates {
        let rates = self.plan.schedule.at(index);
        Rates { sparsity: rates.sparsity * self.carried.annealed.unwrap_or(1.0), ..rates }
    }

    /// Where latents are chosen in batches, the mean of the smallest chosen ones is what a dictionary's threshold will be.
    fn follow_threshold(&mut self, stats: &StepStats) {
        let Some(smallest) = stats.smallest.clone() else { return };
        let decay = self.plan.threshold_decay;
        // A batch that had fewer positive pre-activations than it may keep says nothing of where to cut.
        let says = |of: &Tensor<1>| of.clone().greater_scalar(0.0);
        self.threshold = Some(match self.threshold.take() {
            None => smallest,
            Some(mean) => {
                let both = mean.clone().mul_scalar(decay) + smallest.clone().mul_scalar(1.0 - decay);
                let known = smallest.clone().mask_where(says(&mean), both);
                mean.mask_where(says(&smallest), known)
            }
        });
    }

    /// When the penalty's exponent changes, λ changes so that the penalty stays what it was.
    fn follow_annealing(&mut self, stats: &StepStats, rates: Rates) {
        let Some(next) = stats.next_penalty.clone() else { return };
        self.penalties.push_back([stats.penalty.clone(), next]);
        if self.penalties.len() > MEASURED as usize {
            self.penalties.pop_front();
        }
        if rates.p_changes {
            let [now, next] = [0, 1].map(|i| self.measured().iter().map(|pair| pair[i]).sum::<f64>());
            let factor = if next > 0.0 { now / next } else { 1.0 };
            self.carried.annealed = Some(self.carried.annealed.unwrap_or(1.0) * factor);
            self.penalties.clear();
        }
    }

    fn measured(&self) -> Vec<[f64; 2]> {
        let value = |tensor: &Tensor<1>| f64::from(tensor.clone().into_scalar::<f32>());
        self.penalties.iter().map(|pair| pair.each_ref().map(value)).collect()
    }

    /// Lets dead latents begin anew where it is time to.
    fn revive(&mut self, index: u64, batch: &TrainBatch) {
        let done = index + 1;
        let Some(resampling) = self.plan.resample else { return };
        // What begins anew at the end would be saved as it began.
        if !done.is_multiple_of(resampling.every) || done > resampling.until || done == self.plan.steps {
            return;
        }
        // Silent for half of the time since the last chance, as Bricken et al. have it.
        let dead = self.window.silent_for((resampling.every / 2).max(1));
        if !dead.contains(&true) {
            return;
        }
        let init = self.plan.init(Vec::new());
        let fresh = Sae::init(&self.plan.architecture, self.plan.size, &init, &Device::flex()).to_weights();
        let mut state = self.step.state();
        let source = (self.plan.init_seed, index);
        let revived = resample(&mut state, &self.step.sae(), fresh, &dead, batch, source);
        self.step.restore(state);
        self.window.revive(&revived);
        let n = revived.iter().filter(|&&revived| revived).count();
        tracing::info!("train: after step {done}, {n} dead latents begin anew");
    }

    /// Writes a line to the logs of the `done` steps so far.
    ///
    /// # Errors
    /// Numbers that say that the run has gone wrong; a disk that fails.
    pub(crate) fn log(&mut self, done: u64, tokens_per_s: f64) -> Result<(), TrainError> {
        let (means, rates) = (self.window.read(), self.rates(done - 1));
        let record = record(&self.plan, done, &means, rates);
        let seen = watch(&self.plan, &record, rates, self.zero_fvu, &mut self.carried);
        // What went wrong is to be seen in the logs too.
        self.logs.write(&record, means.density, tokens_per_s)?;
        self.last = Some(record);
        seen
    }

    /// All that the steps after `done` depend on, right after a line of the logs.
    pub(crate) fn checkpoint(&self, done: u64) -> Result<Checkpoint, TrainError> {
        let carried =
            Carried { threshold: self.threshold(), penalties: self.measured(), ..self.carried.clone() };
        Ok(Checkpoint {
            steps: done,
            work: self.work.clone(),
            step: self.step.state(),
            window: self.window.state(),
            carried,
            logs: self.logs.sync()?,
        })
    }

    /// Becomes what it was at a checkpoint of the same work, but for the logs.
    pub(crate) fn restore(&mut self, checkpoint: Checkpoint) {
        let Checkpoint { steps, step, window, carried, .. } = checkpoint;
        self.step.restore(step);
        self.window.restore(window, steps);
        let scalar = |value: f32| Tensor::<1>::from_data([value], &self.device);
        self.threshold = carried.threshold.map(scalar);
        // They are f32, widened.
        self.penalties =
            carried.penalties.iter().map(|pair| pair.map(|value| scalar(value as f32))).collect();
        self.carried = carried;
    }

    fn threshold(&self) -> Option<f32> {
        self.threshold.clone().map(Tensor::into_scalar::<f32>)
    }

    /// The dictionary as it is now, which takes and gives activations as they are.
    pub(crate) fn export(&self, scales: Scales) -> Sae {
        self.step.averaged().export(scales, self.threshold())
    }

    /// Warnings that were given, in words.
    pub(crate) fn warnings(&self) -> Vec<String> {
        self.carried.warned.iter().map(|(_, warning)| warning.clone()).collect()
    }

    /// What is known at the end of the run: how often latents fired, and the logs, which are durable then.
    pub(crate) fn end(&mut self) -> Result<(Firing, Vec<String>), TrainError> {
        let files = self.logs.sync()?.into_keys().collect();
        let fired = self.window.fired_at_end();
        let frequency = |&n: &u64| n as f64 / self.plan.dead_window_tokens as f64;
        let firing = Firing {
            log_sparsity: fired.iter().map(|n| (frequency(n) + LOG_FLOOR).log10() as f32).collect(),
            dead_latents: fired.iter().filter(|&&n| n == 0).count() as u64,
        };
        Ok((firing, files))
    }
}

fn record(plan: &TrainPlan, done: u64, means: &Means, rates: Rates) -> Record {
    Record {
        step: done,
        tokens: done * plan.batch_tokens as u64,
        loss: means.loss,
        mse: means.squared_error,
        penalty: means.penalty,
        rest: means.rest,
        l0: means.fired / plan.batch_tokens as f64,
        fvu: means.squared_error / means.variance,
        dead_share: (done >= plan.dead_window_steps()).then_some(means.dead),
        grad_norm: means.grad_norm,
        lr: rates.lr,
        sparsity: rates.sparsity,
        k: rates.k,
    }
}

#[cfg(test)]
mod tests;
