//! A pre-trained model on disk: a Hugging Face folder with `config.json`, `model.safetensors` or
//! `pytorch_model.bin` (or the sharded index of either) and `tokenizer.json` or the vocabulary
//! files of older checkpoints.

mod attention_pattern;
mod config;
mod error;
mod family;
mod freeze;
mod hub;
mod pytorch;
mod relative_position;
mod rotary;
mod special_tokens;
mod stored;
mod tokenizer;
mod vocabulary_files;
mod vocabulary_tokenizer;
mod weight_file;
mod weights;

use std::path::{Path, PathBuf};

pub use attention_pattern::{AttentionPattern, PrefixRule};
pub use config::{Biases, DropoutRates, EncoderConfig, LayerKinds, LocalAttention};
pub use error::Error;
pub use family::{
    Activation, Attention, BlockActivation, Embeddings, Family, FeedForward, HeadConfig,
    HeadFields, HeadInput, LanguageHead, Layer, Linear, Norm, NormKind, NormPlacement,
    OUTPUT_MATRIX, Positions, Projections, SequenceHead, Table, TokenTypes, Wide,
};
pub use freeze::Freeze;
pub use hub::{HubError, locate};
pub use pytorch::PytorchError;
pub use relative_position::relative_position_bucket;
pub(crate) use rotary::Rotation;
pub use rotary::{RotaryPositions, RotaryScaling};
pub use tokenizer::{Tokenizer, TokensWithSpans};
pub use weights::Weights;

use crate::ragged::Ragged;

/// A checkpoint folder, opened and checked: every tensor of the encoder is there with the
/// shape that the configuration asks for.
pub struct Checkpoint {
    /// The folder as given.
    pub folder: PathBuf,
    /// The encoder's sizes.
    pub config: EncoderConfig,
    /// The tensors, mapped.
    pub weights: Weights,
    /// Text to token ids.
    pub tokenizer: Tokenizer,
}

/// Hashes (BLAKE3, hexadecimal) of what a checkpoint is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Of the weight files.
    pub weights: String,
    /// Of `config.json`.
    pub config: String,
    /// Of `tokenizer.json`, else of the vocabulary files.
    pub tokenizer: String,
}

impl Checkpoint {
    /// Opens the checkpoint in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        if !folder.is_dir() {
            return Err(Error::NoFolder {
                path: folder.to_owned(),
            });
        }
        let config = EncoderConfig::read(&folder.join("config.json"))?;
        let weights = Weights::open(folder, config.family)?;
        check(&config, &weights)?;
        let tokenizer = Tokenizer::of_folder(folder, config.family, config.vocabulary_size)?;
        Ok(Self {
            folder: folder.to_owned(),
            config,
            weights,
            tokenizer,
        })
    }

    /// Makes it one for sequences of two texts: told apart by token types, where its embeddings have
    /// them and its tokenizer gives them, as BERT's do and RoBERTa's do not.
    pub fn take_pairs(&mut self) -> Result<(), Error> {
        if self.has_types() {
            self.config.text_separator = self.tokenizer.pair_separator()?;
        }
        Ok(())
    }

    /// Encodes each of `pairs` as one sequence, as the model's own template puts two texts together,
    /// cut to `max_length` tokens from the longer text on. A pair whose token types are not those
    /// that the model [takes](Self::take_pairs), since a text holds the separator itself, is an
    /// error, [`Error::Separator`] with its place in `pairs`.
    pub fn encode_pairs(
        &self,
        pairs: Vec<(String, String)>,
        max_length: usize,
    ) -> Result<Ragged<u32>, Error> {
        let token_types = self.config.embeddings().token_types;
        let types = token_types
            .filter(|_| self.has_types())
            .map(|(_, types)| types);
        self.tokenizer.encode_pairs(pairs, max_length, types)
    }

    /// Whether its embeddings know more than one token type.
    fn has_types(&self) -> bool {
        self.config.token_types.is_some_and(|types| types > 1)
    }

    /// `config.json` names an activation of the family's own classifier that Telly does not compute.
    pub fn unknown_activation(&self) -> Error {
        Error::Unsupported {
            path: self.folder.join("config.json"),
            field: "classifier_activation",
            found: format!(
                "{:?}",
                self.config.head.activation.as_deref().unwrap_or_default()
            ),
            supported: Activation::NAMES.map(|name| format!("{name:?}")).join(", "),
        }
    }

    /// Checks again that every tensor of the encoder has its shape, after some were replaced.
    pub fn check(&self) -> Result<(), Error> {
        check(&self.config, &self.weights)
    }

    /// Hashes the checkpoint's files.
    pub fn identity(&self) -> Result<Identity, Error> {
        Ok(Identity {
            weights: self.weights.hash()?,
            config: hash_file(&self.folder.join("config.json"))?,
            tokenizer: vocabulary_files::hash(&self.folder)?,
        })
    }
}

fn check(config: &EncoderConfig, weights: &Weights) -> Result<(), Error> {
    for (name, shape) in config.tensors() {
        weights.check(&name, &shape)?;
    }
    Ok(())
}

fn hash_file(path: &Path) -> Result<String, Error> {
    let bytes = fs_err::read(path).map_err(Error::Read)?;
    Ok(blake3::hash(&bytes).to_hex().to_string())
}
