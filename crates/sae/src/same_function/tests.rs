//! Conversions that are right, that round, and that are wrong on purpose.

use std::num::NonZeroUsize;

use burn::tensor::{Device, TensorData};
use monosema_core::{BlockHook, HookPoint};

use super::*;
use crate::{
    Metadata, Sae, SaeConfig, Size, Weights,
    architecture::{jump_relu::JumpReluConfig, top_k::TopKConfig},
};

const SIZE: Size = Size::new(24, 96);

/// Weights as training leaves them, changed by `change`.
fn dictionary(config: impl Into<SaeConfig>, change: impl Fn(&str, &mut [f32])) -> Dictionary {
    let config = config.into();
    let mut rng = Seed(7).stream("same function");
    let mut weights = Weights::default();
    for (name, shape) in config.shapes(SIZE) {
        let mut values: Vec<f32> =
            (0..shape.iter().product()).map(|_| rng.random_range(-1.0_f32..1.0)).collect();
        if name == "threshold" {
            values.iter_mut().for_each(|v| *v = 0.5 + v.abs());
        }
        change(name, &mut values);
        weights.insert_data(name, TensorData::new(values, shape));
    }
    let metadata = Metadata::new(HookPoint::block(0, BlockHook::ResidPost));
    Dictionary::new(Sae::from_weights(&config, SIZE, weights, &Device::flex()), metadata, None)
}

fn configs() -> Vec<SaeConfig> {
    let all = SaeConfig::variants().into_iter();
    // Those that dictionaries are made of.
    all.filter(|config| !config.chooses_in_batch() && !format!("{config:?}").contains("log_threshold: true"))
        .collect()
}

fn measured(before: &Dictionary, after: &Dictionary) -> Difference {
    difference(before, after, &inputs(before))
}

#[test]
fn a_dictionary_is_the_same_as_itself_bit_for_bit() {
    for config in configs() {
        let one = dictionary(config, |_, _| {});
        let found = measured(&one, &one);
        assert_eq!((found.acts, found.x_hat, found.at_edges), (0.0, 0.0, 0));
        assert!(found.tokens > 500 && found.is_rounding());
    }
}

#[test]
fn rounding_is_no_difference() {
    for config in configs() {
        let before = dictionary(config.clone(), |_, _| {});
        // A few units in the last place, as of sums in another order.
        let after = dictionary(config.clone(), |_, values| {
            values.iter_mut().enumerate().for_each(|(i, v)| *v *= 1.0 + (i % 3) as f32 * 1.2e-7);
        });
        let found = measured(&before, &after);
        assert!(found.is_rounding() && found.largest() > 0.0, "{config:?}: {found:?}");
    }
}

#[test]
fn every_tensor_that_is_wrong_is_found() {
    for config in configs() {
        let before = dictionary(config.clone(), |_, _| {});
        for (wrong, _) in config.shapes(SIZE) {
            let after = dictionary(config.clone(), |name, values| {
                if name == wrong {
                    values.iter_mut().for_each(|v| *v *= 1.02);
                }
            });
            let found = measured(&before, &after);
            assert!(!found.is_rounding(), "{config:?}: {wrong} is 2 % larger, and that makes {found:?}");
        }
    }
}

#[test]
fn one_wrong_latent_is_found() {
    let config: SaeConfig = JumpReluConfig::default().into();
    let before = dictionary(config.clone(), |_, _| {});
    let after = dictionary(config, |name, values| {
        if name == "threshold" {
            values[41] *= 1.5;
        }
    });
    assert!(!measured(&before, &after).is_rounding());
}

#[test]
fn conventions_that_are_mixed_up_are_found() {
    let relu = |apply_b_dec_to_input| crate::architecture::relu::ReluConfig { apply_b_dec_to_input };
    let same = |config: SaeConfig| dictionary(config, |_, _| {});
    assert!(!measured(&same(relu(true).into()), &same(relu(false).into())).is_rounding());
    let top_k = |k, rescale_acts_by_decoder_norm| TopKConfig {
        k: NonZeroUsize::new(k).unwrap(),
        rescale_acts_by_decoder_norm,
        ..TopKConfig::default()
    };
    assert!(!measured(&same(top_k(5, false).into()), &same(top_k(6, false).into())).is_rounding());
    assert!(!measured(&same(top_k(5, false).into()), &same(top_k(5, true).into())).is_rounding());
}

#[test]
fn what_is_not_a_number_is_no_rounding() {
    // Of each matrix one entry so large that what comes of it is infinite, or not a number.
    let overflowing = |name: &'static str| {
        dictionary(crate::architecture::relu::ReluConfig::default(), move |of, values| {
            if of == name {
                values.iter_mut().for_each(|value| *value *= f32::MAX);
            }
        })
    };
    let fine = dictionary(crate::architecture::relu::ReluConfig::default(), |_, _| {});
    for name in ["W_enc", "W_dec"] {
        let found = measured(&fine, &overflowing(name));
        assert!(!found.is_rounding() && found.largest().total_cmp(&TOLERANCE).is_gt(), "{name}: {found:?}");
    }
    assert!(measured(&fine, &fine).active > 0);
}

#[test]
fn a_latent_on_an_edge_is_told_and_forgiven() {
    // The first latent sees the first value alone; its threshold is one or three units in the last place of 0.75 beside it.
    let with_threshold = |threshold: f32| {
        dictionary(JumpReluConfig::default(), move |name, values| match name {
            "W_enc" => {
                for (d, row) in values.chunks_mut(SIZE.d_sae).enumerate() {
                    row[0] = f32::from(d == 0);
                }
            }
            "b_enc" => values[0] = 0.0,
            "threshold" => values[0] = threshold,
            _ => {}
        })
    };
    let next = |steps: u32| f32::from_bits(0.75_f32.to_bits() + steps);
    let mut x = values(inputs(&with_threshold(0.75)));
    x.truncate(20 * SIZE.d_in);
    x[0] = next(2);
    let x = Tensor::from_data(TensorData::new(x, [20, SIZE.d_in]), &Device::flex());
    let found = difference(&with_threshold(next(1)), &with_threshold(next(3)), &x);
    assert!(found.at_edges == 1 && found.is_rounding(), "{found:?}");
    // Farther than rounding goes.
    let found = difference(&with_threshold(next(1)), &with_threshold(next(20_000)), &x);
    assert!(found.at_edges == 0 && !found.is_rounding(), "{found:?}");
}
