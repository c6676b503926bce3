//! Training: the layers and their gradients, steps as PyTorch takes them, options, runs that are stopped, what it takes.

mod clone_parity;
mod decoder_gradients;
mod decoder_layers;
mod estimate;
mod gradients;
mod language_loss;
mod language_parity;
mod mixed_precision;
mod options;
mod reference;
mod replicas;
mod resume;
mod schedules;
#[path = "../support/mod.rs"]
mod support;
mod training_parity;
