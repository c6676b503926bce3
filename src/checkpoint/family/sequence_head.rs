//! What a family's `…ForSequenceClassification` in transformers has on top of the encoder.

use super::{Linear, Norm};
use crate::checkpoint::EncoderConfig;

/// How a family's sequence classifier is made, by the names of its layers.
pub(super) struct HeadNames {
    /// The square layer.
    pub(super) square: &'static str,
    /// Whether that is part of the encoder, so that its name has the family's prefix.
    pub(super) prefixed: bool,
    /// Whether dropout comes before the square layer too.
    pub(super) drops_input: bool,
    /// Where `config.json` names no other.
    pub(super) activation: Activation,
    /// The norm behind the activation, in a family that has one.
    pub(super) norm: Option<&'static str>,
    /// The last layer.
    pub(super) last: &'static str,
    /// What `config.json` sets.
    pub(super) fields: HeadFields,
}

/// What `config.json` calls what can be chosen of a sequence classifier; none of what cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadFields {
    /// Of which states it reads: `cls` or `mean`.
    pub reads: Option<&'static str>,
    /// Its activation.
    pub activation: Option<&'static str>,
}

impl HeadFields {
    /// Nothing can be chosen.
    pub(super) const NONE: Self = Self {
        reads: None,
        activation: None,
    };
}

/// What `config.json` says of the family's sequence classifier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadConfig {
    /// What it reads.
    pub reads: HeadInput,
    /// Whether the square layer has a bias.
    pub bias: bool,
    /// The activation by its name in transformers; the family's own when absent.
    pub activation: Option<String>,
}

impl HeadConfig {
    /// Of a family whose configuration says nothing of it.
    pub(super) const USUAL: Self = Self {
        reads: HeadInput::FirstToken,
        bias: true,
        activation: None,
    };
}

/// Which states a sequence classifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadInput {
    /// The first token's.
    FirstToken,
    /// The mean over all tokens.
    MeanOfTokens,
}

/// What stands between the layers of a sequence classifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// The hyperbolic tangent.
    Tanh,
    /// The rectifier, `max(x, 0)`.
    Relu,
    /// The exact one, by erf.
    Gelu,
    /// None: `x` itself.
    Identity,
}

impl Activation {
    /// Its name in transformers when it is none.
    pub const IDENTITY: &str = "linear";
    /// What all are called in transformers.
    pub(in crate::checkpoint) const NAMES: [&str; 4] = ["gelu", "relu", "tanh", Self::IDENTITY];

    /// By its name in transformers.
    fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Gelu, Self::Relu, Self::Tanh, Self::Identity];
        let mut named = Self::NAMES.into_iter().zip(all);
        named
            .find(|(known, _)| *known == name)
            .map(|(_, found)| found)
    }
}

/// A family's `…ForSequenceClassification`: a square layer on one vector a sequence, an
/// activation, perhaps a norm, dropout, and a last layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SequenceHead {
    /// The square layer.
    pub square: Linear,
    /// Whether that is part of the encoder, so that its name has the family's prefix.
    pub prefixed: bool,
    /// Whether dropout comes before the square layer too.
    pub drops_input: bool,
    /// Applied to what the square layer puts out; none where `config.json` names one that Telly
    /// does not compute.
    pub activation: Option<Activation>,
    /// Over what the activation puts out.
    pub norm: Option<Norm>,
    /// The name of the last layer, which has a bias.
    pub last: &'static str,
    /// What of it `config.json` sets.
    pub fields: HeadFields,
}

impl EncoderConfig {
    /// The family's own sequence classifier, in one that has it in front of the first token.
    pub fn sequence_head(&self) -> Option<SequenceHead> {
        let names = self.family.description().sequence_head.as_ref()?;
        let chosen = self.head.activation.as_deref();
        Some(SequenceHead {
            square: Linear {
                name: names.square.into(),
                inputs: self.hidden_size,
                outputs: self.hidden_size,
                bias: self.head.bias,
            },
            prefixed: names.prefixed,
            drops_input: names.drops_input,
            activation: chosen.map_or(Some(names.activation), Activation::from_name),
            norm: names.norm.map(|name| self.norm(name.into())),
            last: names.last,
            fields: names.fields,
        })
    }
}
