//! A trained run as a folder that others can load: `transformers` and `sentence-transformers`
//! ([`Format::HuggingFace`]), or ONNX Runtime ([`Format::Onnx`]). Frozen and trained weights are
//! one model there, and the outputs are those of the run.

mod card;
mod classes;
mod config;
mod disguise;
mod error;
mod folder;
mod graph;
mod sentence_transformers;
mod tensors;
mod text_model;
mod tokenizer;
mod trained;

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use classes::{ClassChoice, Reading};
pub use error::Error;
pub use tensors::StoredType;
pub use trained::TrainedModel;

use crate::frozen::FrozenPrecision;
use crate::publish_folder::publish_folder;

/// The model's file in an ONNX export.
pub const ONNX_FILE: &str = "model.onnx";
/// What marks a folder as one that may be replaced: where the export comes from.
pub const MARKER: &str = "telly.json";

/// What others are to load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// A Hugging Face folder: `transformers`, and for embeddings `sentence-transformers`.
    HuggingFace {
        /// How weights are stored.
        stored: StoredType,
        /// Which class of `transformers` a classifier is to be loaded by.
        class: ClassChoice,
    },
    /// One ONNX graph from tokens to logits or embeddings.
    Onnx {
        /// What its linear layers compute in.
        precision: FrozenPrecision,
    },
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `hf` or `onnx`.
    pub format: String,
    /// What loads it: a class of `transformers`, or `InferenceSession`.
    pub class: String,
    /// How the class's output is read.
    pub reading: Reading,
    /// Bytes of all files.
    pub bytes: u64,
}

/// Writes `trained` to the folder `out`, whole or not at all; with `force` in place of an earlier
/// export.
pub fn export(
    trained: &TrainedModel,
    format: Format,
    out: &Path,
    force: bool,
) -> Result<Report, Error> {
    publish_folder(out, MARKER, force, |folder| {
        let report = match format {
            Format::HuggingFace { stored, class } => {
                let target = if trained.writes_text() {
                    text_model::target(trained, class)?
                } else {
                    classes::target(trained, class)?
                };
                tensors::write(folder, trained, &target, stored)?;
                config::write(folder, trained, Some((&target, stored)))?;
                tokenizer::write(folder, trained, true)?;
                if trained.gives_embeddings() {
                    sentence_transformers::write(folder, trained)?;
                }
                card::write(folder, trained, format, Some(&target))?;
                Report {
                    format: "hf".into(),
                    class: target.class,
                    reading: target.reading,
                    bytes: 0,
                }
            }
            Format::Onnx { precision } => {
                graph::write(folder, trained, precision)?;
                config::write(folder, trained, None)?;
                tokenizer::write(folder, trained, false)?;
                card::write(folder, trained, format, None)?;
                Report {
                    format: "onnx".into(),
                    class: "InferenceSession".into(),
                    reading: Reading::Output,
                    bytes: 0,
                }
            }
        };
        let marker = json!({
            "producer": format!("telly {}", env!("CARGO_PKG_VERSION")),
            "format": report.format,
            "class": report.class,
            "reading": report.reading,
            "run": trained.hash,
            "model": { "weights": trained.identity.weights, "tokenizer": trained.identity.tokenizer },
            "data": trained.identity.data,
        });
        folder::write_text(folder, MARKER, &format!("{marker:#}\n"))?;
        let bytes = folder::size(folder)?;
        Ok(Report { bytes, ..report })
    })
}
