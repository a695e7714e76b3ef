//! Dead latents that begin anew (Bricken et al. 2023, appendix "Neuron resampling"): each takes the direction of an activation
//! that is explained badly.

use burn::tensor::Tensor;
use monosema_core::Seed;
use monosema_sae::{Sae, Size, Weights};
use rand::Rng;

use crate::{TrainBatch, step::StepState};

/// A new encoder column is so long, in terms of the mean of the living ones.
const ENCODER: f64 = 0.2;

/// Gives the `dead` latents new directions, those of tokens of `batch` drawn with probabilities in proportion to their squared
/// losses, and forgets what the optimiser knows of them. Everything else of theirs becomes what it is in `fresh`, weights as
/// they begin. Returns which began anew: as many as there are tokens at most.
pub(crate) fn resample(
    state: &mut StepState,
    sae: &Sae,
    mut fresh: Weights,
    dead: &[bool],
    batch: &TrainBatch,
    (seed, step): (Seed, u64),
) -> Vec<bool> {
    let size = sae.size();
    let input = values(sae.affine().input(batch.x.clone()));
    let target = batch.y.clone().unwrap_or_else(|| batch.x.clone());
    let x_hat = sae.decode(sae.encode(batch.x.clone()), batch.x.clone());
    let errors = values((x_hat - target.clone()).square().sum_dim(1));
    let centred = values(target - sae.affine().b_dec.val().unsqueeze());

    let mut rng = seed.stream(&format!("resampling after step {step}"));
    let mut chances: Vec<f64> = errors.iter().map(|&error| f64::from(error).powi(2)).collect();
    let length = ENCODER * living_length(&state.parameters, dead, size);
    let mut revived = vec![false; size.d_sae];
    for latent in (0..size.d_sae).filter(|&latent| dead[latent]) {
        let Some(token) = draw(&mut chances, &mut rng) else { break };
        revived[latent] = true;
        for (name, weights) in fresh.iter_mut() {
            let (direction, length) = match name {
                "W_enc" => (&input[token * size.d_in..][..size.d_in], length),
                // As long as rows are when they begin.
                "W_dec" => {
                    (&centred[token * size.d_out()..][..size.d_out()], norm(&of(weights, name, latent, size)))
                }
                _ => continue,
            };
            let factor = length / norm(direction).max(f64::MIN_POSITIVE);
            let places = places(name, latent, size);
            places.zip(direction).for_each(|(i, &value)| weights[i] = (f64::from(value) * factor) as f32);
        }
    }
    // A moving average of what is gone means nothing.
    for weights in [&mut state.parameters].into_iter().chain(&mut state.average) {
        for ((name, weights), (_, fresh)) in weights.iter_mut().zip(fresh.iter_mut()) {
            each(&revived, name, size, |i| weights[i] = fresh[i]);
        }
    }
    for (name, moments) in state.moments.iter_mut().flat_map(Weights::iter_mut) {
        each(&revived, name, size, |i| moments[i] = 0.0);
    }
    revived
}

/// Where the numbers of a latent are within a tensor.
fn places(name: &str, latent: usize, size: Size) -> std::iter::StepBy<std::ops::Range<usize>> {
    let Size { d_in, d_sae, .. } = size;
    let d_out = size.d_out();
    match name {
        "W_enc" => (latent..d_in * d_sae).step_by(d_sae),
        "W_dec" => (latent * d_out..(latent + 1) * d_out).step_by(1),
        "b_dec" | "W_skip" => (0..0).step_by(1),
        // A number for each latent.
        _ => (latent..latent + 1).step_by(1),
    }
}

/// Calls `change` with the places of all that belongs to chosen latents.
fn each(chosen: &[bool], name: &str, size: Size, change: impl FnMut(usize)) {
    (0..size.d_sae)
        .filter(|&latent| chosen[latent])
        .flat_map(|latent| places(name, latent, size))
        .for_each(change);
}

fn of(weights: &[f32], name: &str, latent: usize, size: Size) -> Vec<f32> {
    places(name, latent, size).map(|i| weights[i]).collect()
}

fn norm(values: &[f32]) -> f64 {
    values.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt()
}

/// Mean norm of the encoder's columns of latents that are not dead; of all if all are.
fn living_length(parameters: &Weights, dead: &[bool], size: Size) -> f64 {
    let Some((name, w_enc)) = parameters.iter().find(|(name, _)| *name == "W_enc") else { return 1.0 };
    let w_enc: Vec<f32> = w_enc.iter().collect();
    let all_dead = dead.iter().all(|&dead| dead);
    let living = (0..size.d_sae).filter(|&latent| all_dead || !dead[latent]);
    let norms: Vec<f64> = living.map(|latent| norm(&of(&w_enc, name, latent, size))).collect();
    norms.iter().sum::<f64>() / norms.len() as f64
}

/// Draws one with these chances, and leaves it none.
fn draw(chances: &mut [f64], rng: &mut impl Rng) -> Option<usize> {
    let total: f64 = chances.iter().sum();
    let mut left = rng.random::<f64>() * total;
    let drawn = (0..chances.len()).find(|&i| {
        left -= chances[i];
        left < 0.0 && chances[i] > 0.0
    })?;
    chances[drawn] = 0.0;
    Some(drawn)
}

fn values(tensor: Tensor<2>) -> Vec<f32> {
    let tensor = if tensor.is_autodiff() { tensor.inner() } else { tensor };
    tensor.into_data().iter().collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use monosema_sae::{Init, SaeConfig};

    use super::*;

    #[test]
    fn a_dead_latent_takes_the_direction_of_what_is_explained_badly() {
        let (size, device) = (Size::new(2, 3), Device::flex());
        let init = |seed| Init::new(Seed(seed), 0.5);
        let sae = Sae::init(&SaeConfig::default(), size, &init(0), &device);
        let ones = |value: f32| {
            let mut weights = sae.to_weights();
            weights.iter_mut().for_each(|(_, values)| values.fill(value));
            weights
        };
        let mut state = StepState {
            parameters: sae.to_weights(),
            moments: [ones(1.0), ones(2.0)],
            average: Some(ones(3.0)),
            ..StepState::default()
        };
        let before = state.clone();
        let fresh = Sae::init(&SaeConfig::default(), size, &init(1), &device).to_weights();
        // The first token is all but explained by nothing; the second is far away.
        let x = Tensor::from_data([[0.0, 0.0], [0.0, -40.0]], &device);
        let batch = TrainBatch { x, y: None, variance: 1.0 };
        let dead = [false, true, false];
        let revived = resample(&mut state, &sae, fresh, &dead, &batch, (Seed(3), 9));
        assert_eq!(revived, dead);

        let find = |weights: &Weights, name: &str, latent| {
            let values: Vec<f32> =
                weights.iter().find(|(found, _)| *found == name).unwrap().1.iter().collect();
            of(&values, name, latent, size)
        };
        assert_eq!(find(&state.parameters, "W_dec", 1), [0.0, -0.5]);
        let living = living_length(&before.parameters, &dead, size);
        let column = find(&state.parameters, "W_enc", 1);
        assert!(column[0] == 0.0 && (f64::from(column[1]) + ENCODER * living).abs() < 1e-6, "{column:?}");
        assert_eq!(find(state.average.as_ref().unwrap(), "W_dec", 1), [0.0, -0.5]);
        for (moments, of_others) in state.moments.iter().zip([1.0, 2.0]) {
            assert_eq!(find(moments, "b_enc", 1), [0.0]);
            assert_eq!(find(moments, "W_enc", 0), [of_others; 2]);
        }
        for latent in [0, 2] {
            for name in ["W_enc", "W_dec", "b_enc"] {
                assert_eq!(find(&state.parameters, name, latent), find(&before.parameters, name, latent));
            }
        }
    }

    #[test]
    fn chances_are_as_squared_losses() {
        let (size, device) = (Size::new(2, 2), Device::flex());
        let mut nothing =
            Sae::init(&SaeConfig::default(), size, &Init::new(Seed(0), 1.0), &device).to_weights();
        nothing.iter_mut().for_each(|(_, values)| values.fill(0.0));
        let sae = Sae::from_weights(&SaeConfig::default(), size, nothing.clone(), &device);
        // Losses of 1 and 2: one in five, and four.
        let x = Tensor::from_data([[1.0, 0.0], [0.0, 2_f32.sqrt()]], &device);
        let batch = TrainBatch { x, y: None, variance: 1.0 };
        let second = (0..1000).filter(|&step| {
            let mut state = StepState { parameters: nothing.clone(), ..StepState::default() };
            let fresh =
                Sae::init(&SaeConfig::default(), size, &Init::new(Seed(1), 1.0), &device).to_weights();
            resample(&mut state, &sae, fresh, &[true, false], &batch, (Seed(0), step));
            let rows = state.parameters.iter().find(|(name, _)| *name == "W_dec").unwrap().1;
            rows.iter::<f32>().nth(1).unwrap() > 0.5
        });
        // Four standard deviations.
        assert!(second.count().abs_diff(800) < 50);
    }

    #[test]
    fn nothing_is_drawn_twice() {
        let mut chances = [0.0, 2.0, 1.0, 0.0];
        let mut rng = Seed(0).stream("test");
        let mut drawn = [draw(&mut chances, &mut rng), draw(&mut chances, &mut rng)];
        drawn.sort_unstable();
        assert_eq!(drawn, [Some(1), Some(2)]);
        assert_eq!(draw(&mut chances, &mut rng), None);
    }
}
