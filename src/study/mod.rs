//! The study: what layers represent, and how many to freeze.
//!
//! Representational similarity analysis (Kriegeskorte, Mur and Bandettini 2008) compares how each
//! model relates the texts to each other, so that neither the widths nor the directions of the two
//! models' vectors have to agree.

mod advice;
mod bootstrap;
mod cka;
mod clustered;
mod described;
mod each_sequence;
mod error;
mod layer_vectors;
mod paired;
mod pooled;
pub mod probe;
mod products;
pub mod report;
mod rsa;
mod similarity;
mod sweep;
pub mod syntax;

pub use advice::{ADVICE_RESULT, Changes, Decision, PILOT_LEVEL, UNCHANGED, candidates, choose};
pub use bootstrap::Resamples;
pub use clustered::interval_of_mean;
pub use error::Error;
pub use layer_vectors::{LayerVectors, TextPooling, layer_vectors};
pub use paired::PairedTest;
pub use pooled::{POOLED, Pooled, PooledSource, TextHash, text_hash};
pub use rsa::{Estimate, LEAST_TEXTS, LayerSimilarity, MOST_TEXTS, compare};
pub use sweep::{
    AgainstBase, CacheCost, Cell, Row, SIGNIFICANT, SWEEP_RESULT, SWEEP_RUNS, SWEEP_SHARED, Spread,
    SweptRun, Table, Verdict,
};
