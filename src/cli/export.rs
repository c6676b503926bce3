//! `telly export`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde_json::{Map, json};

use super::console;
use super::model::open_run;
use crate::error::Error;
use crate::export::{self, ClassChoice, Format, Reading, StoredType, TrainedModel};
use crate::frozen::FrozenPrecision;

/// Write a run as a folder that others load: transformers and sentence-transformers, or ONNX
/// Runtime.
///
/// Frozen and trained weights are one model there, and its outputs are those of the run. hf: a
/// classifier is loaded by `AutoModelForSequenceClassification`, or where it was trained on the
/// mean over all tokens by `AutoModelForTokenClassification`; what gives embeddings by
/// `SentenceTransformer` and `AutoModel`. onnx: model.onnx, from tokens to logits or embeddings.
/// The model card says how to load it.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly export --run runs/mine --format hf --out models/mine
  telly export --run runs/mine --format onnx --precision int8 --out models/mine-int8")]
pub(super) struct ExportArguments {
    /// Folder of a finished run.
    #[arg(long, value_name = "FOLDER", help_heading = "Model")]
    run: PathBuf,
    /// The model that it was trained from, a folder or owner/name[@revision] on the hub [default: where
    /// it lay when the run was made].
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    model: Option<PathBuf>,
    /// What is to load it.
    #[arg(long, value_enum, help_heading = "Output")]
    format: FormatName,
    /// Folder to write.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
    /// hf: how weights are stored [default: f32].
    #[arg(long, value_enum, help_heading = "Output")]
    dtype: Option<StoredType>,
    /// hf: the class that loads a classifier [default: auto].
    #[arg(long, value_enum, help_heading = "Output")]
    class: Option<ClassChoice>,
    /// onnx: what the linear layers compute in; fp16 is for CUDA, int8 for ONNX Runtime on CPUs [default: fp32].
    #[arg(long, value_enum, help_heading = "Output")]
    precision: Option<FrozenPrecision>,
    /// Replace an earlier export.
    #[arg(long)]
    force: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// `--format`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum FormatName {
    /// A Hugging Face folder.
    Hf,
    /// An ONNX graph.
    Onnx,
}

impl ExportArguments {
    /// The format that is meant; a flag of the other one is refused.
    fn format(&self) -> Result<Format, Error> {
        let foreign = match self.format {
            FormatName::Hf => [("--precision", self.precision.is_some()), ("", false)],
            FormatName::Onnx => [
                ("--dtype", self.dtype.is_some()),
                ("--class", self.class.is_some()),
            ],
        };
        if let Some((flag, _)) = foreign.into_iter().find(|(_, given)| *given) {
            return Err(Error::Usage {
                problem: format!("`{flag}` does not belong to this `--format`"),
                hint: "`--dtype` and `--class` are of hf, `--precision` is of onnx".into(),
            });
        }
        Ok(match self.format {
            FormatName::Hf => Format::HuggingFace {
                stored: self.dtype.unwrap_or_default(),
                class: self.class.unwrap_or_default(),
            },
            FormatName::Onnx => Format::Onnx {
                precision: self.precision.unwrap_or_default(),
            },
        })
    }
}

pub(super) fn run(arguments: &ExportArguments) -> Result<(), Error> {
    let format = arguments.format()?;
    let (saved, checkpoint) = open_run(&arguments.run, arguments.model.as_deref())?;
    let trained = TrainedModel::new(&arguments.run, saved, checkpoint)?;
    let identity = &trained.identity;
    if identity.frozen_precision != FrozenPrecision::Fp32 {
        console::say(&format!(
            "the run's frozen layers were computed in {}: what is exported is close to it, not equal",
            identity.frozen_precision
        ));
    }
    let report = export::export(&trained, format, &arguments.out, arguments.force)?;
    let out = arguments.out.display();
    let reading = match report.reading {
        Reading::Output => "",
        Reading::FirstToken => ", read at the first token",
        Reading::MeanOfTokens => ", read as the mean over all tokens",
    };
    console::say(&format!(
        "`{out}` is to be loaded by {}{reading}; its README.md has the lines",
        report.class
    ));
    let bytes = ByteSize::b(report.bytes).display().si();
    let object = Map::from_iter([
        ("format".to_owned(), json!(report.format)),
        ("class".to_owned(), json!(report.class)),
        ("reading".to_owned(), json!(report.reading)),
        (
            "bytes".to_owned(),
            if arguments.json {
                json!(report.bytes)
            } else {
                json!(bytes.to_string())
            },
        ),
        ("out".to_owned(), json!(out.to_string())),
    ]);
    console::result(arguments.json, &object)
}
