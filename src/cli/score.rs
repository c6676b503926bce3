//! `telly score`.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::{Map, Value, json};

use super::console;
use crate::dataset::{FieldChoice, Records, is_records, text_lines};
use crate::error::Error;
use crate::task::text_metrics::{TextPair, TextScores, TextTask};

/// The usual name of what was generated.
const PREDICTION: &str = "prediction";

/// Score texts that were generated against those that were wanted, by any program.
///
/// Both files hold one text for each example: a line of plain text, blank ones too, or a field of a
/// record where the file is .jsonl, .json, .csv, .tsv (each in .gz or .zst too) or .parquet. If every
/// line of both files of summaries begins with an index and a tab, texts of the same index are
/// compared.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly score --task summarize --references test.gold --predictions test.output
  telly score --task generate --references test.jsonl --predictions mine.txt
  telly score --task complete --references test.jsonl --reference-field gt --predictions mine.txt --json

All but perplexity is in percent; docs/metrics.md says what each is.")]
pub(super) struct ScoreArguments {
    /// What the texts are, which decides the metrics.
    #[arg(long, value_enum)]
    task: TextTask,
    /// The texts that were wanted; `-` is stdin.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    references: PathBuf,
    /// The texts that were generated; `-` is stdin.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    predictions: PathBuf,
    /// Field of a reference, where they are records [default: summarize the first of
    /// `docstring_tokens`, docstring, summary, nl, target; generate code, snippet, target; complete gt,
    /// target].
    #[arg(long, value_name = "FIELD", help_heading = "Input")]
    reference_field: Option<String>,
    /// Field of a prediction, where they are records [default: prediction].
    #[arg(long, value_name = "FIELD", help_heading = "Input")]
    prediction_field: Option<String>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ScoreArguments) -> Result<(), Error> {
    let usual = [arguments.task.target_fields(), &["target"]].concat();
    let named = arguments.reference_field.as_deref();
    let field = FieldChoice::new("--reference-field", named, &usual);
    let mut references = Texts::read(&arguments.references, named.is_some(), &field)?;
    let named = arguments.prediction_field.as_deref();
    let field = FieldChoice::new("--prediction-field", named, &[PREDICTION]);
    let mut predictions = Texts::read(&arguments.predictions, named.is_some(), &field)?;
    same_number(&references, &predictions)?;
    if arguments.task == TextTask::Summarize {
        match_indices(&mut references, &mut predictions)?;
    }
    let pairs = references.texts.iter().zip(&predictions.texts);
    let pairs = pairs.map(|(reference, hypothesis)| TextPair {
        reference,
        hypothesis,
    });
    let pairs: Vec<TextPair> = pairs.collect();
    let metrics = TextScores::new(arguments.task, &pairs).metrics();
    let object = if arguments.json {
        Map::from_iter([
            ("metrics".to_owned(), Value::Object(metrics.to_json())),
            ("rows".to_owned(), json!(pairs.len())),
        ])
    } else {
        metrics.to_table()
    };
    console::result(arguments.json, &object)
}

/// One text an example.
struct Texts<'a> {
    path: &'a Path,
    texts: Vec<String>,
}

impl<'a> Texts<'a> {
    /// The lines of `path`, or `field` of its records if its name says that it holds some, or `named`
    /// that a field was asked for.
    fn read(path: &'a Path, named: bool, field: &FieldChoice) -> Result<Self, Error> {
        let texts = if named || is_records(path) {
            let texts = Records::open(path)?.map(|record| field.verbatim(&record?, path));
            texts.collect::<Result<_, _>>()?
        } else {
            text_lines(path)?
        };
        Ok(Self { path, texts })
    }

    /// Each line's index and the text behind it, if every line has both.
    fn indexed(&self) -> Option<Vec<(&str, &str)>> {
        let lines = self.texts.iter().map(|line| {
            let (index, text) = line.split_once('\t')?;
            let number = !index.is_empty() && index.bytes().all(|byte| byte.is_ascii_digit());
            number.then_some((index, text))
        });
        lines.collect()
    }
}

fn same_number(references: &Texts, predictions: &Texts) -> Result<(), Error> {
    let (wanted, found) = (references.texts.len(), predictions.texts.len());
    if wanted == found {
        return Ok(());
    }
    Err(Error::Usage {
        problem: format!(
            "`{}` has {found} texts, expected {wanted}, one for each of `{}`",
            predictions.path.display(),
            references.path.display()
        ),
        hint: "both files hold the same examples in the same order; an empty prediction is an empty line"
            .into(),
    })
}

/// Where every line begins with an index: takes it away, and puts the predictions in the order of the
/// references.
fn match_indices(references: &mut Texts, predictions: &mut Texts) -> Result<(), Error> {
    let (wanted, found) = match (references.indexed(), predictions.indexed()) {
        (None, None) => return Ok(()),
        (Some(wanted), Some(found)) => (wanted, found),
        (wanted, _) => {
            let (with, without) = match wanted {
                Some(_) => (references.path, predictions.path),
                None => (predictions.path, references.path),
            };
            return Err(Error::Usage {
                problem: format!(
                    "every line of `{}` begins with an index and a tab, not every line of `{}`",
                    with.display(),
                    without.display()
                ),
                hint: "both files have indices, or neither".into(),
            });
        }
    };
    let lines = by_index(predictions.path, &found)?;
    by_index(references.path, &wanted)?;
    let matched = wanted.iter().enumerate().map(|(line, (index, _))| {
        let place = lines.get(index).ok_or_else(|| Error::Usage {
            problem: format!(
                "`{}`, line {}: `{}` has no line with the index {index}",
                references.path.display(),
                line + 1,
                predictions.path.display()
            ),
            hint: "both files hold the same examples".into(),
        })?;
        Ok(found[*place].1.to_owned())
    });
    let matched = matched.collect::<Result<Vec<String>, Error>>()?;
    let wanted = wanted.iter().map(|(_, text)| (*text).to_owned()).collect();
    (references.texts, predictions.texts) = (wanted, matched);
    Ok(())
}

/// At which place, from 0, each index is, which must be the only one.
fn by_index<'a>(
    path: &Path,
    lines: &[(&'a str, &'a str)],
) -> Result<HashMap<&'a str, usize>, Error> {
    let mut places = HashMap::new();
    for (place, (index, _)) in lines.iter().enumerate() {
        if let Some(first) = places.insert(*index, place) {
            return Err(Error::Usage {
                problem: format!(
                    "`{}`, line {}: the index {index} is there already, in line {}",
                    path.display(),
                    place + 1,
                    first + 1
                ),
                hint: "every example has an index of its own".into(),
            });
        }
    }
    Ok(places)
}
