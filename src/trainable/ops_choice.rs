//! Which implementation of the layers is meant to run, and where it can.

use serde::{Deserialize, Serialize};

use super::{Error, MixedPrecision, Ops};

/// `--ops`: what the trained layers are computed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum OpsChoice {
    /// Fused on the CPU, composed elsewhere and for what only composed operations do.
    #[default]
    Auto,
    /// Written out for the CPU: the fastest there.
    Fused,
    /// candle's differentiable primitives, on any device: what CUDA runs.
    Composed,
}

impl OpsChoice {
    /// What runs `on_cpu` or on a card; fused operations are refused where they cannot.
    pub fn resolve(self, on_cpu: bool) -> Result<Ops, Error> {
        match (self, on_cpu) {
            (Self::Auto | Self::Fused, true) => Ok(Ops::Fused),
            (Self::Auto, false) | (Self::Composed, _) => Ok(Ops::Composed),
            (Self::Fused, false) => Err(Error::FusedElsewhere),
        }
    }

    /// What trains there in `precision`.
    pub fn resolve_training(self, precision: MixedPrecision, on_cpu: bool) -> Result<Ops, Error> {
        match (self, precision) {
            (_, MixedPrecision::None) => self.resolve(on_cpu),
            (Self::Fused, _) => Err(Error::FusedInHalf),
            (Self::Auto | Self::Composed, _) => Ok(Ops::Composed),
        }
    }
}
