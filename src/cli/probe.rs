//! `telly probe`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Map, Value, json};

use super::console;
use super::options::{RuntimeOptions, limit_threads};
use super::output_file::place;
use super::probe_texts::TextOptions;
use super::studied::{Studied, StudiedOptions};
use super::sweep_folder::unique;
use crate::error::Error;
use crate::publish::publish;
use crate::study;
use crate::study::probe::{
    Control, Features, Finding, LabelOrder, Probe, SplitFeatures, Suite, TextForm, randomize,
};
use crate::task::Encoding;

/// Tell what each layer of a model knows of code, by how well a linear map reads it from there.
///
/// Token classes (lexical), syntax trees (syntactic), cyclomatic complexity (structural) and problems
/// solved (semantic), as tree-sitter and the data label them; each layer by itself, and all layers mixed
/// with learned weights. Layer 0 is the embeddings. docs/study.md says what the numbers mean.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly probe models/unixcoder-base --data train.jsonl --test test.jsonl --language python
  telly probe runs/search --data functions.jsonl --language java --probe lexical,structural --json
  telly probe models/unixcoder-base --data poj104 --test poj104 --language cpp --probe semantic")]
pub(super) struct ProbeArguments {
    /// Folder of a checkpoint or of a finished run, or owner/name[@revision] of a model on the hub.
    #[arg(value_name = "MODEL")]
    studied: PathBuf,
    #[command(flatten)]
    model: StudiedOptions,
    #[command(flatten)]
    texts: TextOptions,
    /// What to look for.
    #[arg(
        long,
        value_enum,
        value_name = "PROBE,PROBE",
        value_delimiter = ',',
        default_value = "lexical,syntactic,structural",
        help_heading = "Probes"
    )]
    probe: Vec<Probe>,
    /// What to set beside it: the same model with random weights, the same labels in random order.
    #[arg(
        long,
        value_enum,
        value_name = "CONTROL,CONTROL",
        value_delimiter = ',',
        default_value = "weights",
        help_heading = "Probes"
    )]
    control: Vec<Control>,
    /// lexical: tokens to learn from at most, and to test on.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10_000,
        help_heading = "Probes"
    )]
    tokens: usize,
    /// Of what is drawn, of random weights and of the order that probes learn in.
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Probes")]
    seed: u64,
    /// Write what probes see, and the labels, as a safetensors file.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    features: Option<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeOptions,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ProbeArguments) -> Result<(), Error> {
    let started = Instant::now();
    limit_threads(arguments.runtime.threads)?;
    let probes = wanted(arguments)?;
    let has = |control| arguments.control.contains(&control);
    let mut studied = arguments.model.open(&arguments.studied)?;
    let max_length = arguments.model.max_length([&studied]);
    let mode_token = match studied.text_encoding(None, max_length)? {
        Encoding::Classify { mode_token, .. } => mode_token,
        _ => None,
    };
    let form = TextForm {
        mode_token: mode_token.as_deref(),
        max_length,
    };
    let file = arguments.features.as_deref();
    let file = file.map(|path| place("--features", path)).transpose()?;
    let [train, test] = arguments.texts.read(&probes, arguments.seed)?;
    let suite = Suite {
        train,
        test,
        tokens: arguments.tokens,
        seed: arguments.seed,
    };
    let name = studied.path.display().to_string();
    let features = compute(&suite, &studied, form, &probes, arguments, &name)?;
    if let Some((folder, name)) = &file {
        write_features(folder, name, &features)?;
    }
    let told = |error: study::Error| match (&arguments.features, error) {
        (Some(path), study::Error::Interrupted) => Error::Interrupted {
            kept: format!("`{}` is written", path.display()),
        },
        (_, other) => other.into(),
    };
    let cut = cut(&features);
    let training = Instant::now();
    let mut found = Vec::new();
    for &probe in &probes {
        let own = suite.probe(probe, &features, LabelOrder::Own, probe.name());
        let mut finding = Finding::new(probe, &own.map_err(told)?);
        if has(Control::Labels) {
            let label = format!("{}, random labels", probe.name());
            let result = suite.probe(probe, &features, LabelOrder::Random, &label);
            finding.set_beside(Control::Labels, &result.map_err(told)?);
        }
        found.push(finding);
    }
    let mut train_seconds = training.elapsed().as_secs_f64();
    if has(Control::Weights) {
        drop(features);
        randomize(&mut studied.checkpoint, arguments.seed);
        let label = "random weights";
        let features = compute(&suite, &studied, form, &probes, arguments, label)?;
        let training = Instant::now();
        for finding in &mut found {
            let label = format!("{}, random weights", finding.probe.name());
            let result = suite.probe(finding.probe, &features, LabelOrder::Own, &label);
            finding.set_beside(Control::Weights, &result.map_err(told)?);
        }
        train_seconds += training.elapsed().as_secs_f64();
    }
    if !arguments.json {
        return print(&found);
    }
    let object = json!({
        "model": name,
        "texts": { "train": suite.train.len(), "test": suite.test.len() },
        "problems": suite.problems(&probes),
        "cut": cut,
        "max_length": max_length,
        "seed": arguments.seed,
        "seconds": started.elapsed().as_secs_f64(),
        "train_seconds": train_seconds,
        "probes": found,
    });
    console::print(&object.to_string())
}

/// The probes that are asked for, each once; refuses what leaves nothing to look at.
fn wanted(arguments: &ProbeArguments) -> Result<Vec<Probe>, Error> {
    for (flag, number) in [
        ("--tokens", arguments.tokens),
        ("--limit", arguments.texts.limit),
        ("--test-limit", arguments.texts.test_limit),
    ] {
        if number == 0 {
            return Err(Error::Usage {
                problem: format!("`{flag} 0` leaves nothing to look at"),
                hint: "pass at least 1, or leave the flag out".into(),
            });
        }
    }
    let has = |control| arguments.control.contains(&control);
    if has(Control::None) && (has(Control::Weights) || has(Control::Labels)) {
        return Err(Error::Usage {
            problem: "`--control` names none and others".into(),
            hint: "pass none alone, or leave it out".into(),
        });
    }
    Ok(unique(arguments.probe.clone()))
}

/// The shares of the texts that are longer than the model was given of them.
fn cut(splits: &[SplitFeatures; 2]) -> Map<String, Value> {
    let texts: usize = splits.iter().map(|split| split.codes.examples()).sum();
    let share = |cut: usize| json!(cut as f64 / texts as f64);
    let codes = splits.iter().map(|split| split.codes_cut).sum();
    let mut shares = Map::from_iter([("codes".to_owned(), share(codes))]);
    let traversals = splits
        .iter()
        .map(|split| Some(split.traversals.as_ref()?.cut));
    if let Some(cut) = traversals.sum() {
        shares.insert("traversals".into(), share(cut));
    }
    shares
}

/// What the model makes of the texts.
fn compute(
    suite: &Suite,
    studied: &Studied,
    form: TextForm,
    probes: &[Probe],
    arguments: &ProbeArguments,
    label: &str,
) -> Result<[SplitFeatures; 2], Error> {
    let mut frozen = studied.frozen(&arguments.runtime, form.max_length)?;
    Ok(suite.features(&studied.checkpoint, &mut frozen, form, probes, label)?)
}

fn print(found: &[Finding]) -> Result<(), Error> {
    for (place, finding) in found.iter().enumerate() {
        if place > 0 {
            console::print("")?;
        }
        console::print(&finding.summary())?;
        let rows = finding.rows().map(|(name, reading, weight)| {
            let controls = reading.controls().map(|(_, value)| value);
            let values = std::iter::once(reading.value).chain(controls);
            let values = values.map(|value| format!("{value:.4}"));
            let weight = weight.map_or_else(String::new, |weight| format!("{weight:.3}"));
            std::iter::once(name)
                .chain(values)
                .chain([weight])
                .collect()
        });
        let rows: Vec<Vec<String>> = std::iter::once(finding.columns()).chain(rows).collect();
        console::table(&rows)?;
    }
    Ok(())
}

/// Writes `splits` as tensors: features `[examples, layers, hidden]` as they are before a probe scales
/// them, and labels.
fn write_features(folder: &Path, name: &str, splits: &[SplitFeatures; 2]) -> Result<(), Error> {
    let mut tensors: Vec<(String, Dtype, Vec<usize>, &[u8])> = Vec::new();
    for (split, name) in splits.iter().zip(["train", "test"]) {
        let tokens = split.tokens.as_ref();
        let traversals = split.traversals.as_ref();
        let found = [
            ("codes", Dtype::F32, Some(cube(&split.codes))),
            (
                "traversals",
                Dtype::F32,
                traversals.map(|trees| cube(&trees.features)),
            ),
            (
                "tokens",
                Dtype::F32,
                tokens.map(|tokens| cube(&tokens.features)),
            ),
            ("complexities", Dtype::U32, Some(row(&split.complexities))),
            (
                "token_classes",
                Dtype::U32,
                tokens.map(|tokens| row(&tokens.classes)),
            ),
            ("groups", Dtype::I64, split.groups.as_deref().map(row)),
            (
                "traversal_groups",
                Dtype::I64,
                traversals.map(|trees| row(&trees.groups)),
            ),
        ];
        for (what, dtype, tensor) in found {
            if let Some((shape, bytes)) = tensor {
                tensors.push((format!("{name}.{what}"), dtype, shape, bytes));
            }
        }
    }
    let views = tensors.into_iter().map(|(name, dtype, shape, bytes)| {
        let view = TensorView::new(dtype, shape, bytes)
            .unwrap_or_else(|_| unreachable!("the bytes are those of the shape"));
        (name, view)
    });
    let bytes = safetensors::serialize(views, None)
        .unwrap_or_else(|_| unreachable!("names and shapes are good"));
    publish(folder, name, &bytes).map_err(Error::Output)
}

/// Shape `[examples, layers, width]` and bytes of `features`.
fn cube(features: &Features) -> (Vec<usize>, &[u8]) {
    let shape = vec![features.examples(), features.layers(), features.width()];
    (shape, bytemuck::cast_slice(features.values()))
}

/// Shape `[numbers]` and bytes of `numbers`.
fn row<T: bytemuck::NoUninit>(numbers: &[T]) -> (Vec<usize>, &[u8]) {
    (vec![numbers.len()], bytemuck::cast_slice(numbers))
}
