//! The study of checkpoints: how alike two of them are, layer by layer, by what they make of the same
//! texts.
//!
//! Representational similarity analysis (Kriegeskorte, Mur and Bandettini 2008) compares how each
//! model relates the texts to each other, so that neither the widths nor the directions of the two
//! models' vectors have to agree.

mod bootstrap;
mod cka;
mod error;
mod layer_vectors;
mod products;
mod rsa;
mod similarity;

pub use bootstrap::Resamples;
pub use error::Error;
pub use layer_vectors::{LayerVectors, TextPooling, layer_vectors};
pub use rsa::{Estimate, LEAST_TEXTS, LayerSimilarity, MOST_TEXTS, compare};
