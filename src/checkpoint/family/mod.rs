//! What tells one family of encoders from another: the one place that knows.
//!
//! A family is one file here: how it reads `config.json`, how its tensors are called and which
//! blocks it is made of, as one [`Description`]. From that, [`EncoderConfig::embeddings`],
//! [`EncoderConfig::layer`] and [`EncoderConfig::final_norm`] make the [`blocks`] that everything
//! else reads: the check of a checkpoint's tensors, the ONNX graph of the frozen half and the
//! layers of the trainable half. None of them knows a family.

mod bert;
mod blocks;
mod distilbert;
mod llama;
mod modernbert;
mod mpnet;
mod roberta;
mod sequence_head;

pub use blocks::{
    Attention, BlockActivation, Embeddings, FeedForward, LanguageHead, Layer, Linear, Norm,
    NormKind, NormPlacement, OUTPUT_MATRIX, Positions, Projections, Table, TokenTypes, Wide,
};
pub use sequence_head::{Activation, HeadConfig, HeadFields, HeadInput, SequenceHead};

use sequence_head::HeadNames;

use super::config::ConfigFile;
use super::{EncoderConfig, Error};

/// The list of families: each with what [`Description`] it has.
macro_rules! families {
    ($($(#[$comment:meta])* $name:ident = $description:path,)*) => {
        /// A family of encoders, by `model_type` in `config.json`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Family {
            $($(#[$comment])* $name,)*
        }

        impl Family {
            /// Every family.
            const ALL: &[Self] = &[$(Self::$name,)*];

            fn description(self) -> &'static Description {
                match self {
                    $(Self::$name => &$description,)*
                }
            }
        }
    };
}

families! {
    /// BERT.
    Bert = bert::BERT,
    /// RoBERTa: CodeBERT, GraphCodeBERT, UniXcoder.
    Roberta = roberta::ROBERTA,
    /// XLM-RoBERTa.
    XlmRoberta = roberta::XLM_ROBERTA,
    /// MPNet.
    Mpnet = mpnet::MPNET,
    /// DistilBERT.
    DistilBert = distilbert::DISTILBERT,
    /// ModernBERT.
    ModernBert = modernbert::MODERNBERT,
    /// Llama: SmolLM2 and others.
    Llama = llama::LLAMA,
    /// Qwen2 and Qwen2.5, Coder among them.
    Qwen2 = llama::QWEN2,
    /// StarCoder2.
    Starcoder2 = llama::STARCODER2,
}

/// All that is particular to a family.
struct Description {
    /// In `config.json`.
    model_type: &'static str,
    /// What a model with a head on top puts before the encoder's own tensor names.
    prefix: &'static str,
    /// Reads the family's `config.json`.
    read: fn(&ConfigFile) -> Result<EncoderConfig, Error>,
    /// What `config.json` calls the width of a hidden state, the number of layers and that of heads.
    size_fields: [&'static str; 3],
    names: Names,
    /// How the rows of the position embeddings are chosen, in a family that has them.
    positions: Option<Positions>,
    norms: NormPlacement,
    norm_kind: NormKind,
    /// Whether one half of the wide states is multiplied by the other.
    gated: bool,
    /// What the names of its classes in transformers start with.
    class: &'static str,
    /// Its own sequence classifier, in a family that has one of this form.
    sequence_head: Option<HeadNames>,
}

/// What a family's tensors are called, without `.weight` and `.bias`; those of a layer after the
/// layer's own prefix.
struct Names {
    words: &'static str,
    positions: &'static str,
    token_types: &'static str,
    /// What the norm over the embeddings is called, in a family that has one.
    embeddings_norm: Option<&'static str>,
    /// What the bias by relative position is called, in a family that has one.
    relative_positions: Option<&'static str>,
    /// What stands before a layer's number.
    layers: &'static str,
    projections: ProjectionNames,
    attention_output: &'static str,
    attention_norm: &'static str,
    wide: WideNames,
    narrow: &'static str,
    feed_forward_norm: &'static str,
    /// What the norm after the last layer is called, in a family that has one.
    final_norm: Option<&'static str>,
    /// Whether the family has an output matrix that is not that of the embeddings, [`OUTPUT_MATRIX`].
    output_matrix: bool,
}

/// What widens hidden states.
enum WideNames {
    /// One matrix.
    One(&'static str),
    /// One that goes through the activation, and one that multiplies it.
    GateAndUp([&'static str; 2]),
}

/// What projects to queries, keys and values.
enum ProjectionNames {
    Separate([&'static str; 3]),
    /// All in one matrix, in that order.
    Fused(&'static str),
}

impl Family {
    /// The family of a `model_type`.
    pub fn from_model_type(model_type: &str) -> Option<Self> {
        let mut all = Self::ALL.iter().copied();
        all.find(|family| family.model_type() == model_type)
    }

    /// Every `model_type`, for messages.
    pub fn supported() -> String {
        let all = Self::ALL.iter().map(|family| family.model_type());
        all.collect::<Vec<_>>().join(", ")
    }

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        self.description().model_type
    }

    /// What the names of its classes in transformers start with, as `Bert` in `BertModel`.
    pub fn class(self) -> &'static str {
        self.description().class
    }

    /// What a model with a head on top puts before the encoder's own tensor names.
    pub fn prefix(self) -> &'static str {
        self.description().prefix
    }

    /// What `config.json` calls the width of a hidden state, the number of layers and that of heads.
    pub(super) fn size_fields(self) -> [&'static str; 3] {
        self.description().size_fields
    }

    /// Reads the family's `config.json`.
    pub(super) fn read(self, file: &ConfigFile) -> Result<EncoderConfig, Error> {
        (self.description().read)(file)
    }
}
