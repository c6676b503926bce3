//! `telly runs`.

use std::collections::BTreeSet;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand};
use indicatif::HumanDuration;
use serde_json::{Map, Value, json};

use super::chart::{chart, range, sparkline};
use super::console;
use crate::error::Error;
use crate::train::{FoundRuns, History, RecordedRun, find_runs};

/// Look at what has been trained.
#[derive(Subcommand)]
pub(super) enum RunsCommand {
    /// List the runs in a folder.
    List(ListArguments),
    /// Set runs side by side: the settings that differ, metrics, curves.
    Compare(CompareArguments),
}

#[derive(Args)]
#[command(after_help = "Example:\n  telly runs list runs")]
pub(super) struct ListArguments {
    /// Where runs are looked for.
    #[arg(default_value = "runs")]
    folder: PathBuf,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[command(after_help = "Example:\n  telly runs compare runs/mine-1 runs/mine-2")]
pub(super) struct CompareArguments {
    /// Folders of the runs.
    #[arg(required = true, num_args = 2.., value_name = "RUN")]
    runs: Vec<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &RunsCommand) -> Result<(), Error> {
    match command {
        RunsCommand::List(arguments) => list(arguments),
        RunsCommand::Compare(arguments) => compare(arguments),
    }
}

fn list(arguments: &ListArguments) -> Result<(), Error> {
    let FoundRuns { runs, unreadable } = find_runs(&arguments.folder)?;
    for (folder, error) in unreadable {
        console::say(&format!("`{}` cannot be read: {error}", folder.display()));
    }
    if arguments.json {
        let runs: Vec<Value> = runs.iter().map(describe).collect();
        return console::print(&json!({ "runs": runs }).to_string());
    }
    if runs.is_empty() {
        return console::print(&format!("no runs in `{}`", arguments.folder.display()));
    }
    let heading = [
        "run", "model", "task", "freeze", "epochs", "valid", "test", "seconds", "age",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(runs.iter().map(row));
    console::table(&rows)
}

/// A setting as it stands in the recipe, without quotes.
fn setting(run: &RecordedRun, name: &str) -> String {
    match run.recipe.get(name) {
        Some(toml::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "-".into(),
    }
}

/// The name of the model's folder.
fn model(run: &RecordedRun) -> String {
    let model = setting(run, "model");
    let name = Path::new(&model).file_name();
    name.map_or_else(|| model.clone(), |name| name.to_string_lossy().into_owned())
}

fn age(run: &RecordedRun) -> Duration {
    run.modified.elapsed().unwrap_or_default()
}

/// What the summary says of `split`, of a group the mean: the number, and its deviation.
fn measured(run: &RecordedRun, split: &str, metric: &str) -> Option<(f64, Option<f64>)> {
    match run.summary.as_ref()?.get(split)?.get(metric)? {
        Value::Object(group) => Some((
            group.get("mean")?.as_f64()?,
            group.get("standard_deviation").and_then(Value::as_f64),
        )),
        number => Some((number.as_f64()?, None)),
    }
}

fn row(run: &RecordedRun) -> Vec<String> {
    let metric = run.metric().unwrap_or_default();
    let measured = |split: &str| match measured(run, split, &metric) {
        Some((mean, Some(deviation))) => format!("{metric} {mean:.4} ± {deviation:.4}"),
        Some((mean, None)) => format!("{metric} {mean:.4}"),
        None => "-".into(),
    };
    let seconds = run
        .summary
        .as_ref()
        .and_then(|summary| summary.get("seconds")?.as_f64());
    vec![
        run.folder.display().to_string(),
        model(run),
        setting(run, "task"),
        setting(run, "freeze"),
        epochs(run).map_or_else(|| setting(run, "epochs"), |epochs| epochs.to_string()),
        measured("valid"),
        measured("test"),
        seconds.map_or_else(|| "unfinished".into(), |seconds| format!("{seconds:.1}")),
        HumanDuration(age(run)).to_string(),
    ]
}

/// Those trained, which may be fewer than were asked for.
fn epochs(run: &RecordedRun) -> Option<u64> {
    run.summary.as_ref()?.get("epochs")?.as_u64()
}

fn describe(run: &RecordedRun) -> Value {
    let summary = run.summary.as_ref();
    let of_summary = |name: &str| summary.and_then(|summary| summary.get(name)).cloned();
    json!({
        "run": run.folder.display().to_string(),
        "model": run.recipe.get("model"),
        "task": run.recipe.get("task"),
        "freeze": run.recipe.get("freeze"),
        "seed": run.recipe.get("seed").filter(|_| !run.recipe.contains_key("seeds")),
        "seeds": run.recipe.get("seeds"),
        "epochs": epochs(run),
        "metric": run.metric(),
        "valid": of_summary("valid"),
        "test": of_summary("test"),
        "seconds": of_summary("seconds"),
        "age_seconds": age(run).as_secs(),
        "finished": summary.is_some(),
    })
}

fn compare(arguments: &CompareArguments) -> Result<(), Error> {
    let runs = arguments
        .runs
        .iter()
        .map(|folder| RecordedRun::open(folder));
    let runs = runs.collect::<Result<Vec<_>, _>>()?;
    let histories = arguments.runs.iter().map(|folder| History::read(folder));
    let histories = histories.collect::<Result<Vec<_>, _>>()?;
    let settings = differing(&runs);
    let figures = figures(&runs);
    let metric = runs.iter().find_map(RecordedRun::metric);
    let curves = |name: &str| -> Vec<Vec<(f64, f64)>> {
        let of = |history: &History| match name {
            "loss" => history.losses.clone(),
            _ => history.metric(metric.as_deref().unwrap_or_default()),
        };
        histories.iter().map(of).collect()
    };
    if arguments.json {
        let object = json!({
            "runs": names(&runs),
            "settings": Map::from_iter(settings),
            "figures": Map::from_iter(figures),
            "metric": metric,
            "curves": { "loss": curves("loss"), "valid": curves("valid") },
        });
        return console::print(&object.to_string());
    }
    let heading = std::iter::once(String::new()).chain(names(&runs));
    let mut rows = vec![heading.collect::<Vec<_>>()];
    for (name, values) in settings.into_iter().chain(figures) {
        let values = values.as_array().into_iter().flatten().map(shown);
        rows.push(std::iter::once(name).chain(values).collect());
    }
    console::table(&rows)?;
    let valid = format!("valid {}", metric.as_deref().unwrap_or("metric"));
    for (title, curves) in [("training loss", curves("loss")), (&valid, curves("valid"))] {
        side_by_side(title, &names(&runs), &curves)?;
    }
    Ok(())
}

fn names(runs: &[RecordedRun]) -> Vec<String> {
    runs.iter()
        .map(|run| run.folder.display().to_string())
        .collect()
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".into(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            // Settings as 5e-5 are not to become 0.0001.
            let number = number.as_f64().unwrap_or_default();
            if number != 0.0 && number.abs() < 1e-3 {
                format!("{number:e}")
            } else {
                format!("{number:.4}")
            }
        }
        other => other.to_string(),
    }
}

/// The settings that are not the same in all runs, each with every run's value.
fn differing(runs: &[RecordedRun]) -> Vec<(String, Value)> {
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.recipe.keys()).collect();
    let values = names.into_iter().map(|name| {
        let values = runs.iter().map(|run| json!(run.recipe.get(name)));
        (name.clone(), values.collect::<Vec<_>>())
    });
    values
        .filter(|(_, values)| values.iter().any(|value| *value != values[0]))
        .map(|(name, values)| (name, Value::Array(values)))
        .collect()
}

/// What the summaries say, each with every run's number: metrics as `valid accuracy`, of a group
/// their means.
fn figures(runs: &[RecordedRun]) -> Vec<(String, Value)> {
    let mut figures = Vec::new();
    for split in ["valid", "test"] {
        let mut names: Vec<&String> = Vec::new();
        for run in runs {
            let metrics = run
                .summary
                .as_ref()
                .and_then(|summary| summary.get(split)?.as_object());
            for name in metrics.into_iter().flat_map(Map::keys) {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        for name in names {
            let numbers = runs
                .iter()
                .map(|run| json!(measured(run, split, name).map(|m| m.0)));
            figures.push((format!("{split} {name}"), numbers.collect()));
        }
    }
    let others = [
        "best_epoch",
        "best_step",
        "steps",
        "seconds",
        "epoch_seconds",
    ];
    for name in others {
        let of = |run: &RecordedRun| {
            run.summary
                .as_ref()
                .and_then(|found| found.get(name).cloned())
        };
        let numbers: Vec<Option<Value>> = runs.iter().map(of).collect();
        if numbers.iter().any(Option::is_some) {
            figures.push((name.into(), json!(numbers)));
        }
    }
    figures
}

/// A line a run, on one scale: its first and its last number, and bars between.
fn side_by_side(title: &str, names: &[String], curves: &[Vec<(f64, f64)>]) -> Result<(), Error> {
    let numbers = curves.iter().flatten().map(|point| point.1);
    let Some(scale) = range(numbers) else {
        return Ok(());
    };
    console::print(&format!("\n{title}, from {:.4} to {:.4}", scale.0, scale.1))?;
    let rows = names.iter().zip(curves).map(|(name, curve)| {
        let numbers: Vec<f64> = curve.iter().map(|point| point.1).collect();
        let end = |number: Option<&f64>| number.map_or("-".into(), |n| format!("{n:.4}"));
        vec![
            name.clone(),
            end(numbers.first()),
            sparkline(&numbers, scale),
            end(numbers.last()),
        ]
    });
    console::table(&rows.collect::<Vec<_>>())
}

/// The curves of a run on stderr, if that is a terminal.
pub(super) fn draw(folder: &Path, metric: Option<&str>) -> Result<(), Error> {
    if !std::io::stderr().is_terminal() {
        return Ok(());
    }
    let history = History::read(folder)?;
    let mut lines = chart("training loss", &history.losses).unwrap_or_default();
    if let Some(metric) = metric {
        let title = format!("valid {metric}");
        lines.extend(chart(&title, &history.metric(metric)).unwrap_or_default());
    }
    for line in lines {
        console::say(&line);
    }
    Ok(())
}
