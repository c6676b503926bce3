//! `telly rsa`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use serde_json::{Value, json};

use super::compared::{Asked, Compared};
use super::console;
use super::options::{RuntimeOptions, limit_threads};
use super::studied::StudiedOptions;
use crate::error::Error;
use crate::interrupt;
use crate::progress::Progress;
use crate::study::{
    self, Estimate, LayerSimilarity, LayerVectors, Resamples, TextPooling, compare,
};

/// Tell how alike two checkpoints are at each layer, by what they make of the same texts.
///
/// Representational similarity analysis: of each checkpoint the cosines of all pairs of texts, and the
/// correlation of both's. 1 is a layer that relates the texts to each other as the other's does. Layer
/// 0 is the embeddings. docs/study.md says what the numbers mean.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly rsa models/unixcoder-base runs/search --data test.jsonl --text-field code
  telly rsa models/unixcoder-base runs/search --data train.jsonl --limit 5000 --pooling unmasked
  telly rsa runs/freeze-4 runs/freeze-none --data test.jsonl --json
  telly precompute --pooled --model models/unixcoder-base --data test.jsonl --cache cache/base
  telly rsa cache/base runs/search      (the base model is not run again; the same texts)

Layers that a run has frozen are 1 exactly, beside the checkpoint that it was trained from.")]
pub(super) struct RsaArguments {
    /// The first: folder of a checkpoint or of a finished run, owner/name[@revision] of a model on the
    /// hub, or the --cache of `telly precompute --pooled` or the file in it.
    #[arg(value_name = "A")]
    first: PathBuf,
    /// The second.
    #[arg(value_name = "B")]
    second: PathBuf,
    #[command(flatten)]
    models: StudiedOptions,
    /// Texts: JSON Lines, a JSON array, .csv, .tsv (each in .gz or .zst too) or .parquet; or a folder
    /// with a test split; `-` is stdin, as JSON Lines [default: where those of kept vectors were].
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    data: Option<PathBuf>,
    /// Field of the text [default: that of kept vectors, or the first of text, sentence, func, code].
    #[arg(long, value_name = "FIELD", help_heading = "Input")]
    text_field: Option<String>,
    /// Compare by so many texts, from the first on [default: all that vectors are kept of, or 1000].
    #[arg(long, value_name = "N", help_heading = "Input")]
    limit: Option<usize>,
    /// What a text's vector is the mean over [default: that of kept vectors, or masked].
    #[arg(long, value_enum, help_heading = "Comparison")]
    pooling: Option<TextPooling>,
    /// Resamples of the texts, which the 95 % intervals come from; 0 for no intervals.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 200,
        help_heading = "Comparison"
    )]
    bootstrap: usize,
    /// Of the resamples.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 0,
        help_heading = "Comparison"
    )]
    seed: u64,
    #[command(flatten)]
    runtime: RuntimeOptions,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &RsaArguments) -> Result<(), Error> {
    let started = Instant::now();
    limit_threads(arguments.runtime.threads)?;
    let asked = Asked {
        data: arguments.data.as_deref(),
        text_field: arguments.text_field.as_deref(),
        limit: arguments.limit,
        pooling: arguments.pooling,
        running: arguments.runtime.passed(),
    };
    let paths = [arguments.first.as_path(), arguments.second.as_path()];
    let compared = Compared::open(paths, &arguments.models, &asked)?;
    let (max_length, pooling) = (compared.form().max_length, compared.form().pooling);
    let [first, second] = compared.vectors(&arguments.runtime)?;
    let comparing = Instant::now();
    let resamples = Resamples::draw(first.texts, arguments.bootstrap, arguments.seed);
    let layers = compare_layers([&first, &second], &resamples)?;
    let compare_seconds = comparing.elapsed().as_secs_f64();
    say_alike(&layers, paths);
    if !arguments.json {
        return console::table(&table(&layers));
    }
    let layers = layers.iter().enumerate();
    let layers: Vec<Value> = layers
        .map(|(layer, found)| describe(layer, found))
        .collect();
    let object = json!({
        "a": arguments.first.display().to_string(),
        "b": arguments.second.display().to_string(),
        "texts": first.texts,
        "pooling": pooling,
        "max_length": max_length,
        "bootstrap": arguments.bootstrap,
        "seed": arguments.seed,
        "seconds": started.elapsed().as_secs_f64(),
        "compare_seconds": compare_seconds,
        "layers": layers,
    });
    console::print(&object.to_string())
}

fn compare_layers(
    vectors: [&LayerVectors; 2],
    resamples: &Resamples,
) -> Result<Vec<LayerSimilarity>, Error> {
    let layers = vectors[0].layers.iter().zip(&vectors[1].layers);
    let mut progress = Progress::new("compare", layers.len() as u64, "layers");
    let layers = layers.map(|(first, second)| {
        if interrupt::requested() {
            return Err(study::Error::Interrupted.into());
        }
        let found = compare([first, second], resamples)?;
        progress.advance(1);
        Ok(found)
    });
    layers.collect()
}

/// Says where a number is not defined, and why.
fn say_alike(layers: &[LayerSimilarity], paths: [&Path; 2]) {
    for (layer, found) in layers.iter().enumerate() {
        for (path, alike) in paths.into_iter().zip(found.alike) {
            if alike {
                console::say(&format!(
                    "layer {layer}: to `{}` all pairs of texts are equally alike, so there is no correlation",
                    path.display()
                ));
            }
        }
    }
}

fn table(layers: &[LayerSimilarity]) -> Vec<Vec<String>> {
    let cell = |estimate: Option<Estimate>| match estimate {
        None => "-".into(),
        Some(Estimate {
            value,
            interval: Some([low, high]),
        }) => format!("{value:.4} [{low:.4}, {high:.4}]"),
        Some(Estimate { value, .. }) => format!("{value:.4}"),
    };
    let heading = ["layer", "Pearson [95 %]", "Spearman [95 %]", "CKA [95 %]"];
    let rows = layers.iter().enumerate().map(|(layer, found)| {
        let cells = [found.pearson, found.spearman, found.cka].map(cell);
        std::iter::once(layer.to_string()).chain(cells).collect()
    });
    std::iter::once(heading.map(String::from).to_vec())
        .chain(rows)
        .collect()
}

fn describe(layer: usize, found: &LayerSimilarity) -> Value {
    let value = |estimate: Option<Estimate>| estimate.map(|estimate| estimate.value);
    let interval = |estimate: Option<Estimate>| estimate.and_then(|estimate| estimate.interval);
    json!({
        "layer": layer,
        "pearson": value(found.pearson),
        "pearson_interval": interval(found.pearson),
        "spearman": value(found.spearman),
        "spearman_interval": interval(found.spearman),
        "cka": value(found.cka),
        "cka_interval": interval(found.cka),
    })
}
