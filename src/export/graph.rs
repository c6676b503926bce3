//! The ONNX export: one graph from tokens to logits or embeddings.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Error, ONNX_FILE, TrainedModel};
use crate::checkpoint::{self, Activation};
use crate::frozen::FrozenPrecision;
use crate::frozen::onnx::{self, Dense, Pool, Readout, WholeModel};
use crate::task::{HeadSettings, Objective};
use crate::trainable::Pooling;

/// The graph's output of a classifier, f32 `[batch, classes]`.
const LOGITS: &str = "logits";
/// The graph's output of a model without classes, f32 `[batch, hidden]`.
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
    let layer = |name: &str, outputs, activation| Dense {
        name: name.into(),
        outputs,
        activation,
    };
    let classes = trained.classes();
    let layers = match trained.head {
        HeadSettings::Linear { .. } => vec![layer("classifier", classes, None)],
        HeadSettings::HuggingFace { .. } => {
            let head = trained.checkpoint.config.family.sequence_head();
            let head = head.unwrap_or_else(|| unreachable!("the run was trained with it"));
            let width = trained.checkpoint.config.hidden_size;
            let activation = match head.activation {
                Activation::Tanh => "Tanh",
                Activation::Relu => "Relu",
            };
            vec![
                layer(head.square, width, Some(activation)),
                layer(head.last, classes, None),
            ]
        }
        HeadSettings::Concat => vec![
            layer(
                "classifier.dense",
                trained.checkpoint.config.hidden_size,
                Some("Tanh"),
            ),
            layer("classifier.out_proj", classes, None),
        ],
        HeadSettings::Match { .. } | HeadSettings::Cosine { .. } | HeadSettings::Contrast => {
            Vec::new()
        }
    };
    let columns = match trained.head {
        HeadSettings::Concat => 2,
        _ => 1,
    };
    let embeddings = trained.gives_embeddings();
    Readout {
        pool,
        columns,
        layers,
        unit_length: embeddings,
        output: if embeddings { EMBEDDING } else { LOGITS },
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
    if let HeadSettings::Cosine { threshold, .. } = trained.head {
        metadata.push(("threshold", threshold.to_string()));
    }
    let objective = trained.objective();
    if objective != Objective::SingleLabel {
        metadata.push(("objective", objective.to_string()));
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
