//! The study: what layers know, what fine-tuning changes, and which K to take.

mod advise;
mod pooled;
mod probe;
mod probe_labels;
mod report;
mod row_scores;
mod rsa;
#[path = "../support/mod.rs"]
mod support;
mod sweep;
