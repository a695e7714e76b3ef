//! One step from front to back: encode, go through the decoder and back, gather the gradients, and move.
//!
//! Every sum has an order of its own that does not depend on the number of threads: the same numbers come out to the
//! bit on any number of cores.

use std::time::{Duration, Instant};

use pulp::Arch;
use rayon::prelude::*;

use super::{
    activate::{Encoder, Instructions},
    adam::{Rule, Then, Update},
    aux::{self, Revived},
    bias, dense,
    gradients::{self, Batch},
    law::Law,
    pairs::Multiplier,
    pre_act,
    select::{Entries, Select},
    skip::{self, Skip},
    through::{Block, Decoder, Part},
    values::{Examples, Found, Sizes, State, Values},
};
use crate::{Activation, Form, Last, Path, Phases, Settings};

/// Tokens that one task works on.
pub(super) const TOKENS: usize = 128;

/// Numbers that one task of the optimiser works on.
const CHUNK: usize = 1 << 14;

/// Takes a step.
pub(crate) fn step(
    state: State<'_>,
    examples: Examples<'_>,
    form: &Form,
    settings: &Settings,
    last: &Last,
) -> Found {
    step_by(Multiplier::detect(), state, examples, form, settings, last)
}

/// Whether there are instructions to screen with.
pub(crate) fn screens() -> bool {
    Multiplier::detect().is_some()
}

/// [`step`] with these instructions to screen with.
pub(super) fn step_by(
    multiplier: Option<Multiplier>,
    mut state: State<'_>,
    examples: Examples<'_>,
    form: &Form,
    settings: &Settings,
    last: &Last,
) -> Found {
    let State { parameters, gradients, .. } = &mut state;
    let sizes = Sizes::new(parameters, examples.x);
    let shifted = form.apply_b_dec_to_input.then(|| minus(examples.x, parameters.b_dec));
    let task = Task {
        parameters,
        sizes,
        input: shifted.as_deref().unwrap_or(examples.x),
        x: examples.x,
        y: examples.y.unwrap_or(examples.x),
        dead: examples.dead,
        form,
        settings,
        law: &Law::new(form, settings, parameters, sizes, examples.dead),
        instructions: Instructions::new(multiplier, settings),
    };
    let mut lap = Lap(Instant::now());
    let mut found = task.compute(gradients, last, &mut lap);
    update(state, sizes, form, found.grad_norm, settings);
    found.phases.update = lap.end();
    found
}

/// Measures one phase after the other.
struct Lap(Instant);

impl Lap {
    /// The time since the last phase ended.
    fn end(&mut self) -> Duration {
        let begun = std::mem::replace(&mut self.0, Instant::now());
        self.0 - begun
    }
}

/// All that gradients depend on.
#[derive(Clone, Copy)]
struct Task<'a, 'b> {
    parameters: &'a Values<&'b mut [f32]>,
    sizes: Sizes,
    /// What is encoded, `[n, d_in]`.
    input: &'a [f32],
    /// `[n, d_in]`.
    x: &'a [f32],
    /// `[n, d_out]`.
    y: &'a [f32],
    /// `[d_sae]`.
    dead: Option<&'a [f32]>,
    form: &'a Form,
    settings: &'a Settings,
    law: &'a Law<'a>,
    instructions: Instructions,
}

impl Task<'_, '_> {
    /// All but the update.
    fn compute(self, gradients: &mut Values<&mut [f32]>, last: &Last, lap: &mut Lap) -> Found {
        let Self { sizes: Sizes { n, d_in, d_out, d_sae }, form, law, .. } = self;
        let mut phases = Phases::default();
        let entries = self.activate(last);
        phases.encode = lap.end();

        let active: usize = entries.iter().flatten().map(Vec::len).sum();
        let share = active as f64 / (n * d_sae) as f64;
        let floor = match form.activation {
            Activation::BatchTopK { k } if active >= k.saturating_mul(n) => smallest(&entries),
            // No threshold: every positive one is there.
            _ => 0.0,
        };
        let path = match form.has_dense_path() {
            true => self.settings.path.unwrap_or_else(|| Path::for_share(share)),
            false => Path::Sparse,
        };
        let of_error = 2.0 / n as f32;
        let blocks = self.decode(entries, of_error, path);
        let revived = self.revive(&blocks, of_error, last);
        phases.decode = lap.end();

        let packed =
            (path == Path::Dense).then(|| gradients::Packed::new(self.input, &blocks, [d_in, d_out]));
        let pre_act = self.pre_act();
        let batch = Batch {
            norms: law.norms(),
            charge: law.charge(),
            unit_decoder: form.unit_decoder,
            log_of: law.log_of(),
            pre_act: pre_act.as_ref(),
            aux: revived.as_ref(),
            ..Batch::new(&blocks, self.input, self.sizes, &law.groups, packed.as_ref())
        };
        let mut fired = vec![0.0; d_sae];
        let mut squared = gradients::of_latents(batch, self.parameters.w_dec, gradients, &mut fired);
        squared +=
            bias::of_b_dec(&blocks, self.parameters, gradients, form.apply_b_dec_to_input, law.scales());
        if form.skip {
            let errors = packed.map_or_else(|| gradients::errors(&blocks, d_out), |packed| packed.error);
            squared += skip::gradient(self.x, &errors, d_out, gradients.w_skip);
        }
        phases.gradients = lap.end();

        let mean = |of: fn(&Block) -> f64| blocks.iter().map(of).sum::<f64>() / n as f64;
        let [aux, aux_share] = revived.map_or([0.0; 2], |revived| [revived.loss, revived.share]);
        let aux = aux + pre_act.map_or(0.0, |all| all.loss());
        Found {
            squared_error: mean(|block| block.squared_error),
            reconstruction: mean(|block| block.reconstruction),
            penalty: law.penalty(mean(|block| block.penalty)),
            aux: aux + blocks.iter().map(|block| block.aux).sum::<f64>(),
            grad_norm: squared.sqrt(),
            share,
            aux_share,
            floor,
            path,
            phases,
            fired,
        }
    }

    /// The entries of every token, task by task.
    fn activate(self, last: &Last) -> Vec<Vec<Entries>> {
        let Values { w_enc, b_enc, .. } = self.parameters;
        let encoder = Encoder { w_enc, b_enc, input: self.input };
        let instructions = self.instructions.for_share(last.share);
        match self.form.activation {
            Activation::Relu | Activation::Gated => encoder.encode(instructions, Select::Above(0.0)),
            Activation::TopK { k } => encoder.encode(instructions, Select::Largest(k)),
            Activation::BatchTopK { k } => {
                encoder.encode_largest(instructions, k.saturating_mul(self.sizes.n), last.floor)
            }
            Activation::JumpRelu { bandwidth, .. } => {
                encoder.encode(instructions, Select::Each(&self.law.floors(bandwidth)))
            }
        }
    }

    /// The errors, and gradients of pre-activations.
    fn decode(self, entries: Vec<Vec<Entries>>, of_error: f32, path: Path) -> Vec<Block> {
        let Self { sizes: Sizes { d_in, d_out, d_sae, .. }, parameters, .. } = self;
        let packed = (path == Path::Dense).then(|| dense::Packed::new(parameters.w_dec, d_out));
        let skip = self.form.skip.then(|| Skip::new(parameters.w_skip, d_out));
        let decoder = Decoder {
            dec: parameters.w_dec,
            d_sae,
            b_dec: parameters.b_dec,
            skip: skip.as_ref(),
            groups: &self.law.groups,
            of_error,
            rule: self.law.rule(&entries),
            charge: self.law.charge(),
            packed: packed.as_ref(),
        };
        let parts = self.x.par_chunks(TOKENS * d_in).zip(self.y.par_chunks(TOKENS * d_out));
        let tasks = entries.into_par_iter().zip(parts);
        tasks.map(|(entries, (x, y))| Block::new(decoder, entries, Part { x, y })).collect()
    }

    /// The gradients of the auxiliary loss, if there is one.
    fn revive(self, blocks: &[Block], of_error: f32, last: &Last) -> Option<Revived> {
        let (aux, dead) = (self.form.aux?, self.dead?);
        let dead = aux::Dead::new(aux, self.parameters, dead, self.sizes)?;
        let instructions = self.instructions.for_share(last.aux_share);
        dead.revive(instructions, self.input, (blocks, of_error), self.settings)
    }

    /// The pre-act loss, if there is one.
    fn pre_act(&self) -> Option<pre_act::All<'_>> {
        let below = self.law.below()?;
        let sum = bias::sum_of_rows(self.input, self.sizes.d_in);
        let Values { w_enc, b_enc, .. } = self.parameters;
        Some(pre_act::All::new(below, self.sizes, sum, [w_enc, b_enc, &self.law.thetas]))
    }
}

/// The smallest pre-activation of all entries.
fn smallest(entries: &[Vec<Entries>]) -> f32 {
    entries.iter().flatten().flatten().map(|(_, value)| *value).fold(f32::INFINITY, f32::min)
}

/// Each row of `x` minus `row`.
fn minus(x: &[f32], row: &[f32]) -> Vec<f32> {
    let mut shifted = vec![0.0; x.len()];
    let rows = shifted.par_chunks_mut(row.len()).zip(x.par_chunks(row.len()));
    rows.for_each(|(shifted, x)| {
        shifted.iter_mut().zip(x.iter().zip(row)).for_each(|(shifted, (x, row))| *shifted = x - row);
    });
    shifted
}

/// Clips the gradients by their norm together, takes the optimiser's step, and sees to what parameters must be.
fn update(state: State<'_>, sizes: Sizes, form: &Form, grad_norm: f64, settings: &Settings) {
    let State { parameters, gradients, first, second, ema } = state;
    let rule = Rule::new(settings, grad_norm);
    let of_more = match form.activation {
        Activation::JumpRelu { log: false, .. } => Then::NotNegative,
        _ => Then::Nothing,
    };
    let of_dec = if form.unit_decoder { Then::UnitRows(sizes.d_out) } else { Then::Nothing };
    let nothing = Then::Nothing;
    let thens = [nothing, of_dec, nothing, nothing, of_more, nothing, nothing];
    // Whole rows, so that a task can see to their norms.
    let chunk = CHUNK.next_multiple_of(sizes.d_out);
    let mut emas = ema.map(|ema| ema.into_parts().into_iter());
    let parts = parameters.into_parts().into_iter().zip(gradients.into_parts());
    let moments = first.into_parts().into_iter().zip(second.into_parts());
    for (((weights, gradients), (first, second)), then) in parts.zip(moments).zip(thens) {
        let mut second = second.chunks_mut(chunk);
        let mut ema = emas.as_mut().and_then(Iterator::next).map(|ema| ema.chunks_mut(chunk));
        let updates: Vec<Update<'_>> = weights
            .chunks_mut(chunk)
            .zip(gradients.chunks(chunk))
            .zip(first.chunks_mut(chunk))
            .map(|((weights, gradients), first)| {
                let second = second.next().unwrap_or_default();
                let ema = ema.as_mut().and_then(Iterator::next);
                Update { rule, weights, gradients, first, second, then, ema }
            })
            .collect();
        updates.into_par_iter().for_each(|update| Arch::new().dispatch(update));
    }
}
