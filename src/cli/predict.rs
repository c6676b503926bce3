//! `telly predict`.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use clap::Args;
use serde_json::{Map, Value, json};

use super::console;
use super::model::{LoadedModel, ModelOptions};
use crate::dataset::Dataset;
use crate::error::Error;
use crate::frozen::FrozenEncoder;
use crate::ragged::Ragged;
use crate::task::{Labels, TaskKind, similarity};
use crate::train::{FreshActivations, embed};
use crate::trainable::Pass;

/// Apply a run to new records: one JSON line for each.
///
/// classify: the label and every class's probability. search: the query's embedding or, with
/// `--against`, the best matching records of that file.
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
    /// search: records whose code is searched.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    against: Option<PathBuf>,
    /// search: how many matches a query [default: 10].
    #[arg(long, value_name = "N", requires = "against", help_heading = "Output")]
    top: Option<usize>,
    /// Where to write; `-` is stdout.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    output: PathBuf,
}

pub(super) fn run(arguments: &PredictArguments) -> Result<(), Error> {
    let data = Dataset::read(&arguments.input)?;
    let against = arguments
        .against
        .as_deref()
        .map(Dataset::read)
        .transpose()?;
    let loaded = arguments.model.load()?;
    let task = loaded.encoding.task();
    if against.is_some() && task != TaskKind::Search {
        return Err(Error::Usage {
            problem: format!("`--against` does not belong to `--task {task}`"),
            hint: "leave it out: a classifier needs no second file".into(),
        });
    }
    let mut embedder = Embedder {
        loaded: &loaded,
        frozen: loaded.frozen()?,
    };
    let encoded = loaded.encoding.encode_queries(&data, &loaded.checkpoint)?;
    let vectors = embedder.embed(encoded.sequences, "predict")?;
    let lines = match (&loaded.labels, &against) {
        (Some(labels), _) => classify(&loaded, labels, &vectors)?,
        (None, None) => rows(&vectors)?
            .into_iter()
            .map(|row| json!({ "embedding": row }))
            .collect(),
        (None, Some(base)) => {
            let encoded = loaded.encoding.encode_codes(base, &loaded.checkpoint)?;
            let codes = embedder.embed(encoded.sequences, "code base")?;
            let top = arguments.top.unwrap_or(10);
            search(&data, base, &vectors, &codes, top)?
        }
    };
    write(&arguments.output, &lines)?;
    console::say(&format!(
        "{} predictions in `{}`",
        lines.len(),
        arguments.output.display()
    ));
    Ok(())
}

/// Both halves, run over several files.
struct Embedder<'a> {
    loaded: &'a LoadedModel,
    frozen: Option<FrozenEncoder>,
}

impl Embedder<'_> {
    /// One vector a sequence, `[sequences, hidden]`.
    fn embed(&mut self, sequences: Ragged<u32>, label: &str) -> Result<Tensor, Error> {
        let indices: Vec<usize> = (0..sequences.len()).collect();
        let mut activations = FreshActivations {
            sequences,
            frozen: self.frozen.take(),
        };
        let vectors = embed(&self.loaded.model, &mut activations, &indices, label)?;
        self.frozen = activations.frozen;
        Ok(vectors)
    }
}

fn classify(loaded: &LoadedModel, labels: &Labels, vectors: &Tensor) -> Result<Vec<Value>, Error> {
    let pass = Pass::evaluation(vectors.device());
    let logits = loaded.model.logits(vectors, &pass)?;
    let probabilities = candle_nn::ops::softmax(&logits, 1).map_err(tensor)?;
    let lines = rows(&probabilities)?.into_iter().map(|probabilities| {
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
    queries: &Dataset,
    base: &Dataset,
    vectors: &Tensor,
    codes: &Tensor,
    top: usize,
) -> Result<Vec<Value>, Error> {
    let mut lines = Vec::with_capacity(queries.records.len());
    for (row, record) in queries.records.iter().enumerate() {
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
