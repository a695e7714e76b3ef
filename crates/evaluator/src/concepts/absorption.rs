//! Feature absorption: a latent that should fire on a class stays silent on some of it, where a more special one has taken its direction in.
//!
//! Chanin et al. 2024 (arXiv 2409.14507), as SAEBench 0.6 computes it (`feature_absorption_calculator.py`), with its thresholds.
//! A token of the class at which a probe on the model's activations is right is looked at: with p the unit direction of the probe, latent i contributes
//! cᵢ = fᵢ⟨W_dec,i, p⟩, and there is a = ⟨x − b_dec, p⟩ to be explained.
//!
//! What differs from SAEBench: tokens are those of labelled text, not spelling prompts; latents of a class are chosen by the difference of
//! their means and not by an L1 probe; the number of them by F1 on the fit half, not on the tokens that are judged; contributions use decoder rows as they
//! are (there: cosines, which is the same for rows of norm 1); and `b_dec`, which no latent has to explain, is taken from x.

/// A probe counts only if its F1 on the held-out half is above this: else the model hardly has what a latent could absorb. SAEBench's `min_GT_probe_f1`.
pub(crate) const MIN_PROBE_F1: f64 = 0.6;

/// The least cosine of the latent that contributes most, for full absorption.
const FULL_COSINE: f64 = 0.025;

/// The least cosine of latents that absorb a part.
const PART_COSINE: f64 = 0.1;

/// The least share of a that is contributed by whoever absorbs.
const LEAST_SHARE: f64 = 0.4;

/// Latents that may absorb a part together.
const MOST_ABSORBING: usize = 3;

/// Where a latent counts as silent.
const SILENT: f32 = 1e-8;

/// How decoder rows lie to the direction of a probe.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Decoder {
    /// ⟨W_dec,i, p⟩ of each latent.
    pub(crate) projections: Vec<f64>,
    /// cos(W_dec,i, p) of each latent; 0 of a row that is 0.
    pub(crate) cosines: Vec<f64>,
}

impl Decoder {
    /// Of `w_dec [d_sae, d_in]` and the unit vector `direction [d_in]`.
    pub(crate) fn new(w_dec: &[f32], direction: &[f64]) -> Self {
        let (mut projections, mut cosines) = (Vec::new(), Vec::new());
        for row in w_dec.chunks_exact(direction.len()) {
            let (mut product, mut square) = (0.0, 0.0);
            for (&w, p) in row.iter().zip(direction) {
                let w = f64::from(w);
                product += w * p;
                square += w * w;
            }
            projections.push(product);
            cosines.push(if square > 0.0 { product / square.sqrt() } else { 0.0 });
        }
        Self { projections, cosines }
    }
}

/// What happens at one token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Firing<'a> {
    /// The latents that are not 0, and their values.
    pub(crate) acts: &'a [(u32, f32)],
    /// a = ⟨x − b_dec, p⟩.
    pub(crate) to_explain: f64,
}

/// How much of a token is absorbed.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Absorption {
    /// All latents of the class are silent, and one other, whose cosine is at least 0.025, contributes most of all and at least 0.4·a.
    pub(crate) full: bool,
    /// Of what the class's latents and the up to three others of cosine at least 0.1 that contribute most contribute, the others' share: 0 if those contribute
    /// less than 0.4·a or the class's latents already all of it; what the others contribute beyond a is not counted.
    pub(crate) fraction: f64,
}

/// What becomes of a token of a class whose latents are `main`.
pub(crate) fn absorption(decoder: &Decoder, main: &[u32], firing: &Firing<'_>) -> Absorption {
    let &Firing { acts, to_explain } = firing;
    if to_explain <= 0.0 {
        return Absorption::default();
    }
    let contributions =
        || acts.iter().map(|&(latent, act)| (latent, f64::from(act) * decoder.projections[latent as usize]));
    let cosine = |latent: u32| decoder.cosines[latent as usize];
    let silent = acts.iter().all(|&(latent, act)| act < SILENT || !main.contains(&latent));
    let top = contributions().max_by(|a, b| a.1.total_cmp(&b.1));
    let full = silent
        && top
            .is_some_and(|(latent, most)| cosine(latent) >= FULL_COSINE && most / to_explain >= LEAST_SHARE);
    let by_main: f64 =
        contributions().filter(|(latent, _)| main.contains(latent)).map(|(_, contributed)| contributed).sum();
    let mut others: Vec<f64> = contributions()
        .filter(|&(latent, contributed)| {
            !main.contains(&latent) && cosine(latent) >= PART_COSINE && contributed > 0.0
        })
        .map(|(_, contributed)| contributed)
        .collect();
    others.sort_unstable_by(|a, b| b.total_cmp(a));
    let by_others: f64 = others.iter().take(MOST_ABSORBING).sum();
    let fraction = if by_main >= to_explain || by_others / to_explain < LEAST_SHARE {
        0.0
    } else if by_main <= 0.0 {
        1.0
    } else {
        let absorbed = by_others.min(to_explain - by_main);
        absorbed / (absorbed + by_main)
    };
    Absorption { full, fraction }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Latents along p: 0 and 1 fully, 2 at cosine 0.6 with norm 2, 3 at 0.05, 4 not at all, 5 is 0.
    fn decoder() -> Decoder {
        let rows = [[1.0, 0.0], [1.0, 0.0], [1.2, 1.6], [0.05, 0.998_749_2], [0.0, 1.0], [0.0, 0.0]];
        Decoder::new(&rows.concat(), &[1.0, 0.0])
    }

    fn at(acts: &[(u32, f32)], to_explain: f64) -> Absorption {
        absorption(&decoder(), &[0], &Firing { acts, to_explain })
    }

    #[test]
    fn rows_by_hand() {
        let Decoder { projections, cosines } = decoder();
        assert!((projections[2] - 1.2).abs() < 1e-6 && (cosines[2] - 0.6).abs() < 1e-6);
        assert!((cosines[3] - 0.05).abs() < 1e-6 && cosines[5] == 0.0);
    }

    #[test]
    fn absorption_by_hand() {
        // The class's own latent explains all, or stands alone.
        assert_eq!(at(&[(0, 2.0), (1, 2.0)], 2.0), Absorption { full: false, fraction: 0.0 });
        assert_eq!(at(&[(0, 1.0)], 2.0), Absorption { full: false, fraction: 0.0 });
        // It is silent, and another one explains 1.2 of 2.
        assert_eq!(at(&[(2, 1.0)], 2.0), Absorption { full: true, fraction: 1.0 });
        // 1.2 of 4 is too little; so is a latent that lies elsewhere.
        assert_eq!(at(&[(2, 1.0)], 4.0), Absorption { full: false, fraction: 0.0 });
        assert_eq!(at(&[(4, 9.0)], 2.0), Absorption::default());
        // A cosine of 0.05 is enough for the one and not for the other.
        assert_eq!(at(&[(3, 20.0)], 2.0), Absorption { full: true, fraction: 0.0 });
        // Half explained, and the rest by another: 1 of 1 + 1, and what is too much does not count.
        assert_eq!(at(&[(0, 1.0), (1, 1.0)], 2.0), Absorption { full: false, fraction: 0.5 });
        assert_eq!(at(&[(0, 1.0), (1, 3.0)], 2.0), Absorption { full: false, fraction: 0.5 });
        // Nothing to explain.
        assert_eq!(at(&[(1, 1.0)], -1.0), Absorption::default());
        assert_eq!(at(&[], 1.0), Absorption::default());
    }
}
