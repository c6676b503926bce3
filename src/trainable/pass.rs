//! What one pass through the trainable half needs besides its input.

use candle_core::DType;

use super::MixedPrecision;
use super::dropout::{Dropout, mix};

/// Which implementation of the layers runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ops {
    /// Written out for the CPU (`packed`).
    Fused,
    /// candle's differentiable primitives ([`ops`](super::ops)), on any device.
    Composed,
}

/// One pass: which operations run, and where dropout's randomness comes from.
///
/// Dropout's masks follow from the seed, the step and the place in the model, so that a step can
/// be repeated exactly.
#[derive(Debug, Clone, Copy)]
pub struct Pass {
    /// Fused or composed.
    pub ops: Ops,
    /// What the composed layers compute in; the fused ones know fp32 alone.
    pub mixed_precision: MixedPrecision,
    /// Whether gradients will be asked for.
    pub way_back: bool,
    /// Whether each layer keeps its input alone for the way back, and is computed again from it.
    pub recompute: bool,
    /// Whether the last layer computes every token's state though only some are read.
    pub all_rows: bool,
    /// Of dropout; none in evaluation.
    key: Option<u64>,
}

/// A place where dropout is applied; layers are counted from the lowest that is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Site {
    /// The embeddings' sum.
    Embeddings,
    /// A layer's attention probabilities.
    Probabilities(usize),
    /// What a layer's attention puts out.
    Attention(usize),
    /// What a layer's feed-forward part puts out.
    Output(usize),
    /// The head's input.
    Head,
    /// Between the layers of a head that has two.
    InsideHead,
}

impl Site {
    fn number(self) -> u64 {
        match self {
            Self::Embeddings => 0,
            Self::Head => 1,
            // Beyond any layer's.
            Self::InsideHead => u64::MAX,
            Self::Probabilities(layer) => 2 + 3 * layer as u64,
            Self::Attention(layer) => 3 + 3 * layer as u64,
            Self::Output(layer) => 4 + 3 * layer as u64,
        }
    }
}

impl Pass {
    /// A pass without dropout.
    pub fn evaluation(ops: Ops) -> Self {
        Self {
            ops,
            mixed_precision: MixedPrecision::None,
            way_back: false,
            recompute: false,
            all_rows: false,
            key: None,
        }
    }

    /// The training pass of `step` in a run with `seed`.
    pub fn training(ops: Ops, seed: u64, step: u64) -> Self {
        Self {
            way_back: true,
            key: Some(mix(mix(seed).wrapping_add(step))),
            ..Self::evaluation(ops)
        }
    }

    /// The same pass, of which no gradients will be asked for.
    #[must_use]
    pub fn without_way_back(self) -> Self {
        Self {
            way_back: false,
            ..self
        }
    }

    /// What matrix products compute in.
    pub(super) fn number_type(&self) -> DType {
        self.mixed_precision.number_type()
    }

    /// Dropout at `site`; nothing in evaluation or at probability 0.
    pub fn dropout(&self, site: Site, probability: f64) -> Option<Dropout> {
        let key = mix(self.key?.wrapping_add(site.number()));
        (probability > 0.0).then(|| Dropout::new(probability, key))
    }
}
