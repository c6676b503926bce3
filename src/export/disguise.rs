//! One linear layer as a class of `transformers` that has more layers than one.
//!
//! `…ForSequenceClassification` puts a square layer and a tanh in between. Where what is read is
//! the first token, that is made to do nothing: the square layer multiplies by a small power of
//! two, which rounds nothing, tanh of a number so small is that number, and the last layer's
//! weights are larger by the same power.
//!
//! `ModernBERT`'s classes, that of tokens too, put a square layer, an activation and a norm in
//! between. But its encoder ends with a norm as well, and a norm of what is normalised already
//! changes nothing: the encoder's own last norm, with its weights, becomes that of the head, one
//! of weight 1 takes its place, the square layer multiplies by 1, and the configuration says that
//! there is no activation.

use super::TrainedModel;
use super::classes::{HeadTensor, layer, trained_layer};
use crate::checkpoint::{self, Activation, EncoderConfig, SequenceHead};

/// 2⁻¹⁴, by which states are multiplied before the tanh. A state of 7 then loses less than the
/// rounding of f32, and one of 50 less than 10⁻⁶ of itself; smaller powers would leave fp16 too
/// few digits.
const SMALL: f32 = 1.0 / 16384.0;

/// How one linear layer becomes a family's own classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disguise {
    /// The square layer makes states small before the tanh.
    SmallTanh,
    /// The encoder's last norm moves into the head, whose activation, this field of `config.json`, is
    /// none.
    LastNorm(&'static str),
}

impl Disguise {
    /// That of the model of `config`, whose classifier is `sequence`; none where there is no way.
    pub(super) fn of(config: &EncoderConfig, sequence: &SequenceHead) -> Option<Self> {
        let normalised = config.final_norm().is_some();
        match (&sequence.norm, sequence.fields.activation) {
            (Some(_), Some(field)) if normalised => Some(Self::LastNorm(field)),
            (None, _) if sequence.activation == Some(Activation::Tanh) => Some(Self::SmallTanh),
            // What is below zero does not come through a rectifier.
            _ => None,
        }
    }
}

/// What the name of the square layer starts with in the classifier.
pub(super) fn sequence_prefix(trained: &TrainedModel, sequence: &SequenceHead) -> &'static str {
    if sequence.prefixed {
        trained.checkpoint.config.family.prefix()
    } else {
        ""
    }
}

/// The trained linear layer above a square layer and a tanh that change nothing.
pub(super) fn behind_small_tanh(
    trained: &TrainedModel,
    sequence: &SequenceHead,
) -> Result<Vec<HeadTensor>, checkpoint::Error> {
    let width = trained.checkpoint.config.hidden_size;
    let square = format!(
        "{}{}",
        sequence_prefix(trained, sequence),
        sequence.square.name
    );
    let mut last = trained_layer(trained, ["classifier", sequence.last], trained.classes())?;
    last[0]
        .values
        .iter_mut()
        .for_each(|number| *number /= SMALL);
    let mut head = layer(&square, diagonal(width, SMALL), vec![0.0; width]);
    head.extend(last);
    Ok(head)
}

/// The trained linear layer above a square layer that changes nothing and the encoder's last norm,
/// in whose own place is one that only normalises.
pub(super) fn behind_last_norm(
    trained: &TrainedModel,
    sequence: &SequenceHead,
) -> Result<Vec<HeadTensor>, checkpoint::Error> {
    let config = &trained.checkpoint.config;
    let width = config.hidden_size;
    let mut head = Vec::new();
    for (name, shape) in sequence.square.tensors() {
        let values = match shape.len() {
            1 => vec![0.0; width],
            _ => diagonal(width, 1.0),
        };
        head.push(HeadTensor {
            name,
            shape,
            values,
        });
    }
    if let Some((last, own)) = config.final_norm().zip(sequence.norm.as_ref()) {
        let tensors = last.tensors(width).zip(own.tensors(width));
        for (part, ((name, shape), (moved, _))) in tensors.enumerate() {
            head.push(HeadTensor {
                name: moved,
                shape: shape.clone(),
                values: trained.checkpoint.weights.tensor(&name, &shape)?,
            });
            head.push(HeadTensor {
                name: format!("{}{name}", config.family.prefix()),
                shape,
                // The weight comes first, then the bias.
                values: vec![if part == 0 { 1.0 } else { 0.0 }; width],
            });
        }
    }
    head.extend(trained_layer(
        trained,
        ["classifier", sequence.last],
        trained.classes(),
    )?);
    Ok(head)
}

/// `[width, width]`: `number` on the diagonal, 0 beside it.
fn diagonal(width: usize, number: f32) -> Vec<f32> {
    let mut matrix = vec![0.0; width * width];
    matrix
        .iter_mut()
        .step_by(width + 1)
        .for_each(|entry| *entry = number);
    matrix
}
