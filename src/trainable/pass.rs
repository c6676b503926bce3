//! What one pass through the trainable half needs besides its input.

use std::cell::Cell;
use std::sync::Arc;

use candle_core::Device;

use super::ops::{Dropout, Ops};

/// One pass: which operations run, and where dropout's randomness comes from.
///
/// Dropout's masks follow from the seed, the step and the order of the dropout sites, so that a
/// step can be repeated exactly.
pub struct Pass {
    /// Fused or composed.
    pub ops: Ops,
    keys: Option<DropoutKeys>,
}

struct DropoutKeys {
    state: u64,
    site: Cell<u64>,
}

impl Pass {
    /// A pass without dropout.
    pub fn evaluation(device: &Device) -> Self {
        Self {
            ops: Ops::for_device(device),
            keys: None,
        }
    }

    /// The training pass of `step` in a run with `seed`.
    pub fn training(device: &Device, seed: u64, step: u64) -> Self {
        Self {
            ops: Ops::for_device(device),
            keys: Some(DropoutKeys {
                state: super::ops::mix(super::ops::mix(seed).wrapping_add(step)),
                site: Cell::new(0),
            }),
        }
    }

    /// The next dropout of this pass; nothing in evaluation or at probability 0.
    pub fn dropout(&self, probability: f64) -> Option<Dropout> {
        let keys = self.keys.as_ref()?;
        let site = keys.site.get();
        keys.site.set(site + 1);
        let key = super::ops::mix(keys.state.wrapping_add(site));
        (probability > 0.0).then(|| Dropout::new(probability, key))
    }
}

/// Where each sequence of a packed batch lies.
#[derive(Debug, Clone)]
pub struct Packing {
    /// Sequence `i` is the rows `offsets[i]..offsets[i + 1]`: `[sequences + 1]`.
    pub offsets: Arc<[usize]>,
}

impl Packing {
    /// From the offsets of a [`Ragged`](crate::ragged::Ragged).
    pub fn new(offsets: &[usize]) -> Self {
        Self {
            offsets: offsets.into(),
        }
    }

    /// Tokens of the longest sequence.
    pub fn longest(&self) -> usize {
        let lengths = self.offsets.windows(2).map(|bounds| bounds[1] - bounds[0]);
        lengths.max().unwrap_or(0)
    }
}
