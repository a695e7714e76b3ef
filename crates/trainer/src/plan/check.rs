//! What a plan's numbers may be, each by itself.

use super::bad;
use crate::{
    TrainError,
    config::{GradClip, LrScaling, Numbers, Span},
    window::EXACT,
};

/// Checks every number.
///
/// # Errors
/// The first key whose value cannot work, with what could.
pub(super) fn check(numbers: &Numbers) -> Result<(), TrainError> {
    let at_least_1 = [
        ("batch_tokens", numbers.batch_tokens as u64),
        ("micro_batch_tokens", numbers.micro_batch_tokens as u64),
        ("scale_tokens", numbers.scale_tokens),
        ("dead_after_tokens", numbers.dead_after_tokens),
        ("log_every_steps", numbers.log_every_steps),
    ];
    for (key, value) in at_least_1 {
        if value == 0 {
            return Err(bad(key, "at least 1", value));
        }
    }
    if numbers.batch_tokens as u64 > EXACT {
        // A step counts firings in f32.
        return Err(bad("batch_tokens", format!("at most {EXACT}"), numbers.batch_tokens));
    }
    let above_0 = [("lr", numbers.lr), ("adam_eps", numbers.adam_eps), ("init_norm", numbers.init_norm)];
    let clip = match numbers.grad_clip {
        GradClip::None => None,
        GradClip::Norm(norm) => Some(("grad_clip", norm)),
    };
    for (key, value) in above_0.into_iter().chain(clip) {
        if !(value.is_finite() && value > 0.0) {
            return Err(bad(key, "a number above 0", value));
        }
    }
    for (key, value) in [("sparsity", numbers.sparsity), ("weight_decay", numbers.weight_decay)] {
        if !(value.is_finite() && value >= 0.0) {
            return Err(bad(key, "a number from 0 on", value));
        }
    }
    if numbers.sparsity > 0.0 && !numbers.architecture.penalised() {
        let expected = "nothing: the loss of this architecture has no penalty";
        return Err(bad("sparsity", expected, numbers.sparsity));
    }
    if numbers.lr_scaling == LrScaling::Latents(0) {
        return Err(bad("lr_scaling", "latents from 1 on", 0));
    }
    if !(numbers.k_warmup_factor.is_finite() && numbers.k_warmup_factor >= 1.0) {
        return Err(bad("k_warmup_factor", "a number from 1 on", numbers.k_warmup_factor));
    }
    if !numbers.adam_betas.0.iter().all(|beta| (0.0..1.0).contains(beta)) {
        return Err(bad(
            "adam_betas",
            "two numbers from 0 to below 1",
            format!("{:?}", numbers.adam_betas.0),
        ));
    }
    for (key, value) in [("ema_decay", numbers.ema_decay), ("threshold_decay", numbers.threshold_decay)] {
        if !(0.0..1.0).contains(&value) {
            return Err(bad(key, "a number from 0 to below 1", value));
        }
    }
    let spans = [
        ("lr_warmup", numbers.lr_warmup),
        ("lr_decay", numbers.lr_decay),
        ("sparsity_warmup", numbers.sparsity_warmup),
        ("k_warmup", numbers.k_warmup),
        ("resample_every", numbers.resample_every),
        ("resample_until", numbers.resample_until),
    ];
    let fractions = spans.into_iter().filter_map(|(key, span)| match span {
        Span::Fraction(fraction) => Some((key, fraction)),
        Span::Steps(_) => None,
    });
    for (key, value) in fractions.chain([("lr_end", numbers.lr_end)]) {
        if !(0.0..=1.0).contains(&value) {
            return Err(bad(key, "a number from 0 to 1", value));
        }
    }
    Ok(())
}
