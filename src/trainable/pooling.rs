//! What is read of the last layer's states.

use serde::{Deserialize, Serialize};

/// `--pooling`: one vector a sequence; or what a task that writes text reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Pooling {
    /// The first token's state.
    Cls,
    /// The mean over all tokens, special ones included.
    Mean,
    /// The states of the tokens that are scored, those of one sequence after another:
    /// `[scored tokens, hidden]`.
    #[value(skip)]
    Scored,
}
