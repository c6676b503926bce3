//! `telly probe`.

pub(super) mod texts;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use serde_json::{Map, Value, json};

use crate::cli::console;
use crate::cli::options::{RuntimeOptions, first_passed, limit_threads};
use crate::cli::output_file::place;
use crate::cli::studied::{Studied, StudiedOptions};
use crate::cli::sweep::folder::unique;
use crate::error::Error;
use crate::study;
use crate::study::probe::{
    Control, FeaturesSource, Finding, LabelOrder, Probe, ProbeResult, Problems, Reference,
    SplitFeatures, Suite, TextForm, probe_splits, randomize,
};
use texts::{TextOptions, at_least_one};

/// What is looked for, unless told.
const USUAL: [Probe; 3] = [Probe::Lexical, Probe::Syntactic, Probe::Structural];
/// Tokens of the lexical probe, unless told.
const TOKENS: usize = 10_000;

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
  telly probe models/unixcoder-base --data poj104 --test poj104 --language cpp --probe semantic
  telly probe models/unixcoder-base --data functions.jsonl --language go --features go.safetensors
  telly probe go.safetensors --seed 2 --control labels      (the model is not run again)
  telly probe runs/search --beside models/unixcoder-base --data functions.jsonl --language java")]
pub(super) struct ProbeArguments {
    /// Folder of a checkpoint or of a finished run, or owner/name[@revision] of a model on the hub; or a
    /// file of --features, which needs no data.
    #[arg(value_name = "MODEL")]
    studied: PathBuf,
    #[command(flatten)]
    model: StudiedOptions,
    #[command(flatten)]
    texts: TextOptions,
    /// What to look for [default: lexical,syntactic,structural; all that a file of --features is for].
    #[arg(
        long,
        value_enum,
        value_name = "PROBE,PROBE",
        value_delimiter = ',',
        help_heading = "Probes"
    )]
    probe: Option<Vec<Probe>>,
    /// What to set beside it: the same model with random weights, the same labels in random order
    /// [default: weights; with --beside, and of a file of --features, none].
    #[arg(
        long,
        value_enum,
        value_name = "CONTROL,CONTROL",
        value_delimiter = ',',
        help_heading = "Probes"
    )]
    control: Option<Vec<Control>>,
    /// Another checkpoint or run with as many layers, as what a run was trained from: the same probes on it, and
    /// how far above it each layer is. --model is that of both.
    #[arg(long, value_name = "MODEL", help_heading = "Probes")]
    beside: Option<PathBuf>,
    /// lexical: tokens to learn from at most, and to test on [default: 10000].
    #[arg(long, value_name = "N", help_heading = "Probes")]
    tokens: Option<usize>,
    /// Of what is drawn, of random weights and of the order that probes learn in [default: 0, or that of a file
    /// of --features, where texts and tokens are drawn already].
    #[arg(long, value_name = "N", help_heading = "Probes")]
    seed: Option<u64>,
    /// Write what probes see, and the labels, as a safetensors file, to probe again or to read in Python.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    features: Option<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeOptions,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// What is said of a finding besides the finding.
struct Facts {
    source: FeaturesSource,
    /// That probes learnt by.
    seed: u64,
    /// To learn from and to test on.
    texts: [usize; 2],
    problems: Option<Problems>,
    cut: Map<String, Value>,
}

impl Facts {
    fn of(source: FeaturesSource, splits: &[SplitFeatures; 2], seed: u64) -> Self {
        Self {
            seed,
            source,
            texts: splits.each_ref().map(|split| split.codes.examples()),
            problems: Problems::of(splits),
            cut: cut(splits),
        }
    }
}

pub(super) fn run(arguments: &ProbeArguments) -> Result<(), Error> {
    let started = Instant::now();
    limit_threads(arguments.runtime.threads)?;
    if arguments.studied.is_file() {
        return run_again(arguments, started);
    }
    let probes = match &arguments.probe {
        Some(probes) => unique(probes.clone()),
        None => USUAL.to_vec(),
    };
    let usual = match arguments.beside {
        Some(_) => Control::None,
        None => Control::Weights,
    };
    let controls = controls(arguments, usual)?;
    let tokens = at_least_one("--tokens", arguments.tokens.unwrap_or(TOKENS))?;
    let seed = arguments.seed.unwrap_or(0);
    arguments.texts.check(&arguments.studied)?;
    let mut studied = arguments.model.open(&arguments.studied)?;
    let beside = arguments.beside.as_deref();
    if let Some(file) = beside.filter(|path| path.is_file()) {
        return Err(Error::Usage {
            problem: format!(
                "`--beside {}` is a file, expected the folder of a model",
                file.display()
            ),
            hint: "name the checkpoint or the run whose features it has".into(),
        });
    }
    let beside = beside.map(|path| arguments.model.open(path)).transpose()?;
    if let Some(beside) = &beside {
        same_layers(beside, &studied)?;
    }
    let both = || [&studied].into_iter().chain(&beside);
    let max_length = arguments.model.max_length(both());
    // What one cannot take is told before the other one is run.
    both().try_for_each(|studied| studied.mode_token(max_length).map(drop))?;
    let file = arguments.features.as_deref();
    let file = file.map(|path| place("--features", path)).transpose()?;
    let [train, test] = arguments.texts.read(&probes, seed)?;
    let suite = Suite {
        train,
        test,
        tokens,
        seed,
    };
    let name = studied.path.display().to_string();
    let features = |studied: &Studied, label: &str| {
        let mode_token = studied.mode_token(max_length)?;
        let form = TextForm {
            mode_token: mode_token.as_deref(),
            max_length,
        };
        let mut frozen = studied.frozen(&arguments.runtime, max_length)?;
        let made = suite.features(&studied.checkpoint, &mut frozen, form, &probes, label);
        made.map_err(Error::from)
    };
    let splits = features(&studied, &name)?;
    let source = FeaturesSource::new(name, max_length, seed, probes.clone(), &splits);
    if let Some((folder, name)) = &file {
        source.write(folder, name, &splits)?;
    }
    let told = |error: study::Error| match (&arguments.features, error) {
        (Some(path), study::Error::Interrupted) => Error::Interrupted {
            kept: format!("`{}` is written", path.display()),
        },
        (_, other) => other.into(),
    };
    let training = Instant::now();
    let labels = controls.contains(&Control::Labels);
    let mut found = find(&probes, &splits, labels, seed).map_err(told)?;
    let mut train_seconds = training.elapsed().as_secs_f64();
    let facts = Facts::of(source, &splits, seed);
    drop(splits);
    let mut set_beside = |studied: &Studied, reference, name: &str| {
        let splits = features(studied, name).map_err(|error| match error {
            Error::Study(error) => told(error),
            other => other,
        })?;
        let training = Instant::now();
        for (finding, own) in &mut found {
            let probe = finding.probe;
            let label = format!("{}, {name}", probe.name());
            let result = probe_splits(probe, &splits, LabelOrder::Own, seed, &label);
            finding.set_beside(reference, own, &result.map_err(told)?);
        }
        train_seconds += training.elapsed().as_secs_f64();
        Ok::<_, Error>(())
    };
    if controls.contains(&Control::Weights) {
        randomize(&mut studied.checkpoint, seed);
        set_beside(&studied, Reference::RandomWeights, "random weights")?;
    }
    if let Some(beside) = &beside {
        set_beside(
            beside,
            Reference::Beside,
            &beside.path.display().to_string(),
        )?;
    }
    let seconds = [started.elapsed().as_secs_f64(), train_seconds];
    tell(arguments, &facts, found, seconds)
}

/// Refuses models whose layers are no pairs.
fn same_layers(beside: &Studied, studied: &Studied) -> Result<(), Error> {
    let (found, expected) = (beside.layers(), studied.layers());
    if found == expected {
        return Ok(());
    }
    Err(study::Error::Layers { found, expected }.into())
}

/// Probes what is in a file of `--features`.
fn run_again(arguments: &ProbeArguments, started: Instant) -> Result<(), Error> {
    let path = &arguments.studied;
    let (source, splits) = FeaturesSource::read(path)?;
    let unused = first_passed(&[
        ("--model", arguments.model.model.is_some()),
        ("--max-length", arguments.model.max_length.is_some()),
        ("--tokens", arguments.tokens.is_some()),
        ("--features", arguments.features.is_some()),
    ]);
    let running = arguments.runtime.passed();
    if let Some(flag) = arguments.texts.passed().or(unused).or(running) {
        return Err(Error::Usage {
            problem: format!(
                "`{flag}` has nothing to act on: `{}` has what the model made of its texts",
                path.display()
            ),
            hint: "leave it out, or name the model instead of the file".into(),
        });
    }
    let controls = controls(arguments, Control::None)?;
    let runs_a_model = first_passed(&[
        ("--control weights", controls.contains(&Control::Weights)),
        ("--beside", arguments.beside.is_some()),
    ]);
    if let Some(flag) = runs_a_model {
        return Err(Error::Usage {
            problem: format!(
                "`{flag}` runs a model, and `{}` is a file of features",
                path.display()
            ),
            hint: "leave it out, or name the model instead of the file".into(),
        });
    }
    let probes = match &arguments.probe {
        Some(probes) => unique(probes.clone()),
        None => source.probes.clone(),
    };
    // Whatever else they are for, there are functions and their complexity.
    let is_there = |probe: &Probe| *probe == Probe::Structural || source.probes.contains(probe);
    if let Some(missing) = probes.iter().find(|probe| !is_there(probe)) {
        return Err(Error::Usage {
            problem: format!(
                "`{}` has no features for the {} probe",
                path.display(),
                missing.name()
            ),
            hint: "make it again with this `--probe` as well, by the same `telly probe --features`"
                .into(),
        });
    }
    let training = Instant::now();
    let labels = controls.contains(&Control::Labels);
    let seed = arguments.seed.unwrap_or(source.seed);
    let found = find(&probes, &splits, labels, seed)?;
    let train_seconds = training.elapsed().as_secs_f64();
    let seconds = [started.elapsed().as_secs_f64(), train_seconds];
    tell(arguments, &Facts::of(source, &splits, seed), found, seconds)
}

/// What to set beside the findings: `usual` unless told.
fn controls(arguments: &ProbeArguments, usual: Control) -> Result<Vec<Control>, Error> {
    let controls = arguments.control.clone().unwrap_or_else(|| vec![usual]);
    if controls.contains(&Control::None) && controls.iter().any(|control| *control != Control::None)
    {
        return Err(Error::Usage {
            problem: "`--control` names none and others".into(),
            hint: "pass none alone, or leave it out".into(),
        });
    }
    Ok(controls)
}

/// Trains and tests `probes` on what a model made of the texts, with `labels` on labels in random order,
/// too: what each found, and what that came of.
fn find(
    probes: &[Probe],
    splits: &[SplitFeatures; 2],
    labels: bool,
    seed: u64,
) -> Result<Vec<(Finding, ProbeResult)>, study::Error> {
    let mut found = Vec::new();
    for &probe in probes {
        let own = probe_splits(probe, splits, LabelOrder::Own, seed, probe.name())?;
        let mut finding = Finding::new(probe, &own);
        if labels {
            let label = format!("{}, random labels", probe.name());
            let result = probe_splits(probe, splits, LabelOrder::Random, seed, &label)?;
            finding.set_beside(Reference::RandomLabels, &own, &result);
        }
        found.push((finding, own));
    }
    Ok(found)
}

/// The result; `seconds` are those of all and of training.
fn tell(
    arguments: &ProbeArguments,
    facts: &Facts,
    found: Vec<(Finding, ProbeResult)>,
    [seconds, train_seconds]: [f64; 2],
) -> Result<(), Error> {
    let found = found.into_iter().map(|(finding, _)| finding);
    let found: Vec<Finding> = found.collect();
    if !arguments.json {
        if let Some(beside) = &arguments.beside {
            console::print(&format!("beside: {}\n", beside.display()))?;
        }
        return print(&found);
    }
    let [train, test] = facts.texts;
    let object = json!({
        "model": facts.source.model,
        "beside": arguments.beside.as_ref().map(|path| path.display().to_string()),
        "texts": { "train": train, "test": test },
        "problems": facts.problems,
        "cut": facts.cut,
        "max_length": facts.source.max_length,
        "seed": facts.seed,
        "seconds": seconds,
        "train_seconds": train_seconds,
        "probes": found,
    });
    console::print(&object.to_string())
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

fn print(found: &[Finding]) -> Result<(), Error> {
    for (place, finding) in found.iter().enumerate() {
        if place > 0 {
            console::print("")?;
        }
        console::print(&finding.summary())?;
        let rows = std::iter::once(finding.columns()).chain(finding.rows());
        let rows: Vec<Vec<String>> = rows.collect();
        console::table(&rows)?;
    }
    Ok(())
}
