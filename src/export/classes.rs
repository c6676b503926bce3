//! Which class of `transformers` computes what was trained.
//!
//! A classifier of Telly's is one linear layer on the first token's state, or on the mean of all;
//! or with `--head huggingface` the family's own `…ForSequenceClassification`, which is written as
//! it is.
//!
//! `…ForTokenClassification` has just that layer, on every token: at the first token its logits
//! are those of the run, and the mean of its logits is the logits of the mean.
//!
//! `…ForSequenceClassification` has more than that layer, which [`disguise`](super::disguise) makes
//! do nothing where it can.

use serde::{Deserialize, Serialize};

use super::disguise::{Disguise, behind_last_norm, behind_small_tanh, sequence_prefix};
use super::{Error, TrainedModel};
use crate::checkpoint::{self, Activation, SequenceHead};
use crate::task::HeadSettings;
use crate::trainable::Pooling;

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
    /// The tensors on top of the encoder, and those that stand in the place of the encoder's.
    pub(super) head: Vec<HeadTensor>,
    /// How its output is read.
    pub(super) reading: Reading,
    /// What its `config.json` says other than the model's own.
    pub(super) config: Vec<(&'static str, &'static str)>,
    /// How one linear layer was made to look like the class's.
    pub(super) disguise: Option<Disguise>,
}

/// A tensor with its values.
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
                Pooling::Scored => unreachable!("a model that writes text is exported by itself"),
            },
            config: Vec::new(),
            disguise: None,
        });
    }
    if trained.head == HeadSettings::Concat {
        return Err(Error::NoPairClass);
    }
    let Some(sequence) = trained.checkpoint.config.sequence_head() else {
        return Err(Error::NoSuchClass {
            class: format!("{name}ForSequenceClassification"),
            reason: "it reads the last token without a bias, which is not what the run was trained on",
        });
    };
    if matches!(trained.head, HeadSettings::HuggingFace { .. }) {
        return own_classifier(trained, &sequence, choice);
    }
    let first = trained.identity.pooling == Pooling::Cls;
    let disguise = Disguise::of(&trained.checkpoint.config, &sequence);
    let refused = match disguise {
        _ if !first && sequence.fields.reads.is_some() => {
            Some("it has a norm over the mean of all tokens, which no weights undo")
        }
        _ if !first => {
            Some("it reads the first token, the run was trained on the mean over all tokens")
        }
        None => Some("it has a rectifier or a norm below the last layer, which no weights undo"),
        Some(_) => None,
    };
    let by_tokens = match (choice, refused) {
        (ClassChoice::Sequence, Some(reason)) => {
            return Err(Error::NoSuchClass {
                class: format!("{name}ForSequenceClassification"),
                reason,
            });
        }
        (ClassChoice::Token, _) | (ClassChoice::Auto, Some(_)) => true,
        (ClassChoice::Auto | ClassChoice::Sequence, None) => false,
    };
    // A class of tokens has a tanh in no family.
    let disguise = disguise.filter(|found| !by_tokens || *found != Disguise::SmallTanh);
    let mut config = Vec::new();
    let head = match disguise {
        Some(Disguise::LastNorm(activation)) => {
            config.push((activation, Activation::IDENTITY));
            behind_last_norm(trained, &sequence)?
        }
        Some(Disguise::SmallTanh) => behind_small_tanh(trained, &sequence)?,
        None => trained_layer(trained, ["classifier"; 2], trained.classes())?,
    };
    let (kind, reading) = match (by_tokens, first) {
        (false, _) => ("Sequence", Reading::Output),
        (true, true) => ("Token", Reading::FirstToken),
        (true, false) => ("Token", Reading::MeanOfTokens),
    };
    Ok(Target {
        class: format!("{name}For{kind}Classification"),
        prefix: family.prefix(),
        head,
        reading,
        config,
        disguise,
    })
}

/// The run's own layers, as they were trained.
fn own_classifier(
    trained: &TrainedModel,
    sequence: &SequenceHead,
    choice: ClassChoice,
) -> Result<Target, Error> {
    if choice == ClassChoice::Token {
        return Err(Error::Meaningless {
            flag: "--class token".into(),
            reason: "the run has the sequence classifier of its family",
        });
    }
    let config = &trained.checkpoint.config;
    let weights = &trained.checkpoint.weights;
    let prefix = sequence_prefix(trained, sequence);
    let norm = sequence.norm.iter();
    let norm = norm.flat_map(|norm| norm.tensors(config.hidden_size));
    let mut head = Vec::new();
    for (name, shape) in sequence.square.tensors().chain(norm) {
        let values = weights.tensor(&name, &shape)?;
        let name = format!("{prefix}{name}");
        head.push(HeadTensor {
            name,
            shape,
            values,
        });
    }
    head.extend(trained_layer(
        trained,
        [sequence.last; 2],
        trained.classes(),
    )?);
    let reads = match trained.identity.pooling {
        Pooling::Cls => "cls",
        Pooling::Mean => "mean",
        Pooling::Scored => unreachable!("a model that writes text is exported by itself"),
    };
    Ok(Target {
        class: format!("{}ForSequenceClassification", config.family.class()),
        prefix: config.family.prefix(),
        head,
        reading: Reading::Output,
        config: sequence
            .fields
            .reads
            .map(|field| (field, reads))
            .into_iter()
            .collect(),
        disguise: None,
    })
}

/// The layer from a pooled vector to `outputs` that was trained under one name, under another.
pub(super) fn trained_layer(
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

pub(super) fn layer(name: &str, weight: Vec<f32>, bias: Vec<f32>) -> Vec<HeadTensor> {
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
