//! One vector a sequence.

use serde::{Deserialize, Serialize};

/// `--pooling`: one vector a sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's state.
    Cls,
    /// The mean over all tokens, special ones included.
    Mean,
}
