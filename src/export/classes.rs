//! Which class of `transformers` computes what was trained.
//!
//! A classifier of Telly's is one linear layer on the first token's state, or on the mean of all;
//! or with `--head huggingface` the family's own `…ForSequenceClassification`, which is written as
//! it is.
//!
//! `…ForTokenClassification` has just that layer, on every token: at the first token its logits
//! are those of the run, and the mean of its logits is the logits of the mean.
//!
//! `…ForSequenceClassification` puts a square layer and a tanh in between. Where what is read is
//! the first token, that is made to do nothing: the square layer multiplies by a small power of
//! two, which rounds nothing, tanh of a number so small is that number, and the last layer's
//! weights are larger by the same power.

use serde::{Deserialize, Serialize};

use super::{Error, TrainedModel};
use crate::checkpoint::{self, Activation};
use crate::task::HeadSettings;
use crate::trainable::Pooling;

/// 2⁻¹⁴, by which states are multiplied before the tanh. A state of 7 then loses less than the
/// rounding of f32, and one of 50 less than 10⁻⁶ of itself; smaller powers would leave fp16 too
/// few digits.
const SMALL: f32 = 1.0 / 16384.0;

/// `--class`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ClassChoice {
    /// The sequence classifier where it can compute what was trained, else the token classifier.
    #[default]
    Auto,
    /// `AutoModelForSequenceClassification`.
    Sequence,
    /// `AutoModelForTokenClassification`.
    Token,
}

/// How what a class puts out becomes the run's output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// It is the run's output.
    Output,
    /// The first token's.
    FirstToken,
    /// The mean over all tokens.
    MeanOfTokens,
}

/// A class of `transformers`, and what it needs beside the encoder.
pub(super) struct Target {
    /// As in `architectures` of `config.json`.
    pub(super) class: String,
    /// What the names of the encoder's tensors start with.
    pub(super) prefix: &'static str,
    /// The tensors on top of the encoder.
    pub(super) head: Vec<HeadTensor>,
    /// How its output is read.
    pub(super) reading: Reading,
}

/// A tensor that the encoder does not have.
pub(super) struct HeadTensor {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) values: Vec<f32>,
}

/// The class that computes what `trained` computes, of the kind that was chosen.
pub(super) fn target(trained: &TrainedModel, choice: ClassChoice) -> Result<Target, Error> {
    let family = trained.checkpoint.config.family;
    let name = family.class();
    if trained.gives_embeddings() {
        if choice != ClassChoice::Auto {
            return Err(Error::Meaningless {
                flag: "--class".into(),
                reason: "the run has no classes, and its export is loaded by `AutoModel`",
            });
        }
        return Ok(Target {
            class: format!("{name}Model"),
            prefix: "",
            head: pooler(trained)?,
            reading: match trained.identity.pooling {
                Pooling::Cls => Reading::FirstToken,
                Pooling::Mean => Reading::MeanOfTokens,
            },
        });
    }
    if trained.head == HeadSettings::Concat {
        return Err(Error::NoPairClass);
    }
    let first = trained.identity.pooling == Pooling::Cls;
    let own = matches!(trained.head, HeadSettings::HuggingFace { .. });
    let no_such = |kind: &str, reason| Error::NoSuchClass {
        class: format!("{name}For{kind}Classification"),
        reason,
    };
    let Some(sequence) = family.sequence_head() else {
        let reason = "it has a layer and a norm below the last layer, which no weights undo";
        return Err(no_such("Sequence", reason));
    };
    // What is below zero does not come through a rectifier.
    let passes = own || sequence.activation == Activation::Tanh;
    match choice {
        ClassChoice::Sequence if !first => {
            let reason =
                "it reads the first token, the run was trained on the mean over all tokens";
            return Err(no_such("Sequence", reason));
        }
        ClassChoice::Sequence if !passes => {
            let reason = "it has a rectifier below the last layer, which no weights undo";
            return Err(no_such("Sequence", reason));
        }
        _ => {}
    }
    let width = trained.checkpoint.config.hidden_size;
    if choice == ClassChoice::Token || !first || !passes {
        if own {
            return Err(Error::Meaningless {
                flag: "--class token".into(),
                reason: "the run has the sequence classifier of its family, which reads the first token",
            });
        }
        return Ok(Target {
            class: format!("{name}ForTokenClassification"),
            prefix: family.prefix(),
            head: trained_layer(trained, ["classifier"; 2], trained.classes())?,
            reading: if first {
                Reading::FirstToken
            } else {
                Reading::MeanOfTokens
            },
        });
    }
    let prefix = if sequence.prefixed {
        family.prefix()
    } else {
        ""
    };
    let square = format!("{prefix}{}", sequence.square);
    let head = if own {
        let mut head = trained_layer(trained, [sequence.square, &square], width)?;
        let last = [sequence.last; 2];
        head.extend(trained_layer(trained, last, trained.classes())?);
        head
    } else {
        let mut multiply = vec![0.0; width * width];
        multiply
            .iter_mut()
            .step_by(width + 1)
            .for_each(|number| *number = SMALL);
        let mut last = trained_layer(trained, ["classifier", sequence.last], trained.classes())?;
        last[0]
            .values
            .iter_mut()
            .for_each(|number| *number /= SMALL);
        let mut head = layer(&square, multiply, vec![0.0; width]);
        head.extend(last);
        head
    };
    Ok(Target {
        class: format!("{name}ForSequenceClassification"),
        prefix: family.prefix(),
        head,
        reading: Reading::Output,
    })
}

/// The layer from a pooled vector to `outputs` that was trained under one name, under another.
fn trained_layer(
    trained: &TrainedModel,
    [name, written]: [&str; 2],
    outputs: usize,
) -> Result<Vec<HeadTensor>, checkpoint::Error> {
    let width = trained.checkpoint.config.hidden_size;
    let weights = &trained.checkpoint.weights;
    let weight = weights.tensor(&format!("{name}.weight"), &[outputs, width])?;
    let bias = weights.tensor(&format!("{name}.bias"), &[outputs])?;
    Ok(layer(written, weight, bias))
}

fn layer(name: &str, weight: Vec<f32>, bias: Vec<f32>) -> Vec<HeadTensor> {
    let (outputs, inputs) = (bias.len(), weight.len() / bias.len());
    let tensor = |part: &str, shape: Vec<usize>, values: Vec<f32>| HeadTensor {
        name: format!("{name}.{part}"),
        shape,
        values,
    };
    vec![
        tensor("weight", vec![outputs, inputs], weight),
        tensor("bias", vec![outputs], bias),
    ]
}

/// The model's own pooler, where it has one: nothing of Telly's reads it, but `AutoModel` asks
/// for it.
fn pooler(trained: &TrainedModel) -> Result<Vec<HeadTensor>, checkpoint::Error> {
    let name = "pooler.dense";
    let width = trained.checkpoint.config.hidden_size;
    let weights = &trained.checkpoint.weights;
    let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
    if weights.check(&weight, &[width, width]).is_err() || weights.check(&bias, &[width]).is_err() {
        return Ok(Vec::new());
    }
    let weight = weights.tensor(&weight, &[width, width])?;
    Ok(layer(name, weight, weights.tensor(&bias, &[width])?))
}
