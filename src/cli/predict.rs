//! `telly predict`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use candle_core::Tensor;
use clap::Args;
use serde_json::{Map, Value, json};

use super::chunks::{self, Chunks, RECORDS, RECORDS_TO_WRITE};
use super::console;
use super::embedder::Embedder;
use super::generation_options::GenerationOptions;
use super::model::{LoadedModel, ModelOptions};
use super::predictions::Output;
use super::task::foreign_flag;
use super::text_writer::TextWriter;
use crate::dataset::{Dataset, Record, Source};
use crate::error::Error;
use crate::index::{Hit, Index, Top};
use crate::progress::Progress;
use crate::task::{Known, Labels, Predictions, Role, similarity};
use crate::{interrupt, train};

/// Apply a run to new records: one JSON line for each.
///
/// classify: the label and every class's probability; with `--objective multi-label` the labels
/// that are likelier than not, with regression the number. search, and clone by groups: the text's
/// embedding or, with --against or --index, the best matching records. clone by pairs: the label
/// and the score that it comes from. summarize, generate, complete: the text that is written, as the
/// field prediction. Records are read and lines written a few hundred at a time,
/// so files may be of any size. A command that was stopped goes on when it is typed again: until
/// the file is whole it is called FILE.partial.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly predict --run runs/mine --input new.jsonl --output predictions.jsonl
  telly predict --run runs/search --input queries.jsonl --against code.jsonl --top 3 --output -
  telly predict --run runs/search --input queries.jsonl --index index/code --output found.jsonl
  zcat new.jsonl.gz | telly predict --run runs/mine --quantize --input - --output - | head")]
pub(super) struct PredictArguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Records: JSON Lines, a JSON array, .csv, .tsv (each in .gz or .zst too) or .parquet; `-` is JSON
    /// Lines on stdin. No labels are needed.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    input: PathBuf,
    /// search, clone by groups: records that are searched.
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "index",
        help_heading = "Input"
    )]
    against: Option<PathBuf>,
    /// search, clone by groups: what `telly index` made of the code that is searched.
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    index: Option<PathBuf>,
    /// How many matches of --against or --index a record [default: 10].
    #[arg(long, value_name = "N", help_heading = "Output")]
    top: Option<usize>,
    /// classify, clone by `--head concat`: every class's logit too, in the order of the classes.
    #[arg(long, help_heading = "Output")]
    logits: bool,
    /// Where to write; `-` is stdout.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    output: PathBuf,
    #[command(flatten)]
    generation: GenerationOptions,
    /// Run all layers in 8-bit integers: faster on CPUs, and a little off.
    #[arg(long, help_heading = "Running")]
    quantize: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &PredictArguments) -> Result<(), Error> {
    let against = arguments
        .against
        .as_deref()
        .map(Dataset::read)
        .transpose()?;
    let (loaded, source) = arguments.model.load(&arguments.input)?;
    check_flags(arguments, &loaded)?;
    let mut progress = Progress::new("predict", chunks::count(&arguments.input), "records");
    let mut predictor = Predictor {
        engine: match TextWriter::of(&loaded, &arguments.generation)? {
            Some(writer) => Engine::Writer(Box::new(writer)),
            None => Engine::Embedder(Box::new(Embedder::new(&loaded, arguments.quantize)?)),
        },
        loaded: &loaded,
        base: Base::Nothing,
        top: arguments.top.unwrap_or(10),
        logits: arguments.logits,
    };
    let key = predictor.search_in(arguments, against)?;
    let mut output = Output::open(&arguments.output, key)?;
    if loaded.encoding.pair_file(&source).is_some() {
        return predict_pairs((&mut predictor, arguments), &source, output);
    }
    let mut input = predictor.chunks(&source)?;
    let mut records = pass_by((arguments, &predictor), &source, &mut input, &mut output)?;
    progress.skip(records as u64);
    let (before, tokens) = (records, predictor.tokens());
    predictor.pass_by(records);
    let started = Instant::now();
    let rates = |records: usize, predictor: &Predictor| {
        let seconds = started.elapsed().as_secs_f64().max(1e-9);
        let tokens = (predictor.tokens() - tokens) as f64 / seconds;
        ((records - before) as f64 / seconds, tokens)
    };
    while let Some(chunk) = input.next()? {
        let lines = match predictor.lines(&chunk, &mut progress) {
            Err(Error::Train(train::Error::Interrupted)) => return Err(interrupted(&output)),
            lines => lines?,
        };
        records += lines.len();
        if !output.add(&chunk, &lines)? {
            return Ok(());
        }
        progress.set_message(format!("{:.0} tokens/s", rates(records, &predictor).1));
        if interrupt::requested() {
            return Err(interrupted(&output));
        }
    }
    drop(progress);
    output.finish()?;
    let (by_record, by_token) = rates(records, &predictor);
    console::say(&format!(
        "{records} predictions in `{}`, {by_record:.1} records/s, {by_token:.0} tokens/s",
        arguments.output.display()
    ));
    summary(
        arguments,
        json!({
            "records": records,
            "records_per_second": by_record,
            "tokens_per_second": by_token,
        }),
    )
}

/// What `--json` ends with.
fn summary(arguments: &PredictArguments, mut object: Value) -> Result<(), Error> {
    object["output"] = json!(arguments.output.display().to_string());
    if arguments.json {
        console::print(&object.to_string())?;
    }
    Ok(())
}

/// Writes a line for each pair of the file `source`, whose functions lie beside it: all at once, as the
/// functions are held anyway.
fn predict_pairs(
    (predictor, arguments): (&mut Predictor, &PredictArguments),
    source: &Source,
    mut output: Output,
) -> Result<(), Error> {
    let loaded = predictor.loaded;
    let (role, known) = (Role::Evaluation, Known::default());
    let encoded = loaded
        .encoding
        .encode_source(source, &loaded.checkpoint, role, known)?;
    if let Some(notice) = &encoded.notice {
        console::say(notice);
    }
    let path = source.path().to_owned();
    let records = (1..=encoded.rows()).map(|line| Record::new(line, Map::new()));
    let records = records.collect();
    let columns = predictor.embedder()?.embed(encoded)?;
    let lines = predictor.lines_of(&[], &columns)?;
    if output.add(&Dataset { path, records }, &lines)? {
        output.finish()?;
    }
    console::say(&format!("{} predictions", lines.len()));
    summary(arguments, json!({ "records": lines.len() }))
}

fn interrupted(output: &Output) -> Error {
    Error::Interrupted {
        kept: output.kept(),
    }
}

/// Refuses `--top` where nothing is searched, and what does not go with text that is written.
fn check_flags(arguments: &PredictArguments, loaded: &LoadedModel) -> Result<(), Error> {
    if arguments.json && arguments.output == Path::new("-") {
        return Err(Error::Usage {
            problem: "`--json` and `--output -` both write to stdout".into(),
            hint: "name a file with `--output`, or leave `--json` out".into(),
        });
    }
    let of_vectors = [
        ("--quantize", arguments.quantize),
        ("--logits", arguments.logits),
    ];
    let given = of_vectors.into_iter().find(|(_, given)| *given);
    if let (Some((flag, _)), Some(_)) = (given, loaded.encoding.text()) {
        return Err(foreign_flag(flag, loaded.encoding.task()));
    }
    let searches = arguments.against.is_some() || arguments.index.is_some();
    if arguments.top.is_some() && !searches {
        return Err(Error::Usage {
            problem: "`--top` says how many matches, and nothing is searched".into(),
            hint: "name what is searched with `--against` or `--index`".into(),
        });
    }
    Ok(())
}

/// An error for a run that finds nothing.
fn no_search(flag: &str) -> Error {
    Error::Usage {
        problem: format!("`{flag}` is of `--task search`, and of `--task clone` by groups"),
        hint: "leave it out".into(),
    }
}

/// Passes by what an earlier command did, if this is the same one; how many records that are.
fn pass_by(
    (arguments, predictor): (&PredictArguments, &Predictor),
    source: &Source,
    input: &mut Chunks,
    output: &mut Output,
) -> Result<usize, Error> {
    let mut passed = 0;
    while passed < output.done() {
        let Some(chunk) = input.next()? else {
            break;
        };
        passed += chunk.records.len();
        output.skip(&chunk);
    }
    if output.goes_on()? {
        return Ok(passed);
    }
    if arguments.input == Path::new("-") {
        return Err(Error::Usage {
            problem: format!(
                "`{}.partial` was made from another input",
                arguments.output.display()
            ),
            hint: "this one has been read in part: type the command again to begin anew".into(),
        });
    }
    console::say("the input is not what it was: beginning anew");
    *input = predictor.chunks(source)?;
    Ok(0)
}

/// A model, and what it makes of records.
struct Predictor<'a> {
    loaded: &'a LoadedModel,
    engine: Engine<'a>,
    base: Base,
    top: usize,
    logits: bool,
}

/// What runs the model.
enum Engine<'a> {
    Embedder(Box<Embedder<'a>>),
    /// Of a task that writes text.
    Writer(Box<TextWriter>),
}

/// What is searched.
enum Base {
    Nothing,
    Records(Dataset, Tensor),
    Index(Index),
}

impl<'a> Predictor<'a> {
    /// Of a task that writes no text.
    fn embedder(&mut self) -> Result<&mut Embedder<'a>, Error> {
        match &mut self.engine {
            Engine::Embedder(embedder) => Ok(embedder),
            Engine::Writer(_) => Err(no_search("--against")),
        }
    }

    fn chunks(&self, source: &Source) -> Result<Chunks, Error> {
        let at_a_time = match self.engine {
            Engine::Embedder(_) => RECORDS,
            Engine::Writer(_) => RECORDS_TO_WRITE,
        };
        Chunks::open(source, at_a_time)
    }

    /// Tokens that were read, or written, so far.
    fn tokens(&self) -> u64 {
        match &self.engine {
            Engine::Embedder(embedder) => embedder.tokens,
            Engine::Writer(writer) => writer.tokens as u64,
        }
    }

    /// Tells what was done by an earlier command.
    fn pass_by(&mut self, records: usize) {
        if let Engine::Writer(writer) = &mut self.engine {
            writer.prompts = records;
        }
    }

    /// Takes up what is searched, and tells what decides all output but the input.
    fn search_in(
        &mut self,
        arguments: &PredictArguments,
        against: Option<Dataset>,
    ) -> Result<String, Error> {
        let mut base = Value::Null;
        if let Some(records) = against {
            let mut content = blake3::Hasher::new();
            for record in &records.records {
                content.update(json!(record.fields).to_string().as_bytes());
            }
            base = json!(content.finalize().to_hex().to_string());
            let loaded = self.loaded;
            let encoded = loaded.encoding.encode_codes(&records, &loaded.checkpoint)?;
            let encoded = encoded.ok_or_else(|| no_search("--against"))?;
            let codes = self.embedder()?.embed_one(encoded)?;
            self.base = Base::Records(records, codes);
        }
        if let Some(folder) = &arguments.index {
            if !self.loaded.encoding.is_searched() {
                return Err(no_search("--index"));
            }
            let index = Index::open(folder, &self.loaded.fingerprint)?;
            base = json!(index.description);
            self.base = Base::Index(index);
        }
        let key = json!({
            "model": self.loaded.fingerprint,
            "encoding": self.loaded.encoding,
            "head": self.loaded.model.head_settings(),
            "base": base,
            "top": self.top,
            "logits": self.logits,
            "quantize": arguments.quantize,
            "generation": match &self.engine {
                Engine::Writer(writer) => json!(writer.settings),
                Engine::Embedder(_) => Value::Null,
            },
        });
        Ok(blake3::hash(key.to_string().as_bytes())
            .to_hex()
            .to_string())
    }

    /// A line for each record of `data`; `progress` is told of them.
    fn lines(&mut self, data: &Dataset, progress: &mut Progress) -> Result<Vec<Value>, Error> {
        let loaded = self.loaded;
        let encoded = loaded.encoding.encode_queries(data, &loaded.checkpoint)?;
        let columns = match &mut self.engine {
            Engine::Writer(writer) => {
                let numbers = encoded.rows.iter().map(|&number| number as usize);
                let prompts = encoded.sequences.gather(&numbers.collect::<Vec<usize>>());
                let written = writer.write(&prompts, progress)?.into_iter();
                return Ok(written.map(|text| json!({ "prediction": text })).collect());
            }
            Engine::Embedder(embedder) => embedder.embed(encoded)?,
        };
        let lines = self.lines_of(&data.records, &columns)?;
        progress.advance(lines.len() as u64);
        Ok(lines)
    }

    /// A line for each row whose vectors are `columns`, and which was made of `records`.
    fn lines_of(&self, records: &[Record], columns: &[Tensor]) -> Result<Vec<Value>, Error> {
        let loaded = self.loaded;
        let pass = loaded.model.evaluation();
        let logits = if self.logits {
            loaded.model.logits(columns, &pass)?
        } else {
            None
        };
        let labels = loaded.labels.as_ref();
        let mut lines = match loaded.model.predict(columns, &pass)? {
            Predictions::Probabilities(probabilities) => classify(labels, &probabilities)?,
            Predictions::Labels(probabilities) => sets(labels, &probabilities)?,
            Predictions::Numbers(numbers) => numbers
                .iter()
                .map(|number| json!({ "number": number }))
                .collect(),
            Predictions::Pairs { scores, clones } => scores
                .iter()
                .zip(clones)
                .map(|(score, clone)| json!({ "label": i32::from(clone), "score": score }))
                .collect(),
            Predictions::Vectors(vectors) => self.found(records, &vectors)?,
        };
        if self.logits {
            let logits = logits.ok_or_else(|| Error::Usage {
                problem: "`--logits` is of classifiers, and this run has no classes".into(),
                hint: "leave it out".into(),
            })?;
            for (line, logits) in lines.iter_mut().zip(rows(&logits)?) {
                line["logits"] = json!(logits);
            }
        }
        Ok(lines)
    }

    /// What is found for each of `vectors`, or where nothing is searched the vector itself.
    fn found(&self, queries: &[Record], vectors: &Tensor) -> Result<Vec<Value>, Error> {
        match &self.base {
            Base::Nothing => {
                let rows = rows(vectors)?.into_iter();
                Ok(rows.map(|row| json!({ "embedding": row })).collect())
            }
            Base::Records(base, codes) => {
                let hits = best(vectors, codes, self.top)?;
                let record = |record: usize| Ok(base.records[record].fields.clone());
                matches(queries, hits, record)
            }
            Base::Index(index) => {
                let hits = index.search(vectors, self.top)?;
                matches(queries, hits, |record| Ok(index.record(record)?))
            }
        }
    }
}

fn classify(labels: Option<&Labels>, probabilities: &Tensor) -> Result<Vec<Value>, Error> {
    let labels = known(labels);
    let lines = rows(probabilities)?.into_iter().map(|probabilities| {
        let likeliest = (0..probabilities.len())
            .max_by(|&a, &b| probabilities[a].total_cmp(&probabilities[b]))
            .unwrap_or_default();
        json!({ "label": labels.label(likeliest), "probabilities": by_label(labels, &probabilities) })
    });
    Ok(lines.collect())
}

/// The labels that are as likely as not and more, and every label's probability.
fn sets(labels: Option<&Labels>, probabilities: &Tensor) -> Result<Vec<Value>, Error> {
    let labels = known(labels);
    let lines = rows(probabilities)?.into_iter().map(|probabilities| {
        let likely = labels.iter().zip(&probabilities);
        let likely = likely.filter(|(_, probability)| **probability >= 0.5);
        let likely: Vec<Value> = likely.map(|(label, _)| json!(label)).collect();
        json!({ "labels": likely, "probabilities": by_label(labels, &probabilities) })
    });
    Ok(lines.collect())
}

fn known(labels: Option<&Labels>) -> &Labels {
    labels.unwrap_or_else(|| unreachable!("who has classes has their labels"))
}

fn by_label(labels: &Labels, probabilities: &[f32]) -> Map<String, Value> {
    let named = labels
        .iter()
        .zip(probabilities)
        .map(|(label, probability)| {
            let name = json!(label);
            let name = name
                .as_str()
                .map_or_else(|| name.to_string(), str::to_owned);
            (name, json!(probability))
        });
    named.collect()
}

/// The `top` best of `codes` for each of `queries`.
fn best(queries: &Tensor, codes: &Tensor, top: usize) -> Result<Vec<Vec<Hit>>, Error> {
    let mut best = Vec::new();
    for row in 0..queries.dim(0).map_err(tensor)? {
        let query = queries.narrow(0, row, 1).map_err(tensor)?;
        let mut hits = Top::new(top);
        let scores = rows(&similarity(&query, codes)?)?.concat();
        for (record, score) in scores.into_iter().enumerate() {
            hits.offer(Hit { score, record });
        }
        best.push(hits.into_hits());
    }
    Ok(best)
}

/// A line for each of `queries` with its `hits`; `record` tells what was found.
fn matches(
    queries: &[Record],
    hits: Vec<Vec<Hit>>,
    record: impl Fn(usize) -> Result<Map<String, Value>, Error>,
) -> Result<Vec<Value>, Error> {
    let lines = queries.iter().zip(hits).map(|(query, hits)| {
        let hits = hits.into_iter().enumerate().map(|(place, hit)| {
            Ok(json!({
                "rank": place + 1,
                "index": hit.record,
                "score": hit.score,
                "record": record(hit.record)?,
            }))
        });
        let hits = hits.collect::<Result<Vec<Value>, Error>>()?;
        Ok(json!({ "query": query.fields, "matches": hits }))
    });
    lines.collect()
}

fn rows(matrix: &Tensor) -> Result<Vec<Vec<f32>>, Error> {
    matrix.to_vec2().map_err(tensor)
}

pub(super) fn tensor(error: candle_core::Error) -> Error {
    Error::Trainable(error.into())
}
