//! Which implementation of the layers is meant to run, and where it can.

use candle_core::Device;
use serde::{Deserialize, Serialize};

use super::{Error, Ops};

/// `--ops`: what the trained layers are computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OpsChoice {
    /// Fused on the CPU, composed elsewhere.
    #[default]
    Auto,
    /// Written out for the CPU: the fastest there.
    Fused,
    /// candle's differentiable primitives, on any device: what CUDA runs.
    Composed,
}

impl OpsChoice {
    /// What runs on `device`; fused operations are refused where they cannot.
    pub fn on(self, device: &Device) -> Result<Ops, Error> {
        match (self, device.is_cpu()) {
            (Self::Auto | Self::Fused, true) => Ok(Ops::Fused),
            (Self::Auto, false) | (Self::Composed, _) => Ok(Ops::Composed),
            (Self::Fused, false) => Err(Error::FusedElsewhere),
        }
    }
}
