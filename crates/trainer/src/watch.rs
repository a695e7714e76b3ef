//! What a run is stopped for, and what is said early of one that goes wrong.

use crate::{Rates, Record, TrainError, TrainPlan, checkpoint::Carried};

/// A loss so many times the least one, with more error than variance, has exploded. So has an error that is so many times that
/// of a reconstruction which is zero, once the run has settled.
const EXPLODED: f64 = 100.0;

/// Before that only one of so many times: a wide dictionary may begin with far too large a reconstruction.
const EXPLODED_AT_FIRST: f64 = 1e6;

/// How far L0 may be off before it is worth a warning.
const OFF: f64 = 10.0;

/// What share of the latents may be dead before it is.
const DEAD: f64 = 0.5;

/// Looks at a line of the logs, before it is taken for good; `zero_fvu` is the FVU of a reconstruction that is zero. What it says
/// once, it says once: `carried` remembers.
///
/// # Errors
/// Numbers that are not finite; a loss that has exploded.
pub(crate) fn watch(
    plan: &TrainPlan,
    record: &Record,
    rates: Rates,
    zero_fvu: f64,
    carried: &mut Carried,
) -> Result<(), TrainError> {
    let diverged = |what, value| {
        let step = record.step - 1;
        Err(TrainError::Diverged { step, what, value, lr: rates.lr, last_good: None })
    };
    for (what, value) in [("loss", record.loss), ("gradient's norm", record.grad_norm)] {
        if !value.is_finite() {
            return diverged(what, value);
        }
    }
    let least = carried.least_loss.map_or(record.loss, |least| least.min(record.loss));
    if record.loss > EXPLODED * least && record.fvu > 1.0 {
        return diverged("loss", record.loss);
    }
    let settled = record.step >= settled(plan);
    if record.fvu > zero_fvu * if settled { EXPLODED } else { EXPLODED_AT_FIRST } {
        return diverged("fraction of variance unexplained", record.fvu);
    }
    carried.least_loss = Some(least);
    if !settled {
        return Ok(());
    }
    for (about, warning) in warnings(plan, record, zero_fvu) {
        if !carried.warned.iter().any(|(warned, _)| warned == about) {
            let warning = format!("step {}: {warning}", record.step);
            tracing::warn!("train: {warning}");
            carried.warned.push((about.to_owned(), warning));
        }
    }
    Ok(())
}

/// The step by which what is warmed up is warm, and latents have had time to become rare.
fn settled(plan: &TrainPlan) -> u64 {
    let schedule = &plan.schedule;
    let k = schedule.k.map_or(0, |k| k.steps);
    // A λ that grows to the end is half of what it will be in the middle.
    let sparsity = schedule.sparsity_warmup_steps.min(plan.steps / 2);
    schedule.lr_warmup_steps.max(sparsity).max(k).max(plan.steps / 4)
}

fn warnings(plan: &TrainPlan, record: &Record, zero_fvu: f64) -> Vec<(&'static str, String)> {
    let mut warnings = Vec::new();
    let l0 = record.l0;
    if record.fvu > zero_fvu {
        let text = format!(
            "the reconstruction is worse than none: FVU is {:.3}, and {zero_fvu:.3} of zeros; try a tenth of the learning rate",
            record.fvu
        );
        warnings.push(("fvu", text));
    }
    let remedy = if plan.architecture.penalised() { "sparsity" } else { "the architecture's k" };
    match plan.expected_l0 {
        Some(expected) if l0 > OFF * expected || l0 < expected / OFF => {
            let text = format!("L0 is {l0:.1}, {expected} were expected; [train] {remedy} moves it");
            warnings.push((if l0 > expected { "high l0" } else { "low l0" }, text));
        }
        None if l0 > plan.size.d_in as f64 => {
            let text = format!(
                "L0 is {l0:.0}, more than the {} dimensions: this is not sparse; a larger [train] {remedy} makes it so",
                plan.size.d_in
            );
            warnings.push(("high l0", text));
        }
        None if l0 < 1.0 => {
            let text = format!("L0 is {l0:.2}: hardly a latent is active; try a tenth of [train] {remedy}");
            warnings.push(("low l0", text));
        }
        _ => {}
    }
    if let Some(share) = record.dead_share.filter(|share| *share > DEAD) {
        let text = format!(
            "{:.0} % of the latents are dead; a smaller width or learning rate, [train] b_dec_init = \
             \"geometric_median\", aux in the architecture or resample_every bring some back",
            100.0 * share
        );
        warnings.push(("dead", text));
    }
    warnings
}

#[cfg(test)]
mod tests {
    use monosema_core::{BlockHook, HookPoint, Seed};
    use monosema_sae::{SaeConfig, architecture::top_k::TopKConfig};
    use monosema_store::HookColumn;

    use super::*;
    use crate::{StoreFacts, TrainConfig, Width};

    fn plan(k: Option<usize>) -> TrainPlan {
        let hooks = vec![HookColumn { hook: HookPoint::block(0, BlockHook::ResidPost), width: 16 }];
        let top_k = |k: usize| {
            let k = k.try_into().unwrap();
            let aux = monosema_sae::AuxK::OFF;
            SaeConfig::TopK(TopKConfig {
                k,
                apply_b_dec_to_input: true,
                rescale_acts_by_decoder_norm: false,
                aux,
            })
        };
        let config = TrainConfig {
            architecture: k.map(top_k),
            width: Width::Latents(64),
            batch_tokens: Some(10),
            shuffle_buffer_tokens: Some(10),
            ..TrainConfig::default()
        };
        TrainPlan::resolve(&config, &StoreFacts { hooks, tokens: 1000, ..StoreFacts::default() }, Seed(0))
            .unwrap()
    }

    fn record(step: u64, loss: f64, l0: f64) -> Record {
        Record {
            step,
            tokens: 10 * step,
            loss,
            mse: loss,
            penalty: 0.0,
            rest: 0.0,
            l0,
            fvu: loss,
            dead_share: None,
            grad_norm: 1.0,
            lr: 1.0,
            sparsity: 0.0,
            k: None,
        }
    }

    fn says(plan: &TrainPlan, record: Record) -> Vec<String> {
        let mut carried = Carried::default();
        watch(plan, &record, Rates::new(1.0, 0.0), 1.5, &mut carried).unwrap();
        carried.warned.into_iter().map(|(about, _)| about).collect()
    }

    #[test]
    fn a_loss_that_is_no_number_or_explodes_ends_the_run() {
        let (plan, mut carried) = (plan(None), Carried::default());
        let mut look = |loss| watch(&plan, &record(60, loss, 5.0), Rates::new(1.0, 0.0), 1.5, &mut carried);
        assert!(look(0.1).is_ok() && look(0.01).is_ok() && look(0.9).is_ok());
        assert!(matches!(look(1.5), Err(TrainError::Diverged { step: 59, what: "loss", .. })));
        assert!(look(f64::NAN).is_err());
    }

    #[test]
    fn what_is_far_worse_than_nothing_ends_the_run_though_it_was_never_better() {
        let plan = plan(None);
        let look = |step, fvu| {
            watch(&plan, &record(step, fvu, 5.0), Rates::new(1.0, 0.0), 1.5, &mut Carried::default())
        };
        assert!(look(1, 1e6).is_ok());
        assert!(look(1, 2e6).unwrap_err().to_string().contains("variance unexplained is 2000000"));
        assert!(look(24, 200.0).is_ok());
        assert!(look(25, 200.0).is_err());
        assert!(look(25, 100.0).is_ok());
        assert_eq!(says(&plan, record(25, 1.6, 5.0)), ["fvu"]);
        assert!(says(&plan, record(25, 1.4, 5.0)).is_empty());
    }

    #[test]
    fn an_l0_that_is_far_off_is_told_once_it_is_settled() {
        // After a quarter of 100 steps.
        assert!(says(&plan(None), record(24, 1.0, 60.0)).is_empty());
        assert_eq!(says(&plan(None), record(25, 1.0, 60.0)), ["high l0"]);
        assert_eq!(says(&plan(None), record(25, 1.0, 0.5)), ["low l0"]);
        assert!(says(&plan(None), record(25, 1.0, 3.0)).is_empty());
        assert_eq!(says(&plan(Some(30)), record(50, 1.0, 2.9)), ["low l0"]);
        assert!(says(&plan(Some(30)), record(50, 1.0, 25.0)).is_empty());
    }

    #[test]
    fn many_dead_latents_are_told() {
        let dead = |share| Record { dead_share: Some(share), ..record(50, 1.0, 3.0) };
        assert_eq!(says(&plan(None), dead(0.6)), ["dead"]);
        assert!(says(&plan(None), dead(0.5)).is_empty());
    }
}
