//! `telly index`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value, json};

use super::chunks::{self, Chunks, RECORDS};
use super::console;
use super::embedder::Embedder;
use super::model::{LoadedModel, ModelOptions};
use crate::dataset::Record;
use crate::error::Error;
use crate::index::{self, DESCRIPTION, Description, IndexWriter, VectorType};
use crate::progress::Progress;
use crate::publish_folder::publish_folder;

/// Store the vectors of a code base, for `telly predict --index` to search.
///
/// Every query is compared with every vector, so what is found is exact. The folder holds the
/// vectors (safetensors, mapped when they are read) and the records that they stand for.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly index --run runs/search --input code.jsonl --out index/code
  telly index --run runs/search --input code.jsonl --keep path,name --dtype fp16 --out index/code
  telly predict --run runs/search --index index/code --input queries.jsonl --output found.jsonl")]
pub(super) struct IndexArguments {
    #[command(flatten)]
    model: ModelOptions,
    /// Records whose code is to be found; `-` is stdin, as JSON Lines.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    input: PathBuf,
    /// Folder to write.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    out: PathBuf,
    /// Fields of a record that are told when it is found, separated by commas [default: all].
    #[arg(
        long,
        value_name = "FIELDS",
        value_delimiter = ',',
        help_heading = "Output"
    )]
    keep: Vec<String>,
    /// How vectors are stored [default: f32].
    #[arg(long, value_enum, help_heading = "Output")]
    dtype: Option<VectorType>,
    /// Run all layers in 8-bit integers: faster on CPUs, and a little off.
    #[arg(long, help_heading = "Running")]
    quantize: bool,
    /// Replace an earlier index.
    #[arg(long)]
    force: bool,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &IndexArguments) -> Result<(), Error> {
    let (loaded, source) = arguments.model.load(&arguments.input)?;
    let mut input = Chunks::open(&source, RECORDS)?;
    if !loaded.encoding.is_searched() {
        return Err(Error::Usage {
            problem: format!(
                "an index is of `--task search`, and of `--task clone` by groups; this is `--task {}`",
                loaded.encoding.task()
            ),
            hint: "pass a run that was trained to find".into(),
        });
    }
    let started = Instant::now();
    let description = publish_folder(&arguments.out, DESCRIPTION, arguments.force, |folder| {
        let stored = arguments.dtype.unwrap_or_default();
        let width = loaded.checkpoint.config.hidden_size;
        let writer = IndexWriter::new(folder, loaded.fingerprint.clone(), width, stored)?;
        fill(arguments, &loaded, &mut input, writer)
    })?;
    let seconds = started.elapsed().as_secs_f64();
    let object = Map::from_iter([
        ("records".to_owned(), json!(description.records)),
        ("width".to_owned(), json!(description.width)),
        ("seconds".to_owned(), json!(seconds)),
        ("out".to_owned(), json!(arguments.out.display().to_string())),
    ]);
    console::result(arguments.json, &object)
}

fn fill(
    arguments: &IndexArguments,
    loaded: &LoadedModel,
    input: &mut Chunks,
    mut writer: IndexWriter,
) -> Result<Description, Error> {
    let mut embedder = Embedder::new(loaded, arguments.quantize)?;
    let mut progress = Progress::new("index", chunks::count(&arguments.input), "records");
    while let Some(chunk) = input.next()? {
        let encoded = loaded.encoding.encode_codes(&chunk, &loaded.checkpoint)?;
        let encoded = encoded.unwrap_or_else(|| unreachable!("asked above"));
        let vectors = embedder.embed_one(encoded)?;
        let vectors = vectors.to_vec2::<f32>().map_err(super::predict::tensor)?;
        for (record, vector) in chunk.records.iter().zip(&vectors) {
            writer.add(vector, &kept(record, &arguments.keep))?;
        }
        progress.advance(vectors.len() as u64);
    }
    Ok(writer.finish()?)
}

/// The fields of `record` that are kept; all if none is named.
fn kept(record: &Record, names: &[String]) -> Map<String, Value> {
    if names.is_empty() {
        return record.fields.clone();
    }
    let fields = names.iter().filter_map(|name| {
        let value = record.fields.get(name)?;
        Some((name.clone(), value.clone()))
    });
    fields.collect()
}

impl From<crate::publish_folder::FolderError> for Error {
    fn from(error: crate::publish_folder::FolderError) -> Self {
        Self::Index(index::Error::from(error))
    }
}
