//! `telly evaluate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, Value, json};

use super::console;
use super::model::ModelOptions;
use crate::cache::Split;
use crate::dataset::Source;
use crate::error::Error;
use crate::train::{FreshActivations, evaluate};

/// Measure a run on fresh data, straight through both halves, without a cache.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly evaluate --run runs/mine --data test.jsonl
  telly evaluate --model models/all-MiniLM-L6-v2 --task search --data test.jsonl   (untrained)")]
pub(super) struct EvaluateArguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Data with the fields of the training data: JSON Lines, a JSON array, .csv, .tsv (each in .gz
    /// or .zst too) or .parquet; or a folder with a test split.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    data: PathBuf,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &EvaluateArguments) -> Result<(), Error> {
    let records = Source::of(&arguments.data, "test")?.records()?;
    let loaded = arguments.model.load()?;
    let labels = loaded.labels.as_ref();
    let encoded = loaded
        .encoding
        .encode_records(records, &loaded.checkpoint, labels)?;
    let split = Split {
        columns: encoded.columns,
        rows: (0..encoded.sequences.len()).collect(),
        labels: encoded.labels,
    };
    let mut activations = FreshActivations {
        sequences: encoded.sequences,
        frozen: loaded.frozen()?,
    };
    let metrics = evaluate(&loaded.model, &mut activations, &split, "evaluate")?.to_json();
    let object = if arguments.json {
        Map::from_iter([
            ("metrics".to_owned(), Value::Object(metrics)),
            ("rows".to_owned(), json!(split.len())),
        ])
    } else {
        metrics
    };
    console::result(arguments.json, &object)
}
