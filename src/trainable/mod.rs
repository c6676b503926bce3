//! The trainable half: top layers with true gradients, their parameters, and the optimizer.
//! It knows nothing of files.

mod buckets;
mod composed;
#[cfg(feature = "cuda")]
mod copy_ahead;
// Its tests need no card.
#[cfg(any(feature = "cuda", test))]
mod double_buffer;
mod dropout;
mod embeddings;
mod encoder;
mod error;
mod footprint;
mod gradients;
mod language_loss;
mod layer_decay;
mod layers;
mod loss_scaler;
mod mixed_precision;
#[cfg(feature = "nccl")]
mod nccl;
pub mod ops;
mod ops_choice;
mod optimizer;
mod packed;
mod packing;
#[cfg(feature = "cuda")]
mod page_locked;
mod parameters;
mod pass;
mod pooling;
mod reduce;
mod reference;
mod relative_position;
mod staging;

pub use dropout::Dropout;
pub use encoder::{EncoderInput, Pooled, TrainableEncoder};
pub use error::Error;
pub use footprint::{Composed, Footprint, PartShape};
pub use gradients::Gradients;
pub use language_loss::{LanguageLoss, OutputMatrix};
pub use layer_decay::layer_scales;
pub use loss_scaler::LossScaler;
pub use mixed_precision::MixedPrecision;
pub use ops_choice::OpsChoice;
pub use optimizer::{AdamW, AdamWSettings, Moment};
pub use packed::{Part, Profile, peak_flops};
pub use packing::{Packing, PartLimit, Selection};
pub use parameters::{Parameter, Parameters, Weight};
pub use pass::{Ops, Pass, Site};
pub use pooling::Pooling;
pub use reduce::{Copies, Reduce, reduce_over};
pub use reference::Reference;
pub use staging::{BATCHES_AHEAD, BATCHES_AHEAD_ON_CARD, InUse, Stage, Staged, stage_for};
