//! What each figure of a comparison is, and where it comes from.

use crate::metrics::{Better, Definition};

/// Every figure of a pair A, B, in the order in which they are shown.
pub fn definitions() -> &'static [Definition] {
    &DEFINITIONS
}

const DEFINITIONS: [Definition; 12] = [
    Definition {
        name: "mmcs.a_to_b",
        unit: "",
        better: Better::Neither,
        formula: "1/n_A Σ_i max_j cos(d_i, d_j)",
        meaning: "Mean max cosine similarity: how near the latents of A have one of B. 1 if B has them all.",
        source: "Sharkey, Braun and Millidge 2022, Taking features out of superposition with sparse autoencoders",
    },
    Definition {
        name: "mmcs.b_to_a",
        unit: "",
        better: Better::Neither,
        formula: "1/n_B Σ_j max_i cos(d_i, d_j)",
        meaning: "The same from B: how near its latents have one of A.",
        source: "as mmcs.a_to_b",
    },
    Definition {
        name: "found.a_to_b",
        unit: "",
        better: Better::Neither,
        formula: "#{i : max_j cos(d_i, d_j) > θ} / n_A",
        meaning: "Share of the latents of A that B has, too.",
        source: "as mmcs, above a threshold",
    },
    Definition {
        name: "found.b_to_a",
        unit: "",
        better: Better::Neither,
        formula: "#{j : max_i cos(d_i, d_j) > θ} / n_B",
        meaning: "Share of the latents of B that A has, too.",
        source: "as mmcs, above a threshold",
    },
    Definition {
        name: "match.decoder.cos",
        unit: "",
        better: Better::Neither,
        formula: "1/n Σ_i cos(d_i, d_π(i)), π = argmax over one-to-one π of Σ_i cos(d_i, d_π(i)), n = min(n_A, n_B)",
        meaning: "Mean cosine of latents in pairs, chosen so that it is largest (Hungarian matching): unlike mmcs it counts \
                  no latent twice.",
        source: "after Paulo and Belrose 2025, arXiv 2501.16615",
    },
    Definition {
        name: "match.decoder.shared",
        unit: "",
        better: Better::Neither,
        formula: "#{i : cos(d_i, d_π(i)) > θ and cos(e_i, e_π(i)) > θ} / n",
        meaning: "Share of these pairs that read and write alike.",
        source: "after Paulo and Belrose 2025, arXiv 2501.16615",
    },
    Definition {
        name: "match.both.cos",
        unit: "",
        better: Better::Neither,
        formula: "1/n Σ_i s(i, π(i)), s(i, j) = (cos(e_i, e_j) + cos(d_i, d_j)) / 2, π = argmax Σ_i s(i, π(i))",
        meaning: "As match.decoder.cos, by encoders and decoders together.",
        source: "after Paulo and Belrose 2025, arXiv 2501.16615",
    },
    Definition {
        name: "match.both.shared",
        unit: "",
        better: Better::Neither,
        formula: "#{i : cos(d_i, d_π(i)) > θ and cos(e_i, e_π(i)) > θ} / n",
        meaning: "Share of these pairs that read and write alike: latents that both dictionaries share, in the sense of Paulo \
                  & Belrose 2025, arXiv 2501.16615.",
        source: "after Paulo and Belrose 2025, arXiv 2501.16615",
    },
    Definition {
        name: "split.lost",
        unit: "",
        better: Better::Neither,
        formula: "#{i : c_i = 0} / n_S, c_i = #{j in L : argmax_k cos(d_k, d_j) = i and cos(d_i, d_j) > θ}",
        meaning: "Share of the latents of the smaller dictionary S without a child in the larger one L. A child is a latent \
                  that has this one for its nearest, above θ. Of two of a size S is A.",
        source: "after Leask et al. 2025, arXiv 2502.04878",
    },
    Definition {
        name: "split.split",
        unit: "",
        better: Better::Neither,
        formula: "#{i : c_i ≥ 2} / n_S",
        meaning: "Share of the latents of S with several children: feature splitting (Bricken et al. 2023, Towards \
                  monosemanticity).",
        source: "feature splitting: Bricken et al. 2023, Towards Monosemanticity",
    },
    Definition {
        name: "split.children",
        unit: "latents",
        better: Better::Neither,
        formula: "1/n_S Σ_i c_i",
        meaning: "Children that a latent of S has in L, in the mean.",
        source: "feature splitting: Bricken et al. 2023, Towards Monosemanticity",
    },
    Definition {
        name: "split.novel",
        unit: "",
        better: Better::Neither,
        formula: "#{j in L : max_i cos(d_i, d_j) ≤ θ} / n_L",
        meaning: "Share of the latents of L that are nobody's children: novel latents, where the others are reconstruction \
                  latents, in the sense of Leask et al. 2025, arXiv 2502.04878, who tell them apart at .7.",
        source: "Leask et al. 2025, arXiv 2502.04878",
    },
];
