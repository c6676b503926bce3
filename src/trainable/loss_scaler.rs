//! Scaling of the loss for fp16, as PyTorch's `GradScaler` (Micikevicius et al., 2018, arXiv
//! 1710.03740).

use serde::{Deserialize, Serialize};

const INITIAL: f64 = 65_536.0;
const GROWTH: f64 = 2.0;
const BACKOFF: f64 = 0.5;
const INTERVAL: u32 = 2000;
/// Below it no scale helps: fairseq's bound.
const LEAST: f64 = 1e-4;

/// What the loss is multiplied by, so that gradients are numbers in fp16 and not 0.
///
/// It begins at 2¹⁶, is halved when a gradient is no finite number, and doubled after 2000 steps
/// in a row without that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LossScaler {
    scale: f64,
    /// Finite steps in a row that double it.
    interval: u32,
    /// Finite steps since it last changed.
    finite: u32,
    /// Steps whose gradients were of no use.
    skipped: usize,
}

impl Default for LossScaler {
    fn default() -> Self {
        Self::growing_after(INTERVAL)
    }
}

impl LossScaler {
    /// One that grows after `interval` finite steps.
    pub fn growing_after(interval: u32) -> Self {
        Self {
            scale: INITIAL,
            interval,
            finite: 0,
            skipped: 0,
        }
    }

    /// What the loss is multiplied by now.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Steps skipped so far.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    /// Whether the scale has fallen so far that another will not help.
    pub fn is_exhausted(&self) -> bool {
        self.scale < LEAST
    }

    /// Takes note of a step's gradients; one whose gradients are not all `finite` is to be skipped.
    pub fn update(&mut self, finite: bool) {
        if !finite {
            self.scale *= BACKOFF;
            self.finite = 0;
            self.skipped += 1;
            return;
        }
        self.finite += 1;
        if self.finite == self.interval {
            // PyTorch keeps it in fp32, and does not let it become infinite.
            if self.scale * GROWTH <= f64::from(f32::MAX) {
                self.scale *= GROWTH;
            }
            self.finite = 0;
        }
    }
}
