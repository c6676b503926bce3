//! The tasks and what is done with a run: metrics, predictions, texts, exports.

mod classify;
mod clone;
mod decoding;
mod export;
mod metrics;
mod predict;
mod search;
#[path = "../support/mod.rs"]
mod support;
mod text_export;
mod text_metrics;
mod text_tasks;
