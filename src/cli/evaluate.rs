//! `telly evaluate`.

use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::console;
use super::generation_options::GenerationOptions;
use super::model::{LoadedModel, ModelOptions};
use super::output_file::place;
use super::task::foreign_flag;
use super::text_writer::TextWriter;
use crate::cache::Split;
use crate::dataset::Source;
use crate::error::Error;
use crate::progress::Progress;
use crate::publish::publish;
use crate::ragged::Ragged;
use crate::task::text_metrics::TextMetrics;
use crate::task::{EncodedSplit, Encoding, Known, Metrics, Role, RowScores};
use crate::train::{FreshActivations, evaluate, evaluate_rows, score_texts};

/// Measure a run on fresh data, straight through both halves, without a cache.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly evaluate --run runs/mine --data test.jsonl
  telly evaluate --model models/all-MiniLM-L6-v2 --task search --data test.jsonl   (untrained)
  telly evaluate --run runs/search --data test.jsonl --code-base codebase.jsonl --rank-limit 1000
  telly evaluate --run runs/mine --data test.jsonl --scores scores.jsonl   (to compare two runs by row)
  telly evaluate --run runs/generate --data test.jsonl --beam-size 5 --decode-samples 200")]
pub(super) struct EvaluateArguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Data with the fields of the training data: JSON Lines, a JSON array, .csv, .tsv (each in .gz
    /// or .zst too) or .parquet; or a folder with a test split.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    data: PathBuf,
    /// search: the codes that the queries are searched in [default: those of --data].
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    code_base: Option<PathBuf>,
    /// Write what each row adds to accuracy, MRR or MAP@R, as JSON Lines: whether a text is classified right, 1 or
    /// 0; a query's reciprocal rank; a function's average precision at R and its group (clone by groups).
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    scores: Option<PathBuf>,
    /// summarize, generate, complete: write the texts of so many rows, from the first on; 0 of none
    /// [default: all].
    #[arg(long, value_name = "N", help_heading = "Generation")]
    decode_samples: Option<usize>,
    #[command(flatten)]
    generation: GenerationOptions,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl EvaluateArguments {
    /// Refuses flags of tasks that write text for others.
    fn check_flags(&self, loaded: &LoadedModel) -> Result<(), Error> {
        let samples = self.decode_samples.map(|_| "--decode-samples");
        match samples.or(self.generation.given()) {
            Some(flag) if loaded.encoding.text().is_none() => {
                Err(foreign_flag(flag, loaded.encoding.task()))
            }
            _ => Ok(()),
        }
    }
}

pub(super) fn run(arguments: &EvaluateArguments) -> Result<(), Error> {
    let (loaded, source) = arguments.model.load(&arguments.data)?;
    arguments.check_flags(&loaded)?;
    let file = arguments.scores.as_deref();
    let file = file.map(|path| place("--scores", path)).transpose()?;
    if file.is_some() && !loaded.model.has_row_scores() {
        return Err(Error::Usage {
            problem: "`--scores`: what this model is measured by is no mean over rows".into(),
            hint: "leave it out; `telly predict` says what each row comes to".into(),
        });
    }
    let (sequences, split, code_base) = encode(&loaded, &source, arguments.code_base.as_deref())?;
    let mut activations = FreshActivations {
        sequences,
        frozen: loaded.frozen()?,
        pattern: loaded.model.attention_pattern(),
    };
    let code_base = code_base.as_ref();
    let (model, label) = (&loaded.model, "evaluate");
    let mut metrics = if let Some((folder, name)) = file {
        let (metrics, scores) = evaluate_rows(model, &mut activations, &split, code_base, label)?;
        let groups = model.needs_partners().then(|| split.targets.classes());
        write_scores(folder, &name, &scores.unwrap_or_default(), groups)?;
        metrics
    } else {
        evaluate(model, &mut activations, &split, code_base, label)?
    };
    if let Metrics::Text(of_loss) = &metrics
        && arguments.decode_samples != Some(0)
    {
        let loss = of_loss.loss;
        // Not both at once: all of the model is in the other one.
        activations.frozen = None;
        let written = write_texts(&loaded, &activations.sequences, &split, arguments)?;
        metrics = Metrics::Text(match loss {
            Some(loss) => written.with_loss(loss),
            None => written,
        });
    }
    let metrics = match &metrics {
        Metrics::Text(metrics) if !arguments.json => metrics.to_table(),
        metrics => metrics.to_json(),
    };
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

/// Writes `scores` as `folder/name`, a line a row, with the group that its row is found among where there are
/// `groups`; rows count from 1.
fn write_scores(
    folder: &Path,
    name: &str,
    scores: &RowScores,
    groups: Option<&[i64]>,
) -> Result<(), Error> {
    let lines = scores.iter().enumerate().map(|(row, score)| {
        let mut line = json!({ "row": row + 1, "score": score });
        if let Some(groups) = groups {
            line["group"] = groups[row].into();
        }
        format!("{line}\n")
    });
    let lines: Vec<String> = lines.collect();
    publish(folder, name, lines.concat().as_bytes()).map_err(Error::Output)
}

/// Writes the texts that the rows of `split` ask for and compares them with those that are wanted.
fn write_texts(
    loaded: &LoadedModel,
    sequences: &Ragged<u32>,
    split: &Split,
    arguments: &EvaluateArguments,
) -> Result<TextMetrics, Error> {
    let writer = TextWriter::of(loaded, &arguments.generation)?;
    let (Some(mut writer), Some((task, _))) = (writer, loaded.encoding.text()) else {
        unreachable!("only a task that writes text is measured by it")
    };
    let rows = arguments
        .decode_samples
        .unwrap_or(usize::MAX)
        .min(split.len());
    let mut progress = Progress::new("write", rows as u64, "texts");
    let ids = |sequence| sequences.sequence(sequence).to_vec();
    let write = |prompts: &Ragged<u32>| writer.write(prompts, &mut progress);
    Ok(score_texts(task, (split, rows), ids, write)?)
}

/// The sequences of `source` and of the code base, the rows that they make, and what those are to be
/// found in.
fn encode(
    loaded: &LoadedModel,
    source: &Source,
    code_base: Option<&Path>,
) -> Result<(Ragged<u32>, Split, Option<Split>), Error> {
    let (encoding, checkpoint) = (&loaded.encoding, &loaded.checkpoint);
    let searched = match (code_base, encoding) {
        (None, _) => None,
        (Some(path), Encoding::Search(search)) => {
            let base = Source::of(path, Role::CODE_BASE)?;
            let keys = search.code_base(base.records()?)?;
            let role = Role::CodeBase;
            let codes = encoding.encode_source(&base, checkpoint, role, Known::default())?;
            Some((keys, codes))
        }
        (Some(_), _) => return Err(foreign_flag("--code-base", encoding.task())),
    };
    let known = Known {
        labels: loaded.labels.as_ref(),
        code_base: searched.as_ref().map(|(keys, _)| keys),
    };
    let encoded = encoding.encode_source(source, checkpoint, Role::Evaluation, known)?;
    encoded
        .notice
        .iter()
        .for_each(|notice| console::say(notice));
    let mut sequences = encoded.sequences.clone();
    let split = rows_of(encoded, 0);
    let code_base = searched.map(|(_, codes)| {
        let first = sequences.len();
        codes.sequences.iter().for_each(|ids| sequences.push(ids));
        rows_of(codes, first)
    });
    Ok((sequences, split, code_base))
}

/// The rows of `encoded`, whose sequences are numbered from `first`.
fn rows_of(encoded: EncodedSplit, first: usize) -> Split {
    let rows = encoded.rows.into_iter();
    Split {
        columns: encoded.columns,
        rows: rows.map(|number| first + number as usize).collect(),
        targets: encoded.targets,
    }
}
