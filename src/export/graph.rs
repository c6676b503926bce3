//! The ONNX export: one graph from tokens to logits or embeddings; of a model that writes text with
//! keys and values of earlier tokens, as optimum names them.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::{Error, ONNX_FILE, TrainedModel};
use crate::checkpoint::{self, Activation, Linear};
use crate::frozen::FrozenPrecision;
use crate::frozen::onnx::{self, Decoding, Dense, Pool, Readout, WholeModel};
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
    let (checkpoint, metadata) = (&trained.checkpoint, metadata(trained));
    if trained.identity.pooling == Pooling::Scored {
        let decoding = Decoding::AllTokens;
        return onnx::write_decoder(checkpoint, decoding, precision, &metadata, ONNX_FILE);
    }
    let readout = readout(trained)?;
    onnx::write_whole(checkpoint, &readout, precision, &metadata, ONNX_FILE)
}

/// What `trained` reads out of the states.
fn readout(trained: &TrainedModel) -> Result<Readout, checkpoint::Error> {
    let pool = match trained.identity.pooling {
        Pooling::Cls => Pool::First,
        Pooling::Mean => Pool::Mean,
        Pooling::Scored => unreachable!("a model that writes text is exported by itself"),
    };
    let layer = |name: &str, [inputs, outputs]: [usize; 2], activation| Dense {
        linear: Linear {
            name: name.into(),
            inputs,
            outputs,
            bias: true,
        },
        activation,
        norm: None,
    };
    let (width, classes) = (trained.checkpoint.config.hidden_size, trained.classes());
    let layers = match trained.head {
        HeadSettings::Linear { .. } => vec![layer("classifier", [width, classes], None)],
        HeadSettings::HuggingFace { .. } => {
            let Some(head) = trained.checkpoint.config.sequence_head() else {
                unreachable!("a run has its family's head only where there is one")
            };
            let activation = match head.activation {
                Some(Activation::Tanh) => Some("Tanh"),
                Some(Activation::Relu) => Some("Relu"),
                Some(Activation::Gelu) => Some("Gelu"),
                Some(Activation::Identity) => None,
                None => return Err(trained.checkpoint.unknown_activation()),
            };
            let square = Dense {
                linear: head.square,
                activation,
                norm: head.norm,
            };
            vec![square, layer(head.last, [width, classes], None)]
        }
        HeadSettings::Concat => vec![
            layer("classifier.dense", [2 * width, width], Some("Tanh")),
            layer("classifier.out_proj", [width, classes], None),
        ],
        HeadSettings::Match { .. }
        | HeadSettings::Cosine { .. }
        | HeadSettings::Contrast
        | HeadSettings::Language { .. } => Vec::new(),
    };
    let columns = match trained.head {
        HeadSettings::Concat => 2,
        _ => 1,
    };
    let embeddings = trained.gives_embeddings();
    Ok(Readout {
        pool,
        columns,
        layers,
        unit_length: embeddings,
        output: if embeddings { EMBEDDING } else { LOGITS },
    })
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
