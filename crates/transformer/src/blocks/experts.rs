//! Mixtures of experts: besides the MLP that all tokens share, a token goes through a few of many small ones, which a
//! router chooses for it. As DeepSeek-V3 has them (DeepSeek-AI, 2024, arXiv:2412.19437, section 2.1.2; reference:
//! `modeling_deepseek_v3.py` of transformers).

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData, activation::sigmoid},
};

use super::{linear::Linear, mlp::Mlp};

/// Experts and their router. What they write is added to what the block's MLP writes.
#[derive(Module, Debug)]
pub(crate) struct Experts {
    /// `[d_model, experts]`.
    pub(crate) router: Linear,
    pub(crate) experts: Vec<Mlp>,
    #[module(skip)]
    pub(crate) choice: Choice,
    /// What is added to the scores when experts are chosen, and not when they are weighed: one value an expert.
    #[module(skip)]
    pub(crate) correction: Vec<f32>,
}

/// How experts are chosen and weighed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Choice {
    /// The number of experts.
    pub(crate) n_experts: usize,
    /// The number of experts that a token goes through.
    pub(crate) experts_per_token: usize,
    /// The number of groups that experts are in, of equal size and two experts at least.
    pub(crate) n_groups: usize,
    /// The number of groups that the experts of a token are of.
    pub(crate) groups_per_token: usize,
    /// Whether a token's weights add up to 1, before they are scaled.
    pub(crate) normalised: bool,
    /// What weights are multiplied with.
    pub(crate) scale: f64,
}

impl Experts {
    /// # Shapes
    /// `x` and the result: `[batch, seq, d_model]`.
    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let [batch, seq, d_model] = x.dims();
        self.routed(x.reshape([batch * seq, d_model])).reshape([batch, seq, d_model])
    }

    /// Each expert sees the tokens that chose it, all at once, and no others.
    ///
    /// # Shapes
    /// `x` and the result: `[n, d_model]`.
    fn routed(&self, x: Tensor<2>) -> Tensor<2> {
        let ([n, d_model], device, k) = (x.dims(), x.device(), self.choice.experts_per_token);
        let scores = sigmoid(self.router.forward(x.clone()));
        // The expert of place `k i + j` is the j-th of token i.
        let on_host = scores.clone().into_data().convert::<f32>();
        let on_host = on_host.as_slice::<f32>().expect("converted to f32");
        let chosen: Vec<usize> = on_host
            .chunks_exact(self.choice.n_experts)
            .flat_map(|row| self.choice.choose(row, &self.correction))
            .collect();
        let mut places = vec![Vec::new(); self.choice.n_experts];
        for (place, &expert) in chosen.iter().enumerate() {
            places[expert].push(place);
        }
        let of_experts = self.experts.iter().zip(&places).filter(|(_, places)| !places.is_empty());
        let outputs = of_experts.map(|(expert, places)| {
            let tokens = indices(places.iter().map(|place| place / k), &device);
            expert.forward(x.clone().select(0, tokens).unsqueeze()).squeeze_dim::<2>(0)
        });
        // Rows of outputs come expert after expert; each place takes its own back.
        let outputs = Tensor::cat(outputs.collect(), 0);
        let mut rows = vec![0; n * k];
        for (row, place) in places.into_iter().flatten().enumerate() {
            rows[place] = row;
        }
        let outputs = outputs.select(0, indices(rows.into_iter(), &device)).reshape([n, k, d_model]);
        let chosen = indices(chosen.into_iter(), &device).reshape([n, k]);
        let weights = self.choice.weights(scores.gather(1, chosen));
        (outputs * weights.unsqueeze_dim(2)).sum_dim(1).squeeze_dim(1)
    }
}

impl Choice {
    /// The experts of one token by its `scores`, best first.
    fn choose(&self, scores: &[f32], correction: &[f32]) -> Vec<usize> {
        let corrected: Vec<f32> = scores.iter().zip(correction).map(|(score, bias)| score + bias).collect();
        let size = self.n_experts / self.n_groups;
        // A group is as good as its two best experts.
        let groups: Vec<f32> = corrected
            .chunks_exact(size)
            .map(|group| best(0..size, group, 2).into_iter().map(|i| group[i]).sum())
            .collect();
        let groups = best(0..self.n_groups, &groups, self.groups_per_token);
        let candidates = groups.into_iter().flat_map(|group| group * size..(group + 1) * size);
        best(candidates, &corrected, self.experts_per_token)
    }

    /// `chosen`: the scores of the chosen experts, `[n, experts_per_token]`.
    fn weights(&self, chosen: Tensor<2>) -> Tensor<2> {
        let weights = if self.normalised { chosen.clone() / (chosen.sum_dim(1) + 1e-20) } else { chosen };
        weights * self.scale
    }
}

/// Those `n` of `candidates` whose `scores` are highest, best first; among equals those with the lower number.
fn best(candidates: impl Iterator<Item = usize>, scores: &[f32], n: usize) -> Vec<usize> {
    let mut candidates: Vec<usize> = candidates.collect();
    candidates.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    candidates.truncate(n);
    candidates
}

fn indices(values: impl Iterator<Item = usize>, device: &Device) -> Tensor<1, Int> {
    let values: Vec<i64> = values.map(|value| value as i64).collect();
    let n = values.len();
    Tensor::from_data(TensorData::new(values, [n]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choice() -> Choice {
        Choice {
            n_experts: 6,
            experts_per_token: 2,
            n_groups: 3,
            groups_per_token: 1,
            normalised: true,
            scale: 2.0,
        }
    }

    #[test]
    fn experts_are_chosen_among_the_best_groups() {
        let scores = [0.9, 0.1, 0.6, 0.5, 0.2, 0.2];
        let none = [0.0; 6];
        // The best expert is alone in its group: 1.0 against 1.1.
        assert_eq!(choice().choose(&scores, &none), [2, 3]);
        assert_eq!(Choice { groups_per_token: 2, ..choice() }.choose(&scores, &none), [0, 2]);
        // All groups, and the lower number among equals.
        let all = Choice { groups_per_token: 3, experts_per_token: 5, ..choice() };
        assert_eq!(all.choose(&scores, &none), [0, 2, 3, 4, 5]);
        // The correction chooses.
        assert_eq!(choice().choose(&scores, &[0.0, 0.0, 0.0, 0.0, 1.0, 0.5]), [4, 5]);
    }

    #[test]
    fn weights_are_shares_and_scaled() {
        let scores = || Tensor::from_data([[0.6f32, 0.2]], &Device::flex());
        let values = |x: Tensor<2>| x.into_data().iter::<f32>().collect::<Vec<_>>();
        assert_eq!(values(choice().weights(scores())), [1.5, 0.5]);
        assert_eq!(values(Choice { normalised: false, ..choice() }.weights(scores())), [1.2, 0.4]);
    }
}
