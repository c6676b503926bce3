//! Writing text: a decoder goes on with prompts token by token, by greedy decoding, beam search or
//! sampling, several prompts at a time.

mod beam;
mod candidates;
mod decoder;
mod error;
mod reference_beam;
mod sampling;
mod search;
mod settings;
mod single;

pub use decoder::{Decoder, Generated};
pub use error::Error;
pub use settings::{BeamRule, EarlyStopping, GenerationSettings, Sampling};
