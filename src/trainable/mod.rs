//! The trainable half: top layers with true gradients, their parameters, and the optimizer.
//! It knows nothing of files.

mod composed;
mod dropout;
mod embeddings;
mod encoder;
mod error;
mod footprint;
mod gradients;
mod layer_decay;
mod layers;
mod loss_scaler;
mod mixed_precision;
pub mod ops;
mod ops_choice;
mod optimizer;
mod packed;
mod packing;
mod parameters;
mod pass;
mod pooling;
mod relative_position;

pub use dropout::Dropout;
pub use encoder::{EncoderInput, Pooled, TrainableEncoder};
pub use error::Error;
pub use footprint::{Composed, Footprint, PartShape};
pub use gradients::Gradients;
pub use layer_decay::layer_scales;
pub use loss_scaler::LossScaler;
pub use mixed_precision::MixedPrecision;
pub use ops_choice::OpsChoice;
pub use optimizer::{AdamW, AdamWSettings, Moment};
pub use packed::{Part, Profile, peak_flops};
pub use packing::{Packing, PartLimit};
pub use parameters::{Parameter, Parameters, Weight};
pub use pass::{Ops, Pass, Site};
pub use pooling::Pooling;
