use std::io;
use std::path::PathBuf;

use super::{HubError, PytorchError, hub};
use crate::error::Explain;

/// Why a checkpoint could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The folder does not exist.
    #[error("no checkpoint folder at `{path}`")]
    NoFolder {
        /// As given.
        path: PathBuf,
    },
    /// The model was not brought from the hub.
    #[error(transparent)]
    Hub(HubError),
    /// The folder has none of the weight files that are read.
    #[error("`{folder}` holds neither `model.safetensors` nor `pytorch_model.bin`, nor an index of either{}", .found.as_ref().map(|name| format!(" (found `{name}`)")).unwrap_or_default())]
    NoWeights {
        /// The checkpoint folder.
        folder: PathBuf,
        /// A weight file of a kind that is not read.
        found: Option<String>,
    },
    /// A file could not be read.
    #[error(transparent)]
    Read(io::Error),
    /// A JSON file is malformed or lacks a field.
    #[error("`{path}` is not the JSON that was expected")]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, column and what was expected.
        source: serde_json::Error,
    },
    /// The model is of a kind that Telly does not train.
    #[error("`{path}`: `{field}` is {found}, supported: {supported}")]
    Unsupported {
        /// `config.json`.
        path: PathBuf,
        /// The field of `config.json`.
        field: &'static str,
        /// Its value.
        found: String,
        /// What Telly supports.
        supported: String,
    },
    /// A number in `config.json` makes no sense.
    #[error("`{path}`: {problem}")]
    Config {
        /// `config.json`.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A safetensors file is truncated or malformed.
    #[error("`{path}` ({bytes} bytes) is not a whole safetensors file")]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// Its length.
        bytes: usize,
        /// What its header check found.
        source: safetensors::SafeTensorError,
    },
    /// A file of PyTorch's is truncated, malformed or wants something run.
    #[error("`{path}` is not read")]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: PytorchError,
    },
    /// An index of weight files names one that is not beside it.
    #[error("`{path}` names the weight file `{}`, which is no plain file name", name.escape_debug())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// What it names.
        name: String,
    },
    /// An index of weight files names none.
    #[error("`{path}` names no weight file")]
    NoShards {
        /// The index.
        path: PathBuf,
    },
    /// A tensor that the configuration asks for is not there.
    #[error("`{folder}` has no tensor `{name}` (with or without the prefix `{prefix}`)")]
    MissingTensor {
        /// The checkpoint folder.
        folder: PathBuf,
        /// The name in the family's own scheme.
        name: String,
        /// The prefix that is also tried.
        prefix: &'static str,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("tensor `{name}` has shape {found:?}, `config.json` asks for {expected:?}")]
    TensorShape {
        /// The tensor.
        name: String,
        /// In the file.
        found: Vec<usize>,
        /// By the configuration.
        expected: Vec<usize>,
    },
    /// A tensor's numbers are of a type that is not read.
    #[error("tensor `{name}` is stored as {found}, supported: F64, F32, F16, BF16")]
    TensorType {
        /// The tensor.
        name: String,
        /// In the file.
        found: String,
    },
    /// `tokenizer.json` could not be loaded.
    #[error("cannot load the tokenizer `{path}`")]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library said.
        source: tokenizers::Error,
    },
    /// The folder has no files that a tokenizer could be made from.
    #[error(
        "`{folder}` holds neither `tokenizer.json`, nor `vocab.json` with `merges.txt`, nor `vocab.txt`"
    )]
    NoTokenizer {
        /// The checkpoint folder.
        folder: PathBuf,
    },
    /// The vocabulary files do not make a tokenizer.
    #[error("cannot build a tokenizer from `{path}`: {problem}")]
    Vocabularies {
        /// The vocabulary, or its merges.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A text could not be turned into tokens.
    #[error("the tokenizer failed")]
    Tokenize(#[source] tokenizers::Error),
    /// One of two texts holds the token by which they are told apart.
    #[error("pair {pair}: a text holds the separator {token}")]
    Separator {
        /// Its place among those that were to be encoded, from 0.
        pair: usize,
        /// The token.
        token: String,
    },
    /// More tokens than a text may have, though it was cut.
    #[error("a text becomes {found} tokens with the special ones around it, {most} are the most")]
    SpecialTokens {
        /// How many.
        found: usize,
        /// The most.
        most: usize,
    },
    /// The tokenizer knows more tokens than the model has embeddings.
    #[error("`{path}` produces token id {id}, the model has {vocabulary} embeddings")]
    Vocabulary {
        /// `tokenizer.json`.
        path: PathBuf,
        /// The largest id.
        id: u32,
        /// `vocab_size` in `config.json`.
        vocabulary: usize,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Hub(error) => error.hint(),
            Self::NoFolder { path } => hub::name_of(path).map_or_else(
                || "pass a folder laid out as on the Hugging Face hub, or `owner/name` of a model there; `scripts/setup.sh` brings a sample one into `models/`".into(),
                |name| format!("the hub's cache had it: `--model {name}` brings it again"),
            ),
            Self::NoWeights { found: Some(_), .. } => "convert the weights with `save_pretrained(..., safe_serialization=True)` of transformers".into(),
            Self::Pytorch { source: PytorchError::Forbidden { .. } | PytorchError::Opcode { .. }, .. } => "loading this file with `torch.load` may run what it wants: ask its author for `model.safetensors`".into(),
            Self::Pytorch { .. } => "a `pytorch_model.bin` holds a state dict, written by `torch.save`; if it was cut short while it was copied, fetch it again".into(),
            Self::ShardName { .. } | Self::NoShards { .. } => "an index lists files of the same folder under `weight_map`: fetch the checkpoint again from a source you trust".into(),
            Self::Safetensors { .. } => "the file was probably cut short while it was copied: fetch it again".into(),
            Self::TensorShape { .. } | Self::MissingTensor { .. } => "`config.json` and the weights must come from the same model".into(),
            Self::NoTokenizer { .. } | Self::Vocabularies { .. } => "write a `tokenizer.json` with transformers: `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`".into(),
            Self::Json { .. } => "the file is damaged or belongs to something else: fetch it again".into(),
            Self::Tokenizer { .. } => "the tokenizer's files are damaged or do not belong together: fetch them again".into(),
            Self::Unsupported { field: "classifier_activation", .. } => "the run was trained with another `config.json`: put that one back".into(),
            Self::SpecialTokens { .. } => "the tokenizer puts more special tokens around a text than there is room for: allow for more tokens, or fetch the tokenizer again".into(),
            Self::Vocabulary { .. } => "the tokenizer and the weights must come from the same model".into(),
            Self::Read(error) if error.kind() == io::ErrorKind::NotFound => "a checkpoint folder needs `config.json`, `model.safetensors` or `pytorch_model.bin`, and `tokenizer.json` or the vocabulary files".into(),
            _ => return None,
        })
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Hub(error) => error.is_input(),
            _ => true,
        }
    }
}
