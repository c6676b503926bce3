//! RoBERTa (Liu et al., 2019: CodeBERT, GraphCodeBERT, UniXcoder) and XLM-RoBERTa (Conneau et al.,
//! 2020): BERT with positions from `padding_idx + 1`.

use super::bert::{self, BERT};
use super::{Activation, Description, Family, HeadFields, HeadNames, Positions};

pub(super) const ROBERTA: Description = Description {
    model_type: "roberta",
    prefix: "roberta.",
    read: |file| bert::read(file, Family::Roberta, 1),
    positions: Some(Positions::AfterPadding),
    class: "Roberta",
    sequence_head: Some(HEAD),
    ..BERT
};

/// MPNet's is the same.
pub(super) const HEAD: HeadNames = HeadNames {
    square: "classifier.dense",
    prefixed: false,
    drops_input: true,
    activation: Activation::Tanh,
    norm: None,
    last: "classifier.out_proj",
    fields: HeadFields::NONE,
};

// Its tensors have RoBERTa's prefix.
pub(super) const XLM_ROBERTA: Description = Description {
    model_type: "xlm-roberta",
    read: |file| bert::read(file, Family::XlmRoberta, 1),
    class: "XLMRoberta",
    ..ROBERTA
};
