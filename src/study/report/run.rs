//! A run, or a group of them with different seeds.

use std::collections::BTreeSet;
use std::path::Path;

use super::Error;
use super::figures::{bytes, count, number, seconds};
use super::html::slug;
use super::plot::{Axis, Marks, Plot, Series};
use super::section::{Block, Cell, Row, Section, Table};
use super::summary::{measured, metric_names, metrics_table, seeds_table, summary_table};
use crate::task::less_is_better;
use crate::train::{History, RecordedRun, RunFolder, RunGroup, RunIdentity};

/// Metrics of texts, which are from 0 to 100; others are at most 1, or errors without a bound.
const PERCENT: [&str; 6] = [
    "bleu",
    "em",
    "edit_similarity",
    "edit_similarity_levenshtein",
    "rouge_l",
    "chrf",
];

/// How a figure is written.
type WriteFigure = fn(f64) -> String;

/// A run as it is reported.
pub(super) struct ReportedRun {
    run: RecordedRun,
    recipe: String,
    /// Of a group one a seed; the run's own has no name.
    histories: Vec<(String, History)>,
    identity: Option<RunIdentity>,
    /// BLAKE3 of its trained weights; a group has those of its seeds.
    hash: Option<String>,
    /// Seeds that are begun and not finished.
    unfinished: Vec<u64>,
}

impl ReportedRun {
    /// The run or the group in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let run = RecordedRun::open(folder)?;
        let recipe = RunFolder::recipe(folder)?;
        let recipe = fs_err::read_to_string(recipe).map_err(Error::Read)?;
        let (identity, hash) = RunIdentity::read(folder)?.unzip();
        let mut reported = Self {
            run,
            recipe,
            histories: Vec::new(),
            identity,
            hash,
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
                reported.identity = RunIdentity::read(&folder)?.map(|(identity, _)| identity);
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
        if let Some(identity) = &self.identity {
            let mut table = fingerprints(identity);
            let freeze = Cell::text(identity.freeze.to_string());
            table.rows.push(Row::fact("Frozen layers (K)", freeze));
            let hash = self.hash.iter();
            let trained = hash.map(|hash| Row::fact("Trained weights (BLAKE3)", Cell::code(hash)));
            table.rows.extend(trained);
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
        let histories = &self.histories;
        let one = histories.len() == 1;
        let mut loss = curves(histories, "training loss", |history| history.losses.clone());
        if one {
            let valid = histories[0].1.metric("loss");
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
        let (title, caption) = if one {
            (
                "Loss",
                "Training: the mean since the last logged step. Validation: of the whole split.",
            )
        } else {
            ("Training loss", "The mean since the last logged step.")
        };
        let mut plots = vec![Plot {
            name: "loss".into(),
            title: title.into(),
            caption: caption.into(),
            x: step(),
            y: Axis::new("loss", Marks::Numbers),
            series: loss,
        }];
        plots.extend(self.metric_plots());
        plots.push(Plot {
            name: "learning-rate".into(),
            title: "Learning rate".into(),
            caption: String::new(),
            x: step(),
            y: Axis::new("learning rate", Marks::FromZero),
            // All seeds have the same.
            series: curves(&histories[..1], "learning rate", |history| {
                history.learning_rates.clone()
            }),
        });
        plots.push(Plot {
            name: "gradient-norm".into(),
            title: "Gradient norm".into(),
            caption: "Before the gradient is clipped.".into(),
            x: step(),
            y: Axis::new("norm", Marks::FromZero),
            series: curves(histories, "gradient norm", |history| {
                history.gradient_norms.clone()
            }),
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
            // What a threshold is, is no measure.
            let measure = !matches!(name.as_str(), "loss" | "threshold");
            if measure && !names.contains(&name) {
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
                let series = curves(&self.histories, metric, |history| history.metric(metric));
                let file = slug(&format!("validation-{metric}"));
                plot(&file, format!("Validation {metric}"), series)
            });
            return plots.collect();
        }
        let history = &self.histories[0].1;
        let curve =
            |metric: &&String| Series::curve(metric, "step", metric, &history.metric(metric));
        let (errors, names): (Vec<&String>, Vec<&String>) =
            names.into_iter().partition(|name| less_is_better(name));
        let (percent, shares): (Vec<&String>, Vec<&String>) = names
            .into_iter()
            .partition(|name| PERCENT.contains(&name.as_str()));
        let mut plots = Vec::new();
        for (file, title, group) in [
            ("validation", "Validation metrics", shares),
            (
                "validation-percent",
                "Validation metrics, 0 to 100",
                percent,
            ),
        ] {
            let title = match group.as_slice() {
                [only] => format!("Validation {only}"),
                _ => title.into(),
            };
            plots.push(plot(file, title, group.iter().map(curve).collect()));
        }
        plots.extend(errors.iter().map(|metric| {
            let file = slug(&format!("validation-{metric}"));
            plot(&file, format!("Validation {metric}"), vec![curve(metric)])
        }));
        plots
    }
}

/// What `pick` finds in each of the named `histories`, as curves over the steps; none of a history
/// without any.
pub(super) fn curves(
    histories: &[(String, History)],
    y: &str,
    pick: impl Fn(&History) -> Vec<(f64, f64)>,
) -> Vec<Series> {
    let curves = histories.iter().map(|(name, history)| {
        let step = if name.is_empty() {
            "step".to_owned()
        } else {
            format!("{name}, step")
        };
        Series::curve(name, &step, y, &pick(history))
    });
    curves.filter(|series| !series.points.is_empty()).collect()
}

/// The last part of a path, or all of it; of a run that is one of several the parts that tell it apart from
/// the others, as `freeze-4/lr-1e-4/seed-1`.
pub(super) fn folder_name(path: &Path) -> String {
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut parts: Vec<String> = Vec::new();
    for part in whole.iter().rev() {
        parts.insert(0, part.to_string_lossy().into_owned());
        if !["seed-", "lr-"]
            .iter()
            .any(|kind| parts[0].starts_with(kind))
        {
            break;
        }
    }
    if parts.is_empty() {
        return path.display().to_string();
    }
    parts.join("/")
}

/// What a run was made from.
pub(super) fn fingerprints(identity: &RunIdentity) -> Table {
    let mut rows = vec![
        Row::fact("Model", Cell::code(identity.model.display().to_string())),
        Row::fact("Its weights (BLAKE3)", Cell::code(&identity.weights)),
        Row::fact("Its tokenizer (BLAKE3)", Cell::code(&identity.tokenizer)),
    ];
    if let Some(config) = &identity.config {
        rows.push(Row::fact("Its config.json (BLAKE3)", Cell::code(config)));
    }
    for (split, content) in &identity.data {
        let name = format!("Data, {split} (BLAKE3)");
        rows.push(Row::fact(&name, Cell::code(content)));
    }
    Table::facts("Fingerprints", rows)
}

/// Runs side by side: what differs between them, and what they came to.
pub(super) fn overview(runs: &[&ReportedRun]) -> Section {
    let mut section = Section::new("Runs side by side", None);
    // Folders that are called alike are told apart by their paths.
    let name = |run: &ReportedRun| {
        let alike = runs.iter().filter(|other| other.name() == run.name());
        if alike.count() > 1 {
            run.run.folder.display().to_string()
        } else {
            run.name()
        }
    };
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
        let mut cells = vec![Cell::text(name(run))];
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
            Cell::figure(figure, write)
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
        .chain(["epoch", "training", "peak memory", "trainable parameters"].map(String::from));
    section.add_table(Table {
        heading: "What differs, and what came of it".into(),
        columns: columns.collect(),
        rows,
    });
    let one = runs.iter().filter(|run| run.histories.len() == 1);
    let losses = one.map(|run| {
        let (name, losses) = (name(run), &run.histories[0].1.losses);
        Series::curve(&name, &format!("{name}, step"), "training loss", losses)
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
