//! What attention must know about positions: rotation tables and which positions see which. Both depend on the
//! sequence length alone, so they are computed once a length and kept.

use std::{
    ops::Range,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use burn::tensor::{Bool, Device, Tensor, TensorData};

use super::{Rope, rotary::Rotary};
use crate::host;

/// How blocks of a model treat positions. Clones share their tables.
#[derive(Clone, Debug)]
pub(crate) struct Positions {
    rope: Option<Rope>,
    /// A position sees only this many positions, itself included.
    window: Option<usize>,
    /// The tables of the last length asked for.
    kept: Arc<Mutex<Option<Arc<Tables>>>>,
}

/// Tables for one sequence length on one device.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) seq_len: usize,
    device: Device,
    pub(crate) window: usize,
    pub(crate) rotation: Option<Rotation>,
    /// Whether scores are masked on the host, by [`Tables::seen`]; else by [`Tables::hidden`].
    pub(crate) masked_on_host: bool,
    hidden: OnceLock<Tensor<2, Bool>>,
}

impl Tables {
    /// The keys that the query at `position` sees.
    pub(crate) fn seen(&self, position: usize) -> Range<usize> {
        (position + 1).saturating_sub(self.window)..position + 1
    }

    /// True where the query (row) must not see the key (column), `[seq, seq]`. Made when it is first asked for: a fused
    /// kernel needs none, and at 8192 positions it is as large as many a weight.
    pub(crate) fn hidden(&self) -> &Tensor<2, Bool> {
        let seq = self.seq_len;
        self.hidden.get_or_init(|| {
            let hidden = |i: usize| !self.seen(i / seq).contains(&(i % seq));
            let hidden: Vec<bool> = (0..seq * seq).map(hidden).collect();
            Tensor::from_data(TensorData::new(hidden, [seq, seq]), &self.device)
        })
    }
}

/// Cosines and sines, each `[seq, half]`, on the device and on the host.
#[derive(Debug)]
pub(crate) struct Rotation {
    pub(crate) half: usize,
    pub(crate) cos: Tensor<2>,
    pub(crate) sin: Tensor<2>,
    pub(crate) host: (Vec<f32>, Vec<f32>),
}

impl Positions {
    /// `rope` if positions are rotations; `window` if a position does not see its whole past.
    pub(crate) fn new(rope: Option<Rope>, window: Option<usize>) -> Self {
        Self { rope, window, kept: Arc::default() }
    }

    /// The tables for sequences of `seq_len` on `device`.
    pub(crate) fn tables(&self, seq_len: usize, device: &Device) -> Arc<Tables> {
        // Whoever panicked while holding the lock left either the old or the new tables.
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let fits = |t: &Arc<Tables>| {
            // Devices compare equal whether or not they record gradients; their tensors do not mix.
            t.seq_len == seq_len && t.device == *device && t.device.is_autodiff() == device.is_autodiff()
        };
        match &*kept {
            Some(tables) if fits(tables) => tables.clone(),
            _ => kept.insert(Arc::new(self.compute(seq_len, device))).clone(),
        }
    }

    fn compute(&self, seq_len: usize, device: &Device) -> Tables {
        // Frequencies too only now, when the weights have shown that heads are as wide as the configuration says.
        let rotation = self.rope.as_ref().map(|Rope { d_rotated, theta, scaling }| {
            let rotary = Rotary::new(*d_rotated, *theta, scaling.as_ref());
            let (host, half) = (rotary.tables(seq_len), rotary.half());
            let tensor =
                |table: &[f32]| Tensor::from_data(TensorData::new(table.to_vec(), [seq_len, half]), device);
            Rotation { half, cos: tensor(&host.0), sin: tensor(&host.1), host }
        });
        let window = self.window.unwrap_or(seq_len);
        let masked_on_host = host::applies_to(device);
        let hidden = OnceLock::new();
        Tables { seq_len, device: device.clone(), window, rotation, masked_on_host, hidden }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(window: Option<usize>, seq_len: usize) -> Vec<bool> {
        let positions = Positions::new(None, window);
        let on_host = positions.tables(seq_len, &Device::flex());
        let elsewhere = positions.tables(seq_len, &Device::flex().autodiff());
        assert!(on_host.masked_on_host && !elsewhere.masked_on_host);
        assert!(elsewhere.hidden.get().is_none(), "nobody has asked yet");
        let hidden: Vec<bool> = elsewhere.hidden().to_data().iter::<bool>().collect();
        for (position, row) in hidden.chunks(seq_len).enumerate() {
            let seen: Vec<usize> = (0..seq_len).filter(|&key| !row[key]).collect();
            assert_eq!(seen, on_host.seen(position).collect::<Vec<_>>());
        }
        hidden
    }

    #[test]
    fn the_future_is_hidden_and_so_is_what_leaves_the_window() {
        let (t, f) = (true, false);
        assert_eq!(hidden(None, 3), [f, t, t, f, f, t, f, f, f]);
        assert_eq!(hidden(Some(2), 3), [f, t, t, f, f, t, t, f, f]);
        assert_eq!(hidden(Some(1), 2), [f, t, t, f]);
    }

    #[test]
    fn tables_are_kept_until_another_length_comes() {
        let positions = Positions::new(Some(Rope { d_rotated: 4, theta: 10.0, scaling: None }), None);
        let device = Device::flex();
        let first = positions.tables(5, &device);
        assert!(Arc::ptr_eq(&first, &positions.clone().tables(5, &device)));
        assert!(!Arc::ptr_eq(&first, &positions.tables(6, &device)));
        assert!(!Arc::ptr_eq(&first, &positions.tables(5, &device.autodiff())));
    }
}
