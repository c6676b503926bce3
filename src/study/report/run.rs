//! A run, or a group of them with different seeds.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::Error;
use super::figures::{bytes, count, named, number, seconds};
use super::plot::{Axis, Marks, Plot, Series};
use super::section::{Block, Cell, Row, Section, Table};
use crate::train::{History, RecordedRun, RunFolder, RunGroup, RunIdentity};

/// How a figure is written.
type WriteFigure = fn(f64) -> String;

/// A run as it is reported.
pub(super) struct ReportedRun {
    run: RecordedRun,
    recipe: String,
    /// Of a group one a seed; the run's own has no name.
    histories: Vec<(String, History)>,
    identity: Option<(RunIdentity, String)>,
    /// Seeds that are begun and not finished.
    unfinished: Vec<u64>,
}

impl ReportedRun {
    /// The run or the group in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let run = RecordedRun::open(folder)?;
        let recipe = RunFolder::recipe(folder)?;
        let recipe = fs_err::read_to_string(recipe).map_err(Error::Read)?;
        let mut reported = Self {
            run,
            recipe,
            histories: Vec::new(),
            identity: RunIdentity::read(folder)?,
            unfinished: Vec::new(),
        };
        let seeds = reported
            .run
            .recipe
            .get("seeds")
            .and_then(toml::Value::as_array);
        let seeds: Vec<u64> = seeds
            .into_iter()
            .flatten()
            .filter_map(|seed| seed.as_integer()?.try_into().ok())
            .collect();
        for seed in seeds {
            let folder = RunGroup::open(folder).run(seed);
            if RunFolder::recipe(&folder).is_err() {
                reported.unfinished.push(seed);
                continue;
            }
            if RunFolder::summary(&folder)?.is_none() {
                reported.unfinished.push(seed);
            }
            let history = History::read(&folder)?;
            reported.histories.push((format!("seed {seed}"), history));
            if reported.identity.is_none() {
                reported.identity = RunIdentity::read(&folder)?;
            }
        }
        if reported.histories.is_empty() {
            let history = History::read(folder)?;
            reported.histories.push((String::new(), history));
        }
        Ok(reported)
    }

    /// What it is called: its folder.
    fn name(&self) -> String {
        folder_name(&self.run.folder)
    }

    /// All that there is to say.
    pub(super) fn section(&self) -> Section {
        let path = self.run.folder.display().to_string();
        let mut section = Section::new(format!("Run {}", self.name()), Some(path));
        match &self.run.summary {
            Some(summary) => {
                section.add_table(metrics_table(summary));
                section.add_table(seeds_table(summary));
            }
            None => section.blocks.push(Block::Warning(self.how_far())),
        }
        section.draw(&self.plots());
        if let Some(summary) = &self.run.summary {
            section.add_table(summary_table(summary));
        }
        if let Some((identity, hash)) = &self.identity {
            let mut table = fingerprints(identity);
            if self.run.folder.join("model.safetensors").is_file() {
                table
                    .rows
                    .push(Row::fact("Trained weights (BLAKE3)", Cell::code(hash)));
            }
            section.add_table(table);
        } else {
            let text = "There are no trained weights yet, and so no fingerprints.";
            section.blocks.push(Block::Paragraph(text.into()));
        }
        section.blocks.push(Block::Text {
            heading: "Recipe".into(),
            text: self.recipe.clone(),
        });
        section
    }

    /// How far an unfinished run came.
    fn how_far(&self) -> String {
        let histories = self.histories.iter();
        let steps = histories.filter_map(|(name, history)| {
            let (step, loss) = history.losses.last()?;
            let of = if name.is_empty() {
                String::new()
            } else {
                format!(" of {name}")
            };
            Some(format!("step {step}{of} with loss {}", number(*loss)))
        });
        let steps: Vec<String> = steps.collect();
        let last = if steps.is_empty() {
            "nothing is logged yet".into()
        } else {
            format!("the last that is logged is {}", steps.join(", "))
        };
        let seeds: Vec<String> = self.unfinished.iter().map(ToString::to_string).collect();
        let missing = if seeds.is_empty() {
            String::new()
        } else {
            format!("; seeds that are not finished: {}", seeds.join(", "))
        };
        format!(
            "This run is not finished: it has no summary.json, {last}{missing}. What follows is what there is so far."
        )
    }

    fn plots(&self) -> Vec<Plot> {
        let step = || Axis::new("step", Marks::Whole);
        let curves = |pick: &dyn Fn(&History) -> Vec<(f64, f64)>, y: &str| -> Vec<Series> {
            let histories = self.histories.iter();
            let curves =
                histories.map(|(name, history)| Series::curve(name, "step", y, &pick(history)));
            curves.filter(|series| !series.points.is_empty()).collect()
        };
        let one = self.histories.len() == 1;
        let mut loss = curves(&|history| history.losses.clone(), "training loss");
        if one {
            let valid = self.histories[0].1.metric("loss");
            for series in &mut loss {
                series.name = "training".into();
            }
            if !valid.is_empty() {
                loss.push(Series::curve(
                    "validation",
                    "step",
                    "validation loss",
                    &valid,
                ));
            }
        }
        let mut plots = vec![Plot {
            name: "loss".into(),
            title: if one { "Loss" } else { "Training loss" }.into(),
            caption:
                "Training: the mean since the last logged step. Validation: of the whole split."
                    .into(),
            x: step(),
            y: Axis::new("loss", Marks::Numbers),
            series: loss,
        }];
        if !one {
            plots[0].caption = "The mean since the last logged step.".into();
        }
        plots.extend(self.metric_plots());
        plots.push(Plot {
            name: "learning-rate".into(),
            title: "Learning rate".into(),
            caption: String::new(),
            x: step(),
            y: Axis::new("learning rate", Marks::FromZero),
            // That of all seeds.
            series: curves(&|history| history.learning_rates.clone(), "learning rate")
                .into_iter()
                .take(1)
                .collect(),
        });
        plots.push(Plot {
            name: "gradient-norm".into(),
            title: "Gradient norm".into(),
            caption: "Before the gradient is clipped.".into(),
            x: step(),
            y: Axis::new("norm", Marks::FromZero),
            series: curves(&|history| history.gradient_norms.clone(), "gradient norm"),
        });
        plots
    }

    /// The validation split's metrics by steps: of one run those on the same scale together, of a
    /// group each by itself.
    fn metric_plots(&self) -> Vec<Plot> {
        let evaluations = self
            .histories
            .iter()
            .flat_map(|(_, history)| &history.valid);
        let mut names: Vec<&String> = Vec::new();
        for name in evaluations.flat_map(|(_, metrics)| metrics.keys()) {
            if !names.contains(&name) && name != "loss" {
                names.push(name);
            }
        }
        let plot = |name: &str, title: String, series: Vec<Series>| Plot {
            name: name.into(),
            title,
            caption: String::new(),
            x: Axis::new("step", Marks::Whole),
            y: Axis::new("validation split", Marks::Numbers),
            series,
        };
        if self.histories.len() > 1 {
            let plots = names.iter().map(|metric| {
                let histories = self.histories.iter();
                let series = histories.map(|(name, history)| {
                    Series::curve(name, "step", metric, &history.metric(metric))
                });
                let file = super::html::slug(&format!("validation-{metric}"));
                plot(&file, format!("Validation {metric}"), series.collect())
            });
            return plots.collect();
        }
        let history = &self.histories[0].1;
        let curves = names.iter().map(|metric| {
            let points = history.metric(metric);
            let most = points
                .iter()
                .fold(0.0, |most: f64, point| most.max(point.1));
            (most, Series::curve(metric, "step", metric, &points))
        });
        let (shares, others): (Vec<_>, Vec<_>) = curves.partition(|(most, _)| *most <= 1.0);
        let (percent, others): (Vec<_>, Vec<_>) = others
            .into_iter()
            .partition(|(most, series)| *most <= 100.0 && series.name != "perplexity");
        let mut plots = Vec::new();
        for (name, title, group) in [
            ("validation", "Validation metrics", shares),
            (
                "validation-percent",
                "Validation metrics, 0 to 100",
                percent,
            ),
        ] {
            let title = match group.as_slice() {
                [(_, only)] => format!("Validation {}", only.name),
                _ => title.into(),
            };
            plots.push(plot(
                name,
                title,
                group.into_iter().map(|(_, series)| series).collect(),
            ));
        }
        plots.extend(others.into_iter().map(|(_, series)| {
            let file = super::html::slug(&format!("validation-{}", series.name));
            plot(&file, format!("Validation {}", series.name), vec![series])
        }));
        plots
    }
}

/// The last part of a path, or all of it.
pub(super) fn folder_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = whole.file_name();
    name.map_or_else(
        || path.display().to_string(),
        |name| name.to_string_lossy().into_owned(),
    )
}

/// What a summary says of a metric on a split: the number, and of a group its deviation.
fn measured(summary: &Map<String, Value>, split: &str, metric: &str) -> Option<Cell> {
    let value = summary.get(split)?.get(metric)?;
    let Value::Object(group) = value else {
        return Some(Cell::number(number(value.as_f64()?)).exactly(value));
    };
    let mean = group.get("mean")?.as_f64()?;
    let text = match group.get("standard_deviation").and_then(Value::as_f64) {
        Some(deviation) => format!("{} ± {}", number(mean), number(deviation)),
        None => number(mean),
    };
    Some(Cell::number(text).exactly(&mean))
}

/// The names of all metrics of both splits.
fn metric_names(summary: &Map<String, Value>) -> Vec<&String> {
    let splits = ["valid", "test"].into_iter();
    let metrics = splits.filter_map(|split| summary.get(split)?.as_object());
    let mut names = Vec::new();
    for name in metrics.flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn metrics_table(summary: &Map<String, Value>) -> Table {
    let splits = ["valid", "test"].into_iter().filter(|split| {
        let metrics = summary.get(*split).and_then(Value::as_object);
        metrics.is_some_and(|metrics| !metrics.is_empty())
    });
    let splits: Vec<&str> = splits.collect();
    let rows = metric_names(summary).into_iter().map(|name| {
        let cells = splits
            .iter()
            .map(|split| measured(summary, split, name).unwrap_or_else(|| Cell::number("-")));
        Row::new(std::iter::once(Cell::text(name)).chain(cells).collect())
    });
    let rows = rows.collect();
    let names = splits.iter().map(ToString::to_string);
    Table {
        heading: "Metrics".into(),
        columns: std::iter::once("metric".to_owned()).chain(names).collect(),
        rows,
    }
}

/// The runs of a group.
fn seeds_table(summary: &Map<String, Value>) -> Table {
    let runs = summary.get("runs").and_then(Value::as_array);
    let runs: Vec<&Map<String, Value>> = runs
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect();
    let of_first = runs.first().map(|run| {
        let columns = ["valid", "test"].into_iter().flat_map(|split| {
            let names = run.get(split).and_then(Value::as_object);
            let names = names.into_iter().flat_map(Map::keys);
            names.map(move |name| (split, name.clone()))
        });
        columns.collect::<Vec<_>>()
    });
    let columns = of_first.unwrap_or_default();
    let rows = runs.iter().map(|run| {
        let seed = run.get("seed").map_or("-".into(), ToString::to_string);
        let cells = columns.iter().map(|(split, metric)| {
            measured(run, split, metric).unwrap_or_else(|| Cell::number("-"))
        });
        Row::new(std::iter::once(Cell::text(seed)).chain(cells).collect())
    });
    let rows = rows.collect();
    let names = columns
        .iter()
        .map(|(split, name)| format!("{split} {name}"));
    Table {
        heading: "Seeds".into(),
        columns: std::iter::once("seed".to_owned()).chain(names).collect(),
        rows,
    }
}

/// Whatever else a summary says.
fn summary_table(summary: &Map<String, Value>) -> Table {
    let facts = summary.iter().filter(|(name, value)| {
        !matches!(name.as_str(), "valid" | "test" | "runs" | "run") && !value.is_null()
    });
    let rows = facts.map(|(name, value)| {
        let label = name.replace('_', " ");
        Row::fact(&label, Cell::number(named(name, value)).exactly(value))
    });
    Table::facts("Summary", rows.collect())
}

/// What a run was made from.
pub(super) fn fingerprints(identity: &RunIdentity) -> Table {
    let hash = |text: &str| Cell::code(text);
    let mut rows = vec![
        Row::fact("Model", Cell::code(identity.model.display().to_string())),
        Row::fact("Its weights (BLAKE3)", hash(&identity.weights)),
        Row::fact("Its tokenizer (BLAKE3)", hash(&identity.tokenizer)),
    ];
    if let Some(config) = &identity.config {
        rows.push(Row::fact("Its config.json (BLAKE3)", hash(config)));
    }
    for (split, content) in &identity.data {
        let name = format!("Data, {split} (BLAKE3)");
        rows.push(Row::fact(&name, hash(content)));
    }
    rows.push(Row::fact(
        "Frozen layers (K)",
        Cell::text(identity.freeze.to_string()),
    ));
    Table::facts("Fingerprints", rows)
}

/// Runs side by side: what differs between them, and what they came to.
pub(super) fn overview(runs: &[&ReportedRun]) -> Section {
    let mut section = Section::new("Runs side by side", None);
    let names: BTreeSet<&String> = runs.iter().flat_map(|run| run.run.recipe.keys()).collect();
    let setting = |run: &ReportedRun, name: &str| match run.run.recipe.get(name) {
        Some(toml::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "-".into(),
    };
    // Where the cache lies says nothing that the settings do not.
    let settings = names.into_iter().filter(|name| {
        let values: BTreeSet<String> = runs.iter().map(|run| setting(run, name)).collect();
        let table = runs
            .iter()
            .any(|run| run.run.recipe.get(*name).is_some_and(toml::Value::is_table));
        values.len() > 1 && *name != "cache" && !table
    });
    let settings: Vec<&String> = settings.collect();
    let mut metrics: Vec<(&str, &String)> = Vec::new();
    for summary in runs.iter().filter_map(|run| run.run.summary.as_ref()) {
        for name in metric_names(summary) {
            for split in ["valid", "test"] {
                let known = summary.get(split).is_some_and(|of| of.get(name).is_some());
                if known && !metrics.contains(&(split, name)) {
                    metrics.push((split, name));
                }
            }
        }
    }
    let costs: [(&str, WriteFigure); 4] = [
        ("epoch_seconds", seconds),
        ("seconds", seconds),
        ("peak_rss_bytes", bytes),
        ("trainable_parameters", count),
    ];
    let rows = runs.iter().map(|run| {
        let summary = run.run.summary.as_ref();
        let mut cells = vec![Cell::text(run.name())];
        if summary.is_none() {
            cells[0].text.push_str(" (not finished)");
        }
        cells.extend(settings.iter().map(|name| Cell::text(setting(run, name))));
        cells.extend(metrics.iter().map(|(split, name)| {
            let cell = summary.and_then(|summary| measured(summary, split, name));
            cell.unwrap_or_else(|| Cell::number("-"))
        }));
        cells.extend(costs.iter().map(|(name, write)| {
            let figure = summary.and_then(|summary| summary.get(*name)?.as_f64());
            figure.map_or_else(
                || Cell::number("-"),
                |figure| Cell::number(write(figure)).exactly(&figure),
            )
        }));
        Row::new(cells)
    });
    let rows = rows.collect();
    let columns = std::iter::once("run".to_owned())
        .chain(settings.iter().map(|name| name.replace('_', " ")))
        .chain(
            metrics
                .iter()
                .map(|(split, name)| format!("{split} {name}")),
        )
        .chain(["epoch", "training", "peak memory", "trained numbers"].map(String::from));
    section.add_table(Table {
        heading: "What differs, and what came of it".into(),
        columns: columns.collect(),
        rows,
    });
    let one = runs.iter().filter(|run| run.histories.len() == 1);
    let losses = one.map(|run| {
        Series::curve(
            &run.name(),
            "step",
            "training loss",
            &run.histories[0].1.losses,
        )
    });
    section.draw(&[Plot {
        name: "loss".into(),
        title: "Training loss".into(),
        caption: "The mean since the last logged step.".into(),
        x: Axis::new("step", Marks::Whole),
        y: Axis::new("loss", Marks::Numbers),
        series: losses.collect(),
    }]);
    section
}
