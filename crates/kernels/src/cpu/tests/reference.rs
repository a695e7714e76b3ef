//! The loss of every form, written down as densely and plainly as it can be said, in f64.

use super::{
    Case,
    tape::{self, Number, Tape},
};
use crate::{Activation, NORM_TINY, Penalty};

/// What a step is to find.
pub(super) struct Expected {
    pub(super) squared_error: f64,
    pub(super) reconstruction: f64,
    pub(super) penalty: f64,
    pub(super) aux: f64,
    pub(super) fired: Vec<f32>,
    /// In the order of parameters.
    pub(super) gradients: [Vec<f64>; 7],
    pub(super) grad_norm: f64,
}

/// Numbers of the dictionary, and of the batch.
struct Model<'a> {
    case: &'a Case,
    tape: Tape,
    parameters: [Vec<Number>; 7],
    /// `[n, d_in]`.
    input: Vec<Vec<Number>>,
    /// `[n, d_in]`.
    x: Vec<Vec<Number>>,
    /// `[d_sae]`.
    norms: Vec<Number>,
    /// θ, or exp(r_mag).
    more: Vec<Number>,
}

/// `z`, what is active, and the gradients' way: `[n, d_sae]`.
struct Active {
    z: Vec<Vec<Number>>,
    acts: Vec<Vec<Number>>,
}

pub(super) fn expected(case: &Case) -> Expected {
    let mut model = Model::new(case);
    let z = model.pre_acts();
    let active = model.acts(z);
    let (errors, squared) = model.errors(&active);
    let penalty = model.penalty(&active);
    let aux = [model.gate(&active), model.pre_act(&active), model.revived(&active, &errors)];

    let lambda = case.settings.l1;
    let tape = &mut model.tape;
    let reconstruction = tape.sum(&squared.iter().map(|squared| (*squared, 1.0)).collect::<Vec<_>>(), 0.0);
    let aux = tape.sum(&aux.map(|aux| (aux, 1.0)), 0.0);
    let loss = tape.sum(&[(reconstruction, 1.0), (penalty, lambda), (aux, 1.0)], 0.0);
    let of_all = tape.gradients(loss);
    let mut gradients = model.parameters.each_ref().map(|numbers| tape::of(&of_all, numbers));
    if case.form.unit_decoder {
        for (gradient, row) in
            gradients[1].chunks_exact_mut(case.d_out).zip(case.parameters[1].chunks_exact(case.d_out))
        {
            let row: Vec<f64> = row.iter().map(|w| f64::from(*w)).collect();
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
            let along = dot(gradient, &row) / dot(&row, &row).max(f64::from(f32::MIN_POSITIVE));
            gradient.iter_mut().zip(&row).for_each(|(gradient, w)| *gradient -= along * w);
        }
    }
    let of = |number| model.tape.value(number);
    let fired = |i: usize| active.acts.iter().filter(|acts| of(acts[i]) != 0.0).count() as f32;
    Expected {
        squared_error: of(*squared.last().expect("there is a reconstruction")),
        reconstruction: of(reconstruction),
        penalty: of(penalty),
        aux: of(aux),
        fired: (0..case.d_sae).map(fired).collect(),
        grad_norm: gradients.iter().flatten().map(|gradient| gradient * gradient).sum::<f64>().sqrt(),
        gradients,
    }
}

fn relu(x: f64) -> (f64, f64) {
    (x.max(0.0), f64::from(u8::from(x > 0.0)))
}

/// K of the pseudo-derivatives.
fn near(z: f64, theta: f64, bandwidth: f64) -> f64 {
    f64::from(u8::from(((z - theta) / bandwidth).abs() < 0.5))
}

impl<'a> Model<'a> {
    fn new(case: &'a Case) -> Self {
        let mut tape = Tape::default();
        let parameters = case.parameters.each_ref().map(|values| tape.leaves(values));
        let x: Vec<_> = case.x.chunks_exact(case.d_in).map(|x| tape.leaves(x)).collect();
        let mut input = x.clone();
        if case.form.apply_b_dec_to_input {
            for (x, bias) in input.iter_mut().flat_map(|x| x.iter_mut().zip(&parameters[3])) {
                *x = tape.sum(&[(*x, 1.0), (*bias, -1.0)], 0.0);
            }
        }
        let norm = |tape: &mut Tape, row: &[Number]| {
            let squared = tape.dot(row, row);
            tape.map(squared, |x| {
                let root = (x + f64::from(NORM_TINY)).sqrt();
                (root, 0.5 / root)
            })
        };
        let norms = parameters[1].chunks_exact(case.d_out).map(|row| norm(&mut tape, row)).collect();
        let of_log =
            matches!(case.form.activation, Activation::Gated | Activation::JumpRelu { log: true, .. });
        let exp = |tape: &mut Tape, log: Number| tape.map(log, |x| (x.exp(), x.exp()));
        let more = match of_log {
            true => parameters[4].iter().map(|log| exp(&mut tape, *log)).collect(),
            false => parameters[4].clone(),
        };
        Self { case, tape, parameters, input, x, norms, more }
    }

    fn row(&self, which: usize, latent: usize) -> Vec<Number> {
        let width = if which == 0 { self.case.d_in } else { self.case.d_out };
        self.parameters[which][latent * width..][..width].to_vec()
    }

    fn pre_acts(&mut self) -> Vec<Vec<Number>> {
        let input = self.input.clone();
        let of = |model: &mut Self, input: &[Number], latent: usize| {
            let product = model.tape.dot(input, &model.row(0, latent));
            model.tape.sum(&[(product, 1.0), (model.parameters[2][latent], 1.0)], 0.0)
        };
        input.iter().map(|input| (0..self.case.d_sae).map(|i| of(self, input, i)).collect()).collect()
    }

    fn acts(&mut self, z: Vec<Vec<Number>>) -> Active {
        let of_token = |row: &Vec<Number>| row.clone();
        let largest = |model: &Self, mut numbers: Vec<Number>, k: usize| {
            numbers.sort_by(|a, b| model.tape.value(*b).total_cmp(&model.tape.value(*a)));
            numbers.truncate(k);
            numbers
        };
        let kept: Option<Vec<Number>> = match self.case.form.activation {
            Activation::TopK { k } => {
                Some(z.iter().flat_map(|row| largest(self, of_token(row), k)).collect())
            }
            Activation::BatchTopK { k } => Some(largest(self, z.concat(), k * z.len())),
            _ => None,
        };
        let mut acts = z.clone();
        for row in &mut acts {
            for (latent, number) in row.iter_mut().enumerate() {
                let out = kept.as_ref().is_some_and(|kept| !kept.contains(number));
                *number = if out { self.tape.leaf(0.0) } else { self.act(latent, *number) };
            }
        }
        Active { z, acts }
    }

    fn act(&mut self, latent: usize, z: Number) -> Number {
        let value = self.tape.value(z);
        match self.case.form.activation {
            Activation::Relu | Activation::TopK { .. } | Activation::BatchTopK { .. } => {
                self.tape.map(z, relu)
            }
            Activation::JumpRelu { bandwidth, ste_to_input, .. } => {
                let theta = self.more[latent];
                let of_theta = self.tape.value(theta);
                let active = f64::from(u8::from(value > of_theta));
                let by_theta = -of_theta / bandwidth * near(value, of_theta, bandwidth);
                let by_z = active - if ste_to_input { by_theta } else { 0.0 };
                self.tape.number(value * active, [(theta, by_theta), (z, by_z)])
            }
            Activation::Gated => {
                let (scale, [gate, mag]) = (self.more[latent], [2, 5].map(|i| self.parameters[i][latent]));
                let product = self.tape.sum(&[(z, 1.0), (gate, -1.0)], 0.0);
                let scaled = self.tape.times(product, scale);
                let m = self.tape.sum(&[(scaled, 1.0), (mag, 1.0)], 0.0);
                let open = f64::from(u8::from(value > 0.0));
                self.tape.map(m, |m| (open * relu(m).0, open * relu(m).1))
            }
        }
    }

    /// x̂ − y of every token, where x̂ is made of some first latents.
    fn error(
        &mut self,
        acts: &[Vec<Number>],
        prefix: usize,
        w_dec: &[Number],
        b_dec: &[Number],
    ) -> Vec<Vec<Number>> {
        let d_out = self.case.d_out;
        let y: Vec<Vec<f32>> = self.case.y().chunks_exact(d_out).map(<[f32]>::to_vec).collect();
        let x = self.x.clone();
        let mut errors = Vec::new();
        for ((acts, y), x) in acts.iter().zip(y).zip(x) {
            let mut error = Vec::new();
            for column in 0..d_out {
                let weights: Vec<Number> = (0..prefix).map(|i| w_dec[i * d_out + column]).collect();
                let decoded = self.tape.dot(&acts[..prefix], &weights);
                let mut terms = vec![(decoded, 1.0), (b_dec[column], 1.0)];
                if self.case.form.skip {
                    let of_column = |i: usize| self.parameters[6][i * d_out + column];
                    let weights: Vec<Number> = (0..x.len()).map(of_column).collect();
                    terms.push((self.tape.dot(&x, &weights), 1.0));
                }
                error.push(self.tape.sum(&terms, -f64::from(y[column])));
            }
            errors.push(error);
        }
        errors
    }

    /// Mean over tokens of their squares.
    fn mean_square(&mut self, errors: &[Vec<Number>]) -> Number {
        let squares: Vec<Number> = errors.iter().map(|error| self.tape.dot(error, error)).collect();
        self.mean(&squares)
    }

    fn mean(&mut self, numbers: &[Number]) -> Number {
        let weight = 1.0 / self.case.n as f64;
        self.tape.sum(&numbers.iter().map(|number| (*number, weight)).collect::<Vec<_>>(), 0.0)
    }

    /// The last reconstruction's errors, and the mean squared error of each.
    fn errors(&mut self, active: &Active) -> (Vec<Vec<Number>>, Vec<Number>) {
        let all = [self.case.d_sae];
        let prefixes = match &self.case.form.prefixes[..] {
            [] => &all,
            prefixes => prefixes,
        };
        let [_, w_dec, _, b_dec, ..] = self.parameters.clone();
        let (mut last, mut squared) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            last = self.error(&active.acts, *prefix, &w_dec, &b_dec);
            squared.push(self.mean_square(&last));
        }
        (last, squared)
    }

    /// H(z − θ), with the pseudo-derivatives that it has in penalties.
    fn step(&mut self, latent: usize, z: Number) -> Number {
        let Activation::JumpRelu { bandwidth, ste_to_input, .. } = self.case.form.activation else {
            panic!("there is a threshold")
        };
        let theta = self.more[latent];
        let (of_theta, of_z) = (self.tape.value(theta), self.tape.value(z));
        let near = near(of_z, of_theta, bandwidth) / bandwidth;
        let by_z = if ste_to_input { near } else { 0.0 };
        self.tape.number(f64::from(u8::from(of_z > of_theta)), [(theta, -near), (z, by_z)])
    }

    /// Before its coefficient.
    fn penalty(&mut self, active: &Active) -> Number {
        let gated = self.case.form.activation == Activation::Gated;
        let p = self.case.settings.p;
        let mut terms = Vec::new();
        for (z, acts) in active.z.iter().zip(&active.acts) {
            for (latent, (z, act)) in z.iter().zip(acts).enumerate() {
                let norm = self.norms[latent];
                let act = if gated { self.tape.map(*z, relu) } else { *act };
                let term = match self.case.form.penalty {
                    Penalty::None => continue,
                    Penalty::L1 => self.tape.times(act, norm),
                    Penalty::Power if self.tape.value(act) == 0.0 => continue,
                    Penalty::Power => self.tape.map(act, |f| (f.powf(p), p * f.powf(p - 1.0))),
                    Penalty::Step | Penalty::TargetL0 { .. } => self.step(latent, *z),
                    Penalty::Tanh { scale } => {
                        let product = self.tape.times(act, norm);
                        self.tape.map(product, |x| {
                            let tanh = (scale * x).tanh();
                            (tanh, scale * (1.0 - tanh * tanh))
                        })
                    }
                };
                terms.push(term);
            }
        }
        let mean = self.mean(&terms);
        match self.case.form.penalty {
            Penalty::TargetL0 { target } => {
                self.tape.map(mean, |l0| ((l0 / target - 1.0).powi(2), 2.0 * (l0 / target - 1.0) / target))
            }
            _ => mean,
        }
    }

    /// What a gated form adds.
    fn gate(&mut self, active: &Active) -> Number {
        if self.case.form.activation != Activation::Gated {
            return self.tape.leaf(0.0);
        }
        let open: Vec<Vec<Number>> =
            active.z.iter().map(|z| z.iter().map(|z| self.tape.map(*z, relu)).collect()).collect();
        let [_, w_dec, _, b_dec, ..] = self.parameters.clone();
        let stopped = |numbers: Vec<Number>, tape: &mut Tape| -> Vec<Number> {
            numbers.into_iter().map(|number| tape.stop(number)).collect()
        };
        let (w_dec, b_dec) = (stopped(w_dec, &mut self.tape), stopped(b_dec, &mut self.tape));
        let held = self.parameters[6].clone();
        self.parameters[6] = stopped(held.clone(), &mut self.tape);
        let errors = self.error(&open, self.case.d_sae, &w_dec, &b_dec);
        self.parameters[6] = held;
        self.mean_square(&errors)
    }

    fn pre_act(&mut self, active: &Active) -> Number {
        let coefficient = self.case.form.pre_act.unwrap_or(0.0);
        let mut terms = Vec::new();
        for z in &active.z {
            for (latent, z) in z.iter().enumerate().filter(|(latent, _)| self.case.is_dead(*latent)) {
                if coefficient != 0.0 {
                    let below = self.tape.sum(&[(self.more[latent], 1.0), (*z, -1.0)], 0.0);
                    let below = self.tape.map(below, relu);
                    terms.push(self.tape.times(below, self.norms[latent]));
                }
            }
        }
        let mean = self.mean(&terms);
        self.tape.sum(&[(mean, coefficient)], 0.0)
    }

    /// The auxiliary loss of dead latents.
    fn revived(&mut self, active: &Active, errors: &[Vec<Number>]) -> Number {
        let dead: Vec<usize> = (0..self.case.d_sae).filter(|latent| self.case.is_dead(*latent)).collect();
        let Some(aux) = self.case.form.aux.filter(|_| !dead.is_empty()) else { return self.tape.leaf(0.0) };
        let left: Vec<Vec<f64>> =
            errors.iter().map(|error| error.iter().map(|error| -self.tape.value(*error)).collect()).collect();
        let column = |i: usize| left.iter().map(move |left| left[i]);
        let spread: f64 = (0..self.case.d_out)
            .map(|i| {
                let mean = column(i).sum::<f64>() / left.len() as f64;
                column(i).map(|left| (left - mean).powi(2)).sum::<f64>()
            })
            .sum();
        if spread == 0.0 {
            return self.tape.leaf(0.0);
        }
        let mut squares = Vec::new();
        for (z, left) in active.z.iter().zip(&left) {
            let mut largest = dead.clone();
            largest.sort_by(|a, b| self.tape.value(z[*b]).total_cmp(&self.tape.value(z[*a])));
            largest.truncate(aux.k);
            let acts: Vec<Number> = largest.iter().map(|latent| self.tape.map(z[*latent], relu)).collect();
            for (column, left) in left.iter().enumerate() {
                let weights: Vec<Number> = largest
                    .iter()
                    .map(|latent| self.parameters[1][latent * self.case.d_out + column])
                    .collect();
                let made = self.tape.dot(&acts, &weights);
                let off = self.tape.sum(&[(made, 1.0)], -left);
                squares.push((self.tape.times(off, off), aux.coefficient / spread));
            }
        }
        self.tape.sum(&squares, 0.0)
    }
}
