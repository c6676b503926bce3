//! `telly predict`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use serde_json::{Map, Value, json};

use super::console;
use super::model::{LoadedModel, ModelOptions};
use crate::dataset::{Dataset, Record, Source};
use crate::error::Error;
use crate::frozen::FrozenEncoder;
use crate::task::{EncodedSplit, Known, Labels, Predictions, Role, similarity};
use crate::train::{FreshActivations, embed};
use crate::trainable::Pass;

/// Apply a run to new records: one JSON line for each.
///
/// classify: the label and every class's probability. search, and clone by groups: the text's
/// embedding or, with `--against`, the best matching records of that file. clone by pairs: the label
/// and the score that it comes from.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly predict --run runs/mine --input new.jsonl --output predictions.jsonl
  telly predict --run runs/search --input queries.jsonl --against code.jsonl --top 3 --output -")]
pub(super) struct PredictArguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Records: JSON Lines, a JSON array, .csv, .tsv (each in .gz or .zst too) or .parquet; `-` is JSON
    /// Lines on stdin. No labels are needed.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    input: PathBuf,
    /// search, clone by groups: records that are searched.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    against: Option<PathBuf>,
    /// How many matches of --against a record [default: 10].
    #[arg(long, value_name = "N", requires = "against", help_heading = "Output")]
    top: Option<usize>,
    /// Where to write; `-` is stdout.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    output: PathBuf,
}

pub(super) fn run(arguments: &PredictArguments) -> Result<(), Error> {
    let against = arguments
        .against
        .as_deref()
        .map(Dataset::read)
        .transpose()?;
    let (loaded, source) = arguments.model.load(&arguments.input)?;
    let searched = match &against {
        None => None,
        Some(base) => match loaded.encoding.encode_codes(base, &loaded.checkpoint)? {
            Some(encoded) => Some((base, encoded)),
            None => {
                return Err(Error::Usage {
                    problem: "`--against` is of `--task search`, and of `--task clone` by groups"
                        .into(),
                    hint: "leave it out".into(),
                });
            }
        },
    };
    let mut embedder = Embedder {
        loaded: &loaded,
        frozen: loaded.frozen()?,
    };
    let (encoded, records) = encode(&loaded, &source)?;
    let columns = embedder.embed(encoded, "predict")?;
    let pass = Pass::evaluation(columns[0].device());
    let lines = match loaded.model.predict(&columns, &pass)? {
        Predictions::Probabilities(probabilities) => {
            classify(loaded.labels.as_ref(), &probabilities)?
        }
        Predictions::Pairs { scores, clones } => scores
            .iter()
            .zip(clones)
            .map(|(score, clone)| json!({ "label": i32::from(clone), "score": score }))
            .collect(),
        Predictions::Vectors(vectors) => match searched {
            None => embeddings(&vectors)?,
            Some((base, encoded)) => {
                let codes = embedder.embed(encoded, "code base")?;
                let top = arguments.top.unwrap_or(10);
                search(&records, base, &vectors, &codes[0], top)?
            }
        },
    };
    write(&arguments.output, &lines)?;
    console::say(&format!(
        "{} predictions in `{}`",
        lines.len(),
        arguments.output.display()
    ));
    Ok(())
}

/// What is read of `source`; the records too, but for pairs that are ids.
fn encode(loaded: &LoadedModel, source: &Source) -> Result<(EncodedSplit, Vec<Record>), Error> {
    let (encoding, checkpoint) = (&loaded.encoding, &loaded.checkpoint);
    if encoding.pair_file(source).is_some() {
        let (role, known) = (Role::Evaluation, Known::default());
        let encoded = encoding.encode_source(source, checkpoint, role, known)?;
        encoded
            .notice
            .iter()
            .for_each(|notice| console::say(notice));
        return Ok((encoded, Vec::new()));
    }
    let records = source.records()?.collect::<Result<_, _>>()?;
    let path = source.path.clone();
    let data = Dataset { path, records };
    let encoded = encoding.encode_queries(&data, checkpoint)?;
    Ok((encoded, data.records))
}

/// Both halves, run over several files.
struct Embedder<'a> {
    loaded: &'a LoadedModel,
    frozen: Option<FrozenEncoder>,
}

impl Embedder<'_> {
    /// For each column of the rows, `[rows, hidden]`.
    fn embed(&mut self, split: EncodedSplit, label: &str) -> Result<Vec<Tensor>, Error> {
        let rows: Vec<usize> = split.rows.iter().map(|&number| number as usize).collect();
        let mut activations = FreshActivations {
            sequences: split.sequences,
            frozen: self.frozen.take(),
        };
        let vectors = embed(&self.loaded.model, &mut activations, &rows, label)?;
        self.frozen = activations.frozen;
        let hidden = vectors.dim(1).map_err(tensor)?;
        let shape = (rows.len() / split.columns, split.columns, hidden);
        let vectors = vectors.reshape(shape).map_err(tensor)?;
        let columns = (0..split.columns).map(|column| vectors.narrow(1, column, 1)?.squeeze(1));
        columns.collect::<Result<_, _>>().map_err(tensor)
    }
}

fn embeddings(vectors: &Tensor) -> Result<Vec<Value>, Error> {
    let rows = rows(vectors)?.into_iter();
    Ok(rows.map(|row| json!({ "embedding": row })).collect())
}

fn classify(labels: Option<&Labels>, probabilities: &Tensor) -> Result<Vec<Value>, Error> {
    let labels = labels.unwrap_or_else(|| unreachable!("who has classes has their labels"));
    let lines = rows(probabilities)?.into_iter().map(|probabilities| {
        let likeliest = (0..probabilities.len())
            .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
            .unwrap_or_default();
        let by_label: Map<String, Value> = labels
            .iter()
            .zip(&probabilities)
            .map(|(label, probability)| {
                let name = json!(label);
                let name = name
                    .as_str()
                    .map_or_else(|| name.to_string(), str::to_owned);
                (name, json!(probability))
            })
            .collect();
        json!({ "label": labels.label(likeliest), "probabilities": by_label })
    });
    Ok(lines.collect())
}

fn search(
    queries: &[Record],
    base: &Dataset,
    vectors: &Tensor,
    codes: &Tensor,
    top: usize,
) -> Result<Vec<Value>, Error> {
    let mut lines = Vec::with_capacity(queries.len());
    for (row, record) in queries.iter().enumerate() {
        let query = vectors.narrow(0, row, 1).map_err(tensor)?;
        let scores = rows(&similarity(&query, codes)?)?.concat();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        // Stable, so that equal scores keep the order of the file.
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        let matches: Vec<Value> = order
            .into_iter()
            .take(top)
            .enumerate()
            .map(|(rank, index)| {
                json!({
                    "rank": rank + 1,
                    "index": index,
                    "score": scores[index],
                    "record": base.records[index].fields,
                })
            })
            .collect();
        lines.push(json!({ "query": record.fields, "matches": matches }));
    }
    Ok(lines)
}

fn rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
    matrix.to_vec2().map_err(tensor)
}

fn tensor(error: candle_core::Error) -> Error {
    Error::Trainable(error.into())
}

/// Writes the lines; a file is there whole or not at all.
fn write(path: &Path, lines: &[Value]) -> Result<(), Error> {
    let write_lines = |writer: &mut dyn Write| -> std::io::Result<()> {
        let mut writer = BufWriter::new(writer);
        for line in lines {
            writeln!(writer, "{line}")?;
        }
        writer.flush()
    };
    if path == Path::new("-") {
        return write_lines(&mut std::io::stdout().lock()).map_err(Error::Output);
    }
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let name = path.file_name().ok_or_else(|| Error::Usage {
        problem: format!("`--output {}` is no file", path.display()),
        hint: "name a file, or `-` for stdout".into(),
    })?;
    let mut bytes = Vec::new();
    write_lines(&mut bytes).map_err(Error::Output)?;
    crate::publish::publish(folder, &name.to_string_lossy(), &bytes).map_err(Error::Output)
}
