//! The ONNX export: one graph from tokens to logits or embeddings.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Error, ONNX_FILE, TrainedModel};
use crate::checkpoint;
use crate::frozen::FrozenPrecision;
use crate::frozen::onnx::{self, Dense, Pool, Readout, WholeModel};
use crate::trainable::Pooling;

/// The graph's output of a classifier, f32 `[batch, classes]`.
const LOGITS: &str = "logits";
/// The graph's output of a search model, f32 `[batch, hidden]`.
const EMBEDDING: &str = "sentence_embedding";

/// Writes the model of `trained`.
pub(super) fn write(
    folder: &Path,
    trained: &TrainedModel,
    precision: FrozenPrecision,
) -> Result<(), Error> {
    let model = model(trained, precision)?;
    model.write(folder, ONNX_FILE).map_err(Error::Write)
}

fn model(
    trained: &TrainedModel,
    precision: FrozenPrecision,
) -> Result<WholeModel, checkpoint::Error> {
    let (readout, metadata) = (readout(trained), metadata(trained));
    let checkpoint = &trained.checkpoint;
    onnx::write_whole(checkpoint, &readout, precision, &metadata, ONNX_FILE)
}

/// What `trained` reads out of the states.
fn readout(trained: &TrainedModel) -> Readout {
    let pool = match trained.identity.pooling {
        Pooling::Cls => Pool::First,
        Pooling::Mean => Pool::Mean,
    };
    if trained.gives_embeddings() {
        return Readout {
            pool,
            layers: Vec::new(),
            unit_length: true,
            output: EMBEDDING,
        };
    }
    Readout {
        pool,
        layers: vec![Dense {
            name: "classifier".into(),
            outputs: trained.classes(),
            activation: None,
        }],
        unit_length: false,
        output: LOGITS,
    }
}

/// What somebody needs who has the file alone.
fn metadata(trained: &TrainedModel) -> Vec<(&'static str, String)> {
    let identity = &trained.identity;
    let mut metadata = vec![
        ("task", identity.encoding.task().to_string()),
        ("run", trained.hash.clone()),
    ];
    for (name, length) in identity.encoding.lengths() {
        metadata.push((name, length.to_string()));
    }
    if trained.classes() > 0 {
        let names = trained.class_names().into_iter().enumerate();
        let names: Map<String, Value> = names
            .map(|(class, name)| (class.to_string(), json!(name)))
            .collect();
        metadata.push(("id2label", Value::Object(names).to_string()));
    }
    metadata
}
