//! The frozen half: embeddings and bottom K layers as an ONNX graph, run by ONNX Runtime.

mod batches;
mod error;
pub mod onnx;
mod precision;
mod runtime;
mod session;

pub use batches::{TOKEN_BUDGET, by_token_budget};
pub use error::Error;
pub use precision::FrozenPrecision;
pub use runtime::{Provider, ProviderChoice, Runtime};
pub use session::{FrozenEncoder, SessionOptions, graph_hash};
