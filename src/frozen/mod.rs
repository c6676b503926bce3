//! The frozen half: embeddings and bottom K layers as an ONNX graph, run by ONNX Runtime; or some
//! of its layers alone.

mod batches;
mod cards;
mod decoder_session;
mod encoder;
mod error;
mod lane;
mod layers;
mod model_session;
pub mod onnx;
mod precision;
mod provider_check;
mod room;
mod runtime;
mod session;
mod shared_weights;
mod side_by_side;

pub use batches::{BatchSize, CUDA_TOKEN_BUDGET, TOKEN_BUDGET, by_token_budget};
pub use decoder_session::{DecoderSession, KeysAndValues, Step};
pub use encoder::{FrozenEncoder, graph_hash};
pub use error::Error;
pub(crate) use error::OUT_OF_MEMORY_HINT;
pub use layers::FrozenLayers;
pub use model_session::ModelSession;
pub use precision::FrozenPrecision;
pub use runtime::{Provider, ProviderChoice, Runtime, cuda_folder};
pub use session::SessionOptions;
pub use side_by_side::ComputedBatch;
