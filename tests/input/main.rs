//! What is read: rows in every format, checkpoints, vocabularies, recipes, models of a hub; and what is said of what cannot be read.

mod bad_input;
mod bad_luck;
mod dataset_formats;
mod hub;
mod pytorch_files;
mod recipes;
mod several_files;
#[path = "../support/mod.rs"]
mod support;
mod vocabularies;
