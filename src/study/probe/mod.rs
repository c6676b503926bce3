//! Probes: how much of something a layer's hidden states tell, by how well one linear map reads it
//! from them (Alain and Bengio 2016), for each layer and for a learned mixture of all.
//!
//! The four are those of Telly's paper (Shi et al. 2023, research question 1). A probe says what can be
//! read from a representation, not that the model makes use of it; the controls are a model of the
//! same shape with random weights, and labels in random order.

mod chance;
mod classes;
mod examples;
mod features;
mod features_file;
mod finding;
mod logistic;
mod mixture;
mod random_weights;
mod scaling;
mod scores;
mod suite;
mod training;
mod vectors;

pub use classes::probe_classes;
pub use examples::CodeText;
pub use features::Features;
pub use features_file::FeaturesSource;
pub use finding::{Control, Finding, LayerReading, Reading, Reference};
pub use random_weights::randomize;
pub use scores::Scores;
pub(in crate::study) use suite::LEAST_TOKENS;
pub use suite::{
    LabelOrder, Probe, ProbeResult, Problems, SplitFeatures, Suite, TextForm, Tokens, Traversals,
    probe_splits,
};
pub use training::ProbeSettings;
pub use vectors::{Paired, probe_vectors};

/// What a probe found, for each layer and for all of them mixed.
#[derive(Debug, Clone, PartialEq)]
pub struct Readings {
    /// Of the probe of each layer, the embeddings first.
    pub layers: Vec<Scores>,
    /// Of the probe that mixes all layers.
    pub mixed: Scores,
    /// The mean weight that the mixture gives each layer on the test examples; they add up to 1.
    pub weights: Vec<f64>,
}
