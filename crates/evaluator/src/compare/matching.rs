//! The latents of two dictionaries in pairs, each in one at most, so that the cosines add up to the most: the assignment
//! problem, solved exactly by the algorithm of Jonker & Volgenant 1987 (the crate `lapjv`).

use burn::tensor::Device;
use serde::{Deserialize, Serialize};

use super::{
    cosines::for_each_block, directions::Directions, error::CompareError, nearest::CosineHistogram,
    side::Side,
};

/// Costs are whole multiples of 1 / this. The algorithm only adds, subtracts and compares, which f32 does to such numbers
/// without rounding up to 32, while costs are 2 at most: so it cannot go astray on differences that are none. A millionth of a
/// cosine is lost, and not from the figures: those are computed again.
const STEPS: f32 = (1 << 19) as f32;

/// The cost of being in no pair, which is what is left in the larger dictionary: any would do, being the same for all.
const UNPAIRED: f32 = 2.0;

/// Latents in pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Matching {
    /// How many pairs: as many as the smaller dictionary has latents.
    pub pairs: usize,
    /// The mean of what was to be large: the cosine of the decoders, or the mean of both cosines.
    pub mean: f64,
    /// The share of pairs with both cosines above the threshold; `None` where encoders cannot be compared.
    pub shared: Option<f64>,
    /// Pairs by what was to be large.
    pub histogram: CosineHistogram,
    /// For each latent of A the number of that of B; `None` if it has none.
    pub partner: Vec<Option<usize>>,
    /// The cosine between their rows of `W_dec`.
    pub decoder_cosine: Vec<Option<f32>>,
    /// The cosine between their columns of `W_enc`; empty where encoders cannot be compared.
    pub encoder_cosine: Vec<Option<f32>>,
}

impl Matching {
    /// Of the latents of `a` and `b`, by their directions `of_a` and `of_b`.
    pub(super) fn new(
        a: &Side,
        b: &Side,
        of_a: &Directions,
        of_b: &Directions,
        threshold: f64,
        device: &Device,
    ) -> Result<Self, CompareError> {
        let partners = partners(of_a, of_b, device)?.map_err(|reason| CompareError::Matching {
            a: a.facts.path.clone(),
            b: b.facts.path.clone(),
            reason,
        })?;
        let comparable = a.encoder.width() == b.encoder.width();
        let none = || vec![None; a.facts.d_sae];
        let mut partner = vec![None; a.facts.d_sae];
        let mut decoder_cosine = none();
        let mut encoder_cosine = if comparable { none() } else { Vec::new() };
        let mut cosines = Vec::new();
        let mut shared = 0;
        for (i, j) in partners.iter().enumerate().filter_map(|(i, j)| Some((i, (*j)?))) {
            let decoder = a.decoder.cosine(i, &b.decoder, j);
            let latent = a.latents[i];
            partner[latent] = Some(b.latents[j]);
            decoder_cosine[latent] = Some(decoder as f32);
            if comparable {
                let encoder = a.encoder.cosine(i, &b.encoder, j);
                encoder_cosine[latent] = Some(encoder as f32);
                shared += usize::from(decoder > threshold && encoder > threshold);
            }
            cosines.push(of_a.cosine(i, of_b, j));
        }
        let pairs = cosines.len();
        Ok(Self {
            pairs,
            mean: cosines.iter().sum::<f64>() / pairs as f64,
            shared: comparable.then(|| shared as f64 / pairs as f64),
            histogram: CosineHistogram::of(cosines),
            partner,
            decoder_cosine,
            encoder_cosine,
        })
    }
}

/// For each row of `a` the one of `b` that it is paired with. The inner error is what the library says.
pub(super) fn partners(
    a: &Directions,
    b: &Directions,
    device: &Device,
) -> Result<Result<Vec<Option<usize>>, String>, CompareError> {
    // The columns are the larger set, and what has no partner stands in rows of its own.
    let (rows, columns) = if a.n() <= b.n() { (a, b) } else { (b, a) };
    let n = columns.n();
    let mut costs = Vec::with_capacity(n * n);
    for_each_block(rows, columns, device, |_, cosines| {
        costs.extend(cosines.iter().map(|&cosine| cost(cosine)));
    })?;
    costs.resize(n * n, UNPAIRED);
    let costs = lapjv::Matrix::from_shape_vec((n, n), costs).expect("they are n × n");
    let (columns_of_rows, rows_of_columns) = match lapjv::lapjv(&costs) {
        Ok(found) => found,
        Err(error) => return Ok(Err(error.to_string())),
    };
    let found = if a.n() <= b.n() { columns_of_rows } else { rows_of_columns };
    Ok(Ok(found.into_iter().take(a.n()).map(|partner| (partner < b.n()).then_some(partner)).collect()))
}

/// 1 − the cosine, rounded.
fn cost(cosine: f32) -> f32 {
    // The cosine is rounded first, for its own magnitude: 1 − it is then exact.
    1.0 - (cosine * STEPS).round() / STEPS
}
