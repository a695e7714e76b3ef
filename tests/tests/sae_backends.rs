//! Every registered architecture computes the same on both CPU backends: functions, losses and training steps.
#![allow(clippy::unwrap_used)]
#![allow(deprecated, reason = "burn-ndarray is on its way out upstream; here it is the second opinion")]

use burn::tensor::Device;
use monosema_sae::{SaeConfig, Size};
use monosema_trainer::conformance::{By, short_training};

/// Odd, so that nothing divides anything.
const SIZE: Size = Size::new(11, 37);
const N: usize = 23;

/// f32 sums in another order, carried through a few steps of Adam.
const TOLERANCE: f32 = 1e-5;

#[test]
fn flex_and_ndarray_agree() {
    for architecture in SaeConfig::variants() {
        let [flex, ndarray] = [Device::flex(), Device::ndarray()]
            .map(|device| short_training(&architecture, SIZE, N, By::Autodiff, &device).unwrap().unwrap());
        assert_eq!(flex.len(), ndarray.len());
        for ((name, a), (_, b)) in flex.iter().zip(&ndarray) {
            assert_eq!(a.len(), b.len(), "{architecture:?} {name}");
            let worst = a.iter().zip(b).map(|(a, b)| (a - b).abs() / b.abs().max(1.0)).fold(0.0, f32::max);
            assert!(worst <= TOLERANCE, "{architecture:?} {name}: differ by {worst}");
        }
    }
}
