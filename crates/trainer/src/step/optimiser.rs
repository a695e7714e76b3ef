//! What makes steps of gradients, on tensors: Adam (Kingma and Ba 2015), AdamW (Loshchilov and Hutter 2019) and signum
//! (Bernstein et al. 2018), with PyTorch's order of operations, and a moving average of the parameters. The fused step has its own.

use burn::{
    module::{Module, ModuleMapper, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};
use monosema_sae::Sae;

use crate::{TrainPlan, config::Optimizer};

/// The optimiser of one dictionary.
pub(super) struct Optimiser {
    rule: Rule,
    /// Of each parameter in the module's order, in one row.
    moments: [Vec<Tensor<1>>; 2],
    /// Their moving average, where there is one.
    average: Option<Vec<Tensor<1>>>,
    /// Steps taken.
    pub(super) time: i32,
}

/// The numbers of a step.
#[derive(Clone, Copy)]
struct Rule {
    optimizer: Optimizer,
    betas: [f64; 2],
    eps: f64,
    weight_decay: f64,
    ema_decay: f64,
}

impl Optimiser {
    pub(super) fn new(sae: &Sae, plan: &TrainPlan) -> Self {
        let rule = Rule {
            optimizer: plan.optimizer,
            betas: plan.adam_betas.0,
            eps: plan.adam_eps,
            weight_decay: plan.weight_decay,
            ema_decay: plan.ema_decay,
        };
        let parameters = rows(sae);
        let zeros = || parameters.iter().map(Tensor::zeros_like).collect();
        let average = (plan.ema_decay > 0.0).then(|| parameters.clone());
        Self { rule, moments: [zeros(), zeros()], average, time: 0 }
    }

    /// Takes a step down `gradients`.
    pub(super) fn step(&mut self, sae: Sae, gradients: &mut GradientsParams, lr: f64) -> Sae {
        self.time += 1;
        let update = Update { rule: self.rule, moments: &mut self.moments, gradients, lr, time: self.time };
        sae.map(&mut InOrder::new(update))
    }

    /// Adds what a step came to, once it is final, to the moving average. The first parameters themselves count for nothing.
    pub(super) fn average(&mut self, sae: &Sae) {
        let Some(average) = &mut self.average else { return };
        // Like Adam's moments it is corrected for its beginning: after t steps all of them weigh 1 − decayᵗ.
        let decay = self.rule.ema_decay;
        let new = (1.0 - decay) / (1.0 - decay.powi(self.time));
        for (average, now) in average.iter_mut().zip(rows(sae)) {
            *average = average.clone().mul_scalar(1.0 - new) + now.mul_scalar(new);
        }
    }

    /// The moving average, as a module like `sae`.
    pub(super) fn averaged(&self, sae: Sae) -> Sae {
        match &self.average {
            Some(average) => with_rows(sae, average),
            None => sae,
        }
    }

    /// Whether there is one.
    pub(super) fn has_average(&self) -> bool {
        self.average.is_some()
    }

    /// Both moments, as modules like `sae`.
    pub(super) fn moments(&self, sae: &Sae) -> [Sae; 2] {
        self.moments.each_ref().map(|moments| with_rows(sae.clone(), moments))
    }

    /// Takes up from these moments and this average.
    pub(super) fn restore(&mut self, moments: [Sae; 2], average: Option<Sae>, time: i32) {
        self.moments = moments.each_ref().map(rows);
        self.average = average.as_ref().map(rows);
        self.time = time;
    }
}

/// Every parameter in one row, without autodiff, in the module's order.
fn rows(sae: &Sae) -> Vec<Tensor<1>> {
    struct Collect(Vec<Tensor<1>>);
    impl ModuleVisitor for Collect {
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            let values = param.val();
            let values = if values.is_autodiff() { values.inner() } else { values };
            self.0.push(values.flatten(0, D - 1));
        }
    }
    let mut collect = Collect(Vec::new());
    sae.visit(&mut collect);
    collect.0
}

/// A module like `sae` with these parameters, in its order.
fn with_rows(sae: Sae, rows: &[Tensor<1>]) -> Sae {
    struct Replace<'a>(&'a [Tensor<1>]);
    impl Change for Replace<'_> {
        fn change<const D: usize>(&mut self, index: usize, _: &Param<Tensor<D>>, _: Tensor<1>) -> Tensor<1> {
            self.0[index].clone()
        }
    }
    sae.map(&mut InOrder::new(Replace(rows)))
}

/// What becomes of a parameter.
trait Change {
    /// `row` is the parameter in one row, without autodiff; what comes out takes its place.
    fn change<const D: usize>(&mut self, index: usize, param: &Param<Tensor<D>>, row: Tensor<1>)
    -> Tensor<1>;
}

/// Changes parameters in the module's order. They stay leaves of the graph if they are.
struct InOrder<C> {
    change: C,
    index: usize,
}

impl<C> InOrder<C> {
    fn new(change: C) -> Self {
        Self { change, index: 0 }
    }
}

impl<C: Change> ModuleMapper for InOrder<C> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.index;
        self.index += 1;
        let values = param.val();
        let (shape, on_tape) = (values.dims(), values.is_autodiff());
        let row = if on_tape { values.inner() } else { values }.flatten(0, D - 1);
        let changed = self.change.change(index, &param, row).reshape(shape);
        param.map(|_| if on_tape { Tensor::from_inner(changed).require_grad() } else { changed })
    }
}

struct Update<'a> {
    rule: Rule,
    moments: &'a mut [Vec<Tensor<1>>; 2],
    gradients: &'a mut GradientsParams,
    lr: f64,
    time: i32,
}

impl Change for Update<'_> {
    fn change<const D: usize>(
        &mut self,
        index: usize,
        param: &Param<Tensor<D>>,
        row: Tensor<1>,
    ) -> Tensor<1> {
        let Rule { optimizer, betas: [beta_1, beta_2], eps, weight_decay, .. } = self.rule;
        let Some(gradient) = self.gradients.remove::<D>(param.id) else { return row };
        let gradient: Tensor<1> = gradient.flatten(0, D - 1);
        let row = if weight_decay > 0.0 { row.mul_scalar(1.0 - self.lr * weight_decay) } else { row };
        let [first, second] = self.moments.each_mut().map(|moments| &mut moments[index]);
        *first = first.clone().mul_scalar(beta_1) + gradient.clone().mul_scalar(1.0 - beta_1);
        match optimizer {
            Optimizer::Adam => {
                *second = second.clone().mul_scalar(beta_2) + gradient.square().mul_scalar(1.0 - beta_2);
                let mean = first.clone().div_scalar(1.0 - beta_1.powi(self.time));
                let spread = second.clone().div_scalar(1.0 - beta_2.powi(self.time)).sqrt();
                row - (mean / spread.add_scalar(eps)).mul_scalar(self.lr)
            }
            Optimizer::Signum => row - first.clone().sign().mul_scalar(self.lr),
        }
    }
}
