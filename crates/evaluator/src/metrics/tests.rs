//! Properties of every family: they hold for whatever is registered.

use super::*;

const SHAPE: Shape = Shape { d_in: 3, d_sae: 4 };

/// Of documents of seven tokens.
fn token(t: usize) -> Token {
    Token { document: t as u64 / 7, place: t as u64 % 7, position: t % 7 }
}

/// Tokens with a mean far from 0, reconstructed with a bias and noise; eighths, so that f32 is exact.
struct Data {
    x: Vec<f32>,
    acts: Vec<f32>,
    x_hat: Vec<f32>,
}

impl Data {
    fn new(n: usize) -> Self {
        let mut state = 7u32;
        let mut draw = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f32::from(u8::try_from(state >> 24).unwrap()) / 8.0 - 16.0
        };
        let x: Vec<f32> =
            (0..n * SHAPE.d_in).map(|i| draw() + if i % 3 == 0 { 100.0 } else { 0.0 }).collect();
        let x_hat = x.iter().map(|x| x + draw() / 4.0 + 0.5).collect();
        let acts = (0..n * SHAPE.d_sae).map(|i| if i % 4 == 3 { 0.0 } else { draw().max(0.0) }).collect();
        Self { x, acts, x_hat }
    }

    fn map(&self, f: impl Fn(usize, f32) -> f32) -> Self {
        let map = |values: &[f32]| values.iter().enumerate().map(|(i, &v)| f(i, v)).collect();
        Self { x: map(&self.x), acts: self.acts.clone(), x_hat: map(&self.x_hat) }
    }

    fn n(&self) -> usize {
        self.x.len() / SHAPE.d_in
    }

    fn mean(&self) -> Vec<f64> {
        (0..SHAPE.d_in)
            .map(|d| {
                self.x.iter().skip(d).step_by(SHAPE.d_in).map(|&x| f64::from(x)).sum::<f64>()
                    / self.n() as f64
            })
            .collect()
    }

    /// Feeds tokens `from..to`.
    fn feed(&self, metrics: &mut Metrics, from: usize, to: usize) {
        let Shape { d_in, d_sae } = SHAPE;
        let rows = |values: &'_ [f32], width: usize| values[from * width..to * width].to_vec();
        let (x, acts, x_hat) = (rows(&self.x, d_in), rows(&self.acts, d_sae), rows(&self.x_hat, d_in));
        let tokens: Vec<_> = (from..to).map(token).collect();
        metrics.add(&Block {
            shape: SHAPE,
            x: &x,
            acts: &acts,
            x_hat: &x_hat,
            mean: &self.mean(),
            tokens: &tokens,
        });
        let predictions: Vec<_> = tokens
            .iter()
            .zip(from..to)
            .map(|(&token, t)| {
                let ce = |offset: f64| offset + (t % 5) as f64;
                let loss = |offset| Some(Loss { ce: ce(offset), kl: ce(offset / 2.0), agrees: t % 3 == 0 });
                Prediction { token, clean: ce(2.0), spliced: [2.5, 7.0, 6.0, 6.5].map(loss) }
            })
            .collect();
        metrics.add_predictions(&predictions);
    }

    fn figures(&self) -> Figures {
        let mut metrics = Metrics::new(SHAPE);
        self.feed(&mut metrics, 0, self.n());
        metrics.figures()
    }
}

#[track_caller]
fn assert_close(a: &Figures, b: &Figures, names: impl Iterator<Item = &'static str>) {
    for name in names {
        let (a, b) = (a[name].unwrap(), b[name].unwrap());
        assert!((a - b).abs() <= 1e-11 * a.abs().max(1.0), "{name}: {a} and {b}");
    }
}

fn all() -> impl Iterator<Item = &'static str> {
    definitions().map(|d| d.name)
}

#[test]
fn every_figure_has_one_definition() {
    let names: Vec<_> = all().collect();
    let figures = Data::new(10).figures();
    assert_eq!(names.len(), figures.len());
    for definition in definitions() {
        assert!(figures[definition.name].is_some(), "{}", definition.name);
        assert!(!definition.source.is_empty(), "{}", definition.name);
        assert!(!definition.formula.is_empty() && definition.meaning.ends_with('.'), "{}", definition.name);
    }
}

#[test]
fn no_figure_depends_on_how_tokens_are_split_into_blocks() {
    let data = Data::new(103);
    let whole = data.figures();
    for width in [1, 2, 7, 64] {
        let mut metrics = Metrics::new(SHAPE);
        for from in (0..data.n()).step_by(width) {
            data.feed(&mut metrics, from, data.n().min(from + width));
        }
        assert_close(&metrics.figures(), &whole, all());
    }
}

#[test]
fn sums_of_parts_merge_into_those_of_the_whole() {
    let data = Data::new(103);
    let mut pooled = Metrics::new(SHAPE);
    for (from, to) in [(0, 1), (1, 80), (80, 103)] {
        let mut part = Metrics::new(SHAPE);
        data.feed(&mut part, from, to);
        pooled.merge(&part);
    }
    assert_close(&pooled.figures(), &data.figures(), all());
}

#[test]
fn fractions_of_variance_do_not_change_with_the_scale_of_the_data() {
    let data = Data::new(50);
    for scale in [4.0, 1024.0, 0.125] {
        let scaled = data.map(|_, v| v * scale);
        let names = ["fvu", "ev.r2", "ev.legacy", "ev.centred", "cos", "l2_ratio", "rel_bias"];
        assert_close(&scaled.figures(), &data.figures(), names.into_iter());
        let (mse, scaled_mse) = (data.figures()["mse"].unwrap(), scaled.figures()["mse"].unwrap());
        assert!((scaled_mse / mse / f64::from(scale * scale) - 1.0).abs() < 1e-12);
    }
}

#[test]
fn errors_do_not_change_when_data_and_reconstruction_shift_together() {
    let data = Data::new(50);
    let shifted = data.map(|i, v| v + [512.0, -4096.0, 0.0][i % 3]);
    assert_close(
        &shifted.figures(),
        &data.figures(),
        ["fvu", "ev.r2", "ev.legacy", "ev.centred", "mse"].into_iter(),
    );
}

#[test]
fn only_the_centred_convention_is_blind_to_a_constant_bias() {
    let data = Data::new(50);
    let biased = Data { x_hat: data.x_hat.iter().map(|x| x + 8.0).collect(), ..data.map(|_, v| v) };
    assert_close(&biased.figures(), &data.figures(), ["ev.centred"].into_iter());
    assert!(biased.figures()["fvu"].unwrap() > data.figures()["fvu"].unwrap() + 0.1);
}

#[test]
fn perfect_reconstruction_and_the_mean_are_the_fixed_points() {
    let data = Data::new(50);
    let perfect = Data { x_hat: data.x.clone(), ..data.map(|_, v| v) }.figures();
    for (name, expected) in [
        ("fvu", 0.0),
        ("ev.r2", 1.0),
        ("ev.legacy", 1.0),
        ("ev.centred", 1.0),
        ("mse", 0.0),
        ("rel_bias", 1.0),
    ] {
        assert_eq!(perfect[name], Some(expected), "{name}");
    }
    for (name, expected) in [("cos", 1.0), ("l2_ratio", 1.0)] {
        assert!((perfect[name].unwrap() - expected).abs() < 1e-14, "{name}");
    }
    let mean: Vec<f32> = data.mean().iter().map(|&m| m as f32).collect();
    let constant = Data { x_hat: mean.repeat(data.n()), ..data.map(|_, v| v) }.figures();
    for (name, expected) in [("fvu", 1.0), ("ev.r2", 0.0), ("ev.legacy", 0.0), ("ev.centred", 0.0)] {
        assert!((constant[name].unwrap() - expected).abs() < 1e-6, "{name}: {:?}", constant[name]);
    }
}

#[test]
fn numbers_worked_out_by_hand() {
    // x = (0,3), (4,0), (2,3): mean (2,2); ‖x − x̄‖² = 5, 8, 1. x̂ = (0,2), (4,2), (2,3): ‖e‖² = 1, 4, 0.
    let shape = Shape { d_in: 2, d_sae: 3 };
    let mut metrics = Metrics::new(shape);
    metrics.add(&Block {
        shape,
        x: &[0.0, 3.0, 4.0, 0.0, 2.0, 3.0],
        x_hat: &[0.0, 2.0, 4.0, 2.0, 2.0, 3.0],
        acts: &[1.0, 0.0, 0.0, 0.5, 2.0, 0.0, 0.0, 0.25, 0.0],
        mean: &[2.0, 2.0],
        tokens: &[0, 1, 2].map(token),
    });
    let loss = |(ce, kl, agrees)| Some(Loss { ce, kl, agrees });
    metrics.add_predictions(&[
        Prediction {
            token: token(0),
            clean: 1.0,
            spliced: [(2.0, 0.5, true), (7.0, 5.0, false), (5.0, 3.0, false), (6.0, 2.0, true)].map(loss),
        },
        Prediction {
            token: token(1),
            clean: 3.0,
            spliced: [(3.0, 0.1, true), (9.0, 1.0, false), (7.0, 3.0, true), (6.0, 4.0, true)].map(loss),
        },
    ]);
    let figures = metrics.figures();
    let expected = [
        ("l0", 4.0 / 3.0),
        ("l1", 3.75 / 3.0),
        ("mse", 5.0 / 3.0),
        ("fvu", 5.0 / 14.0),
        ("ev.legacy", 1.0 - (1.0 / 5.0 + 4.0 / 8.0) / 3.0),
        // Errors (0,1), (0,-2), (0,0): variance about their mean (0,-1/3) is 5 − 3/9.
        ("ev.centred", 1.0 - (5.0 - 1.0 / 3.0) / 14.0),
        ("l2_ratio", (2.0 / 3.0 + 20f64.sqrt() / 4.0 + 1.0) / 3.0),
        ("cos", (1.0 + 4.0 / 20f64.sqrt() + 1.0) / 3.0),
        ("rel_bias", (4.0 + 20.0 + 13.0) / (6.0 + 16.0 + 13.0)),
        ("ce.clean", 2.0),
        ("ce.sae", 2.5),
        ("ce.zero", 8.0),
        ("ce.mean", 6.0),
        ("ce.resample", 6.0),
        ("loss_recovered.resample", 3.5 / 4.0),
        ("kl.resample", 3.0),
        ("top1.resample", 1.0),
        ("loss_recovered.zero", 5.5 / 6.0),
        ("loss_recovered.mean", 3.5 / 4.0),
        ("kl", 0.3),
        ("kl_recovered", 5.4 / 6.0),
        ("top1", 1.0),
        ("top1.zero", 0.0),
        ("top1.mean", 0.5),
        ("dead", 1.0 / 3.0),
        ("density.above_0.1", 2.0),
    ];
    for (name, expected) in expected {
        let found = figures[name].unwrap();
        assert!((found - expected).abs() < 1e-12, "{name}: expected {expected}, found {found}");
    }
}

#[test]
fn what_is_not_defined_is_none_and_not_a_number() {
    let figures = Metrics::new(SHAPE).figures();
    for name in ["l0", "fvu", "ev.legacy", "ce.clean", "loss_recovered.zero", "kl", "top1"] {
        assert_eq!(figures[name], None, "{name}");
    }
    // Constant data has no variance to explain.
    let constant = Data::new(5).map(|_, _| 1.0).figures();
    assert_eq!((constant["fvu"], constant["ev.legacy"]), (None, None));
}

/// One latent, active `l0` times on each of `n` tokens of the document: what any figure is of a document is then known.
fn uniform(metrics: &mut Metrics, document: u64, n: usize, error: f32) {
    let shape = Shape { d_in: 1, d_sae: 1 };
    let tokens: Vec<_> =
        (0..n).map(|place| Token { document, place: place as u64, position: place }).collect();
    let x: Vec<f32> = (0..n).map(|i| if i % 2 == 0 { 1.0 } else { -1.0 }).collect();
    let x_hat: Vec<f32> = x.iter().map(|x| x + error).collect();
    metrics.add(&Block { shape, x: &x, acts: &vec![1.0; n], x_hat: &x_hat, mean: &[0.0], tokens: &tokens });
}

#[test]
fn intervals_are_those_of_the_mean_over_documents() {
    // The squared error of a document is 0 or 1, as often: of 400 documents its mean is normal, 0.5 ± 0.025.
    let mut metrics = Metrics::new(Shape { d_in: 1, d_sae: 1 });
    for document in 0..400 {
        uniform(&mut metrics, document, 4, f32::from(document % 2 == 0));
    }
    let intervals = metrics.intervals(2000, Seed(1));
    assert_eq!((intervals.level, intervals.resamples, intervals.documents), (0.95, 2000, 400));
    let [low, high] = intervals.of["mse"];
    let (expected_low, expected_high) = (0.5 - 1.96 * 0.025, 0.5 + 1.96 * 0.025);
    assert!((low - expected_low).abs() < 0.006 && (high - expected_high).abs() < 0.006, "{low} {high}");
    // The same documents make the same variance whichever are drawn; what has no spread has no width.
    assert_eq!(intervals.of["l0"], [1.0, 1.0]);
    assert!((intervals.of["fvu"][0] - low).abs() < 1e-12);
    // Without predictions there is no cross-entropy.
    assert!(!intervals.of.contains_key("ce.clean"));
    assert_eq!(metrics.intervals(2000, Seed(1)), intervals);
    assert_ne!(metrics.intervals(2000, Seed(2)), intervals);
}

#[test]
fn alike_tokens_of_a_document_do_not_narrow_an_interval() {
    let width = |n| {
        let mut metrics = Metrics::new(Shape { d_in: 1, d_sae: 1 });
        for document in 0..100 {
            uniform(&mut metrics, document, n, f32::from(document % 2 == 0));
        }
        let [low, high] = metrics.intervals(500, Seed(1)).of["mse"];
        high - low
    };
    assert!((width(2) - width(64)).abs() < 1e-12);
}

#[test]
fn every_text_is_resampled_by_itself() {
    // Between the texts there is all the difference, within them none.
    let shape = Shape { d_in: 1, d_sae: 1 };
    let (mut near, mut far) = (Metrics::new(shape), Metrics::new(shape));
    for document in 0..10 {
        uniform(&mut near, document, 2, 0.0);
        uniform(&mut far, document, 2, 3.0);
    }
    near.merge(&far);
    let intervals = near.intervals(100, Seed(0));
    assert_eq!((intervals.documents, intervals.of["mse"]), (20, [4.5, 4.5]));
}

#[test]
fn of_one_document_there_is_no_interval() {
    let mut metrics = Metrics::new(Shape { d_in: 1, d_sae: 1 });
    uniform(&mut metrics, 3, 10, 1.0);
    assert!(metrics.intervals(100, Seed(0)).of.is_empty());
    uniform(&mut metrics, 4, 10, 1.0);
    assert!(!metrics.intervals(100, Seed(0)).of.is_empty());
    assert!(metrics.intervals(0, Seed(0)).of.is_empty());
}

#[test]
fn a_text_of_very_many_documents_is_summed_by_groups_of_neighbours() {
    let mut metrics = Metrics::new(Shape { d_in: 1, d_sae: 1 });
    for document in 0..5000 {
        uniform(&mut metrics, document, 2, f32::from(document % 2 == 0));
    }
    let intervals = metrics.intervals(20, Seed(0));
    // Groups of four: 5000 / 4.
    assert_eq!(intervals.documents, 1250);
    assert!((metrics.figures()["mse"].unwrap() - 0.5).abs() < 1e-12);
}
