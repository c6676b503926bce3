//! A sweep: several K, seeds and learning rates.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::figures::{bytes, count, number, seconds};
use super::plot::{Axis, Marks, Plot, Point, Series};
use super::run::{fingerprints, folder_name};
use super::section::{Block, Cell, Row, Section, Table, Weight};
use super::{Error, read_json};
use crate::checkpoint::Freeze;
use crate::train::{FoundRuns, History, RunIdentity, find_runs};

/// What was found.
pub(super) const RESULT: &str = "sweep.json";
/// What all runs share.
pub(super) const SHARED: &str = "sweep.toml";

/// A sweep as it is reported.
pub(super) struct ReportedSweep {
    folder: PathBuf,
    recipe: Option<String>,
    /// None of a sweep that is not finished.
    result: Option<SweepResult>,
    found: FoundRuns,
    identity: Option<RunIdentity>,
}

/// As `sweep.json` has it. What could not be measured is no number there.
#[derive(Deserialize)]
struct SweepResult {
    metric: String,
    split: String,
    base: Freeze,
    rows: Vec<SweepRow>,
    cheapest_not_worse: Option<Cheapest>,
}

#[derive(Deserialize)]
struct SweepRow {
    freeze: Freeze,
    lr: f64,
    seeds: Vec<u64>,
    trainable_parameters: Option<f64>,
    precompute_seconds: Option<f64>,
    precompute_caches: Option<usize>,
    cache_bytes: Option<f64>,
    epoch_seconds: Option<f64>,
    train_seconds: Option<f64>,
    peak_rss_bytes: Option<f64>,
    valid: Option<Spread>,
    test: Option<Spread>,
    best_lr: bool,
    against_base: Option<AgainstBase>,
}

#[derive(Clone, Copy, Deserialize)]
struct Spread {
    mean: Option<f64>,
    standard_deviation: Option<f64>,
}

#[derive(Deserialize)]
struct AgainstBase {
    difference: f64,
    interval: [f64; 2],
    p_value: f64,
    significantly_worse: Option<bool>,
}

#[derive(Deserialize)]
struct Cheapest {
    freeze: Freeze,
    lr: f64,
}

impl ReportedSweep {
    /// The sweep in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(RESULT);
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
            remedy: "the `telly sweep` that made it writes it again, and trains nothing twice",
        };
        let result = if path.is_file() {
            let value = read_json(&path).map_err(|error| match error {
                Error::Damaged { problem, .. } => damaged(problem),
                error => error,
            })?;
            let result: SweepResult =
                serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
            if result.rows.is_empty() {
                return Err(damaged("`rows` is empty".into()));
            }
            Some(result)
        } else {
            None
        };
        let shared = folder.join(SHARED);
        let recipe = if shared.is_file() {
            Some(fs_err::read_to_string(shared).map_err(Error::Read)?)
        } else {
            None
        };
        let found = find_runs(&folder.join("runs"))?;
        let mut identity = None;
        for run in &found.runs {
            identity = RunIdentity::read(&run.folder)?.map(|(identity, _)| identity);
            if identity.is_some() {
                break;
            }
        }
        Ok(Self {
            folder: folder.into(),
            recipe,
            result,
            found,
            identity,
        })
    }

    /// All that there is to say.
    pub(super) fn section(&self) -> Section {
        let path = self.folder.display().to_string();
        let mut section = Section::new(format!("Sweep {}", folder_name(&self.folder)), Some(path));
        if let Some(result) = &self.result {
            section.blocks.push(Block::Paragraph(result.conclusion()));
            section.draw(&result.plots());
            section.add_table(result.table());
            if result
                .rows
                .iter()
                .any(|row| row.precompute_caches > Some(1))
            {
                let text =
                    "Precompute is the time of the one pass that filled the caches of several K.";
                section.blocks.push(Block::Paragraph(text.into()));
            }
            section.draw(&self.curves(result));
        } else {
            section.blocks.push(Block::Warning(
                    "This sweep is not finished: it has no sweep.json. These are the runs that there are so far; the same `telly sweep` goes on.".into(),
                ));
            section.add_table(self.runs_so_far());
        }
        if let Some(identity) = &self.identity {
            let mut table = fingerprints(identity);
            // K is that of one run alone.
            table.rows.pop();
            section.add_table(table);
        }
        if let Some(recipe) = &self.recipe {
            section.blocks.push(Block::Text {
                heading: "Recipe that all runs share".into(),
                text: recipe.clone(),
            });
        }
        section
    }

    /// What the first seed of each K learnt, at its best learning rate.
    fn curves(&self, result: &SweepResult) -> Vec<Plot> {
        let histories = result.best().filter_map(|row| {
            let (lr, seed) = (row.lr, row.seeds.first()?);
            let folder = format!("runs/freeze-{}/lr-{lr:e}/seed-{seed}", row.freeze);
            let history = History::read(&self.folder.join(folder)).ok()?;
            Some((format!("K = {}", row.freeze), history))
        });
        let histories: Vec<(String, History)> = histories.collect();
        let curves = |pick: &dyn Fn(&History) -> Vec<(f64, f64)>, y: &str| -> Vec<Series> {
            let curves = histories.iter().map(|(name, history)| {
                let what = format!("{name}, step");
                Series::curve(name, &what, y, &pick(history))
            });
            curves.filter(|series| !series.points.is_empty()).collect()
        };
        let plot = |name: &str, title: String, y: &str, series: Vec<Series>| Plot {
            name: name.into(),
            title,
            caption: "First seed of each K, at its best learning rate.".into(),
            x: Axis::new("step", Marks::Whole),
            y: Axis::new(y, Marks::Numbers),
            series,
        };
        let metric = &result.metric;
        vec![
            plot(
                "training-loss",
                "Training loss".into(),
                "loss",
                curves(&|history| history.losses.clone(), "loss"),
            ),
            plot(
                "validation",
                format!("Validation {metric} while training"),
                metric,
                curves(&|history| history.metric(metric), metric),
            ),
        ]
    }

    /// The runs of a sweep that is not finished.
    fn runs_so_far(&self) -> Table {
        let rows = self.found.runs.iter().map(|run| {
            let name = run.folder.strip_prefix(self.folder.join("runs"));
            let name = name.unwrap_or(&run.folder).display().to_string();
            let metric = run.metric().unwrap_or_default();
            let figure = |split: &str| {
                let summary = run.summary.as_ref()?;
                summary.get(split)?.get(&metric)?.as_f64()
            };
            let cell = |figure: Option<f64>| match figure {
                Some(figure) => Cell::number(number(figure)).exactly(&figure),
                None => Cell::number("-"),
            };
            let state = if run.summary.is_some() { "yes" } else { "no" };
            Row::new(vec![
                Cell::text(name),
                Cell::text(state),
                Cell::text(&metric),
                cell(figure("valid")),
                cell(figure("test")),
            ])
        });
        Table {
            heading: "Runs".into(),
            columns: ["run", "finished", "metric", "valid", "test"]
                .map(String::from)
                .to_vec(),
            rows: rows.collect(),
        }
    }
}

impl SweepResult {
    /// The rows of each K's best learning rate.
    fn best(&self) -> impl Iterator<Item = &SweepRow> + Clone {
        self.rows.iter().filter(|row| row.best_lr)
    }

    fn is_chosen(&self, row: &SweepRow) -> bool {
        let cheapest = self.cheapest_not_worse.as_ref();
        cheapest.is_some_and(|cheapest| {
            cheapest.freeze == row.freeze && cheapest.lr.to_bits() == row.lr.to_bits()
        })
    }

    /// Which K to take.
    fn conclusion(&self) -> String {
        let Self {
            metric,
            split,
            base,
            ..
        } = self;
        let seeds = self
            .rows
            .iter()
            .map(|row| row.seeds.len())
            .min()
            .unwrap_or(0);
        let compared = format!(
            "{metric} on the {split} split, mean ± standard deviation of {seeds} seeds, compared with K = {base} by a paired t-test."
        );
        let chosen = self.rows.iter().find(|row| self.is_chosen(row));
        let found = match chosen {
            Some(row) => {
                let between = row.against_base.as_ref().map(|test| {
                    let [low, high] = test.interval;
                    format!(" Its {metric} lies between {low:+.4} and {high:+.4} of that of K = {base} with 95 % confidence.")
                });
                format!(
                    "Take K = {} at learning rate {:e}: it has the shortest epochs of those that are not significantly worse.{}",
                    row.freeze,
                    row.lr,
                    between.unwrap_or_default()
                )
            }
            None if seeds < 2 => {
                "One seed tells nothing about chance, so no K is recommended.".into()
            }
            None if self.rows.iter().all(|row| row.freeze == *base) => {
                "There is no other K to compare with.".into()
            }
            None => format!("Every other K is significantly worse: take K = {base}."),
        };
        format!("{found} {compared}")
    }

    fn plots(&self) -> Vec<Plot> {
        let Self { metric, split, .. } = self;
        let k_axis = || {
            let names = self
                .best()
                .map(|row| (depth(row.freeze), row.freeze.to_string()));
            let mut names: Vec<(f64, String)> = names.collect();
            names.sort_by(|one, other| one.0.total_cmp(&other.0));
            Axis::new(
                "K: frozen layers, `none` for nothing frozen",
                Marks::Named(names),
            )
        };
        let by_k = |figure: &dyn Fn(&SweepRow) -> Option<(f64, String)>| -> Series {
            let points = self.best().filter_map(|row| {
                let (figure, said) = figure(row)?;
                let title = format!("K = {}: {said}", row.freeze);
                let mut point = Point::new(depth(row.freeze), figure, title);
                point.chosen = self.is_chosen(row);
                Some(point)
            });
            Series {
                name: "best learning rate".into(),
                points: points.collect(),
                line: true,
            }
        };
        let ring = if self.cheapest_not_worse.is_some() {
            " The ring is the K to take."
        } else {
            ""
        };
        vec![
            Plot {
                name: "quality".into(),
                title: format!("{metric} by frozen layers"),
                caption: format!("Mean over the seeds; bars are ± one standard deviation.{ring}"),
                x: k_axis(),
                y: Axis::new(format!("{metric}, {split} split"), Marks::Numbers),
                series: self.quality(),
            },
            Plot {
                name: "cost".into(),
                title: format!("What {metric} costs"),
                caption: format!(
                    "Each point is a K at its best learning rate; the time is that of training, evaluation included.{ring}"
                ),
                x: Axis::new("seconds of training", Marks::FromZero),
                y: Axis::new(format!("{metric}, {split} split"), Marks::Numbers),
                series: vec![self.quality_by_cost()],
            },
            Plot {
                name: "epoch-seconds".into(),
                title: "Time of an epoch by frozen layers".into(),
                caption: "Mean over the seeds, evaluation left out.".into(),
                x: k_axis(),
                y: Axis::new("seconds", Marks::FromZero),
                series: vec![by_k(&|row| {
                    let figure = row.epoch_seconds?;
                    Some((figure, seconds(figure)))
                })],
            },
            Plot {
                name: "peak-memory".into(),
                title: "Peak memory by frozen layers".into(),
                caption: "Of the training process, the most of any seed.".into(),
                x: k_axis(),
                y: Axis::new("MB", Marks::FromZero),
                series: vec![by_k(&|row| {
                    let figure = row.peak_rss_bytes?;
                    Some((figure / 1e6, bytes(figure)))
                })],
            },
        ]
    }

    fn quality(&self) -> Vec<Series> {
        let points = |best: bool| -> Vec<Point> {
            let rows = self.rows.iter().filter(|row| row.best_lr == best);
            rows.filter_map(|row| {
                let (mean, interval, said) = self.measured(row)?;
                let title = format!(
                    "K = {}, learning rate {:e}: {} {said}",
                    row.freeze, row.lr, self.metric
                );
                let mut point = Point::new(depth(row.freeze), mean, title);
                point.interval = interval.filter(|_| best);
                point.chosen = self.is_chosen(row);
                Some(point)
            })
            .collect()
        };
        let mut series = vec![Series {
            name: "best learning rate".into(),
            points: points(true),
            line: true,
        }];
        let others = points(false);
        if !others.is_empty() {
            series.push(Series {
                name: "other learning rates".into(),
                points: others,
                line: false,
            });
        }
        series
    }

    fn quality_by_cost(&self) -> Series {
        let points = self.best().filter_map(|row| {
            let (mean, interval, said) = self.measured(row)?;
            let cost = row.train_seconds?;
            let title = format!(
                "K = {}: {} {said} after {}",
                row.freeze,
                self.metric,
                seconds(cost)
            );
            let mut point = Point::new(cost, mean, title);
            point.interval = interval;
            point.label = Some(format!("K = {}", row.freeze));
            point.chosen = self.is_chosen(row);
            Some(point)
        });
        Series {
            name: String::new(),
            points: points.collect(),
            line: false,
        }
    }

    /// The metric of `row` on the split that is compared: its mean, from where to where a standard
    /// deviation reaches, and both in words.
    fn measured(&self, row: &SweepRow) -> Option<(f64, Option<[f64; 2]>, String)> {
        let spread = if self.split == "test" {
            row.test
        } else {
            row.valid
        }?;
        let mean = spread.mean?;
        let deviation = spread.standard_deviation.filter(|_| row.seeds.len() > 1);
        let interval = deviation.map(|deviation| [mean - deviation, mean + deviation]);
        Some((mean, interval, spread_text(spread)))
    }

    fn table(&self) -> Table {
        let columns = [
            "K",
            "learning rate",
            "seeds",
            "valid",
            "test",
            "against base [95 %]",
            "p",
            "epoch",
            "training",
            "precompute",
            "peak memory",
            "cache",
            "trained numbers",
        ];
        let rows = self.rows.iter().map(|row| {
            let chosen = self.is_chosen(row);
            Row {
                cells: row.cells(chosen),
                weight: match (chosen, row.best_lr) {
                    (true, _) => Weight::Chosen,
                    (false, true) => Weight::Usual,
                    (false, false) => Weight::Aside,
                },
            }
        });
        Table {
            heading: format!("{} by K", self.metric),
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        }
    }
}

impl SweepRow {
    fn cells(&self, chosen: bool) -> Vec<Cell> {
        let mark = if chosen { " (take this)" } else { "" };
        let figure = |figure: Option<f64>, write: fn(f64) -> String| match figure {
            Some(figure) => Cell::number(write(figure)).exactly(&figure),
            None => Cell::number("-"),
        };
        let spread = |spread: Option<Spread>| {
            let text = spread.map_or("-".into(), spread_text);
            let mean = spread.and_then(|spread| spread.mean);
            match mean {
                Some(mean) => Cell::number(text).exactly(&mean),
                None => Cell::number(text),
            }
        };
        let seeds: Vec<String> = self.seeds.iter().map(ToString::to_string).collect();
        let test = self.against_base.as_ref();
        let against = test.map_or("-".into(), |test| {
            let [low, high] = test.interval;
            let worse = if test.significantly_worse == Some(true) {
                ", worse"
            } else {
                ""
            };
            format!("{:+.4} [{low:+.4}, {high:+.4}]{worse}", test.difference)
        });
        let p_value = test.map_or_else(
            || Cell::number("-"),
            |test| Cell::number(format!("{:.3}", test.p_value)).exactly(&test.p_value),
        );
        vec![
            Cell::text(format!("{}{mark}", self.freeze)),
            Cell::number(format!("{:e}", self.lr)),
            Cell::number(seeds.len().to_string()).exactly(&seeds.join(", ")),
            spread(self.valid),
            spread(self.test),
            Cell::number(against),
            p_value,
            figure(self.epoch_seconds, seconds),
            figure(self.train_seconds, seconds),
            figure(self.precompute_seconds, seconds),
            figure(self.peak_rss_bytes, bytes),
            figure(self.cache_bytes, bytes),
            figure(self.trainable_parameters, count),
        ]
    }
}

fn spread_text(spread: Spread) -> String {
    match (spread.mean, spread.standard_deviation) {
        (Some(mean), Some(deviation)) => format!("{mean:.4} ± {deviation:.4}"),
        (Some(mean), None) => format!("{mean:.4}"),
        (None, _) => "-".into(),
    }
}

/// Where a K is on the axis: nothing frozen is one less than the embeddings alone.
fn depth(freeze: Freeze) -> f64 {
    match freeze {
        Freeze::Nothing => -1.0,
        Freeze::Layers(layers) => layers as f64,
    }
}
