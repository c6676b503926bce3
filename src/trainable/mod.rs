//! The trainable half: top layers with true gradients, their parameters, and the optimizer.
//! It knows nothing of files.

mod encoder;
mod error;
pub mod ops;
mod optimizer;
mod parameters;
mod pass;
mod relative_position;

pub use encoder::{EncoderInput, TrainableEncoder};
pub use error::Error;
pub use optimizer::{AdamW, AdamWSettings};
pub use parameters::{Parameter, Parameters};
pub use pass::{Packing, Pass};
