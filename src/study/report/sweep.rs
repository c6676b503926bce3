//! A sweep's folder: several K, seeds and learning rates.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use super::figures::number;
use super::plot::{Axis, Marks, Plot, Series};
use super::run::{curves, fingerprints, folder_name};
use super::section::{Block, Cell, Row, Section, Table};
use super::sweep_result::SweepResult;
use super::{Error, read_json};
use crate::checkpoint::Freeze;
use crate::study::{self, SWEEP_RESULT, SWEEP_RUNS, SWEEP_SHARED};
use crate::train::{FoundRuns, History, RunIdentity, find_runs};

/// What helps where the result is damaged.
const REMEDY: &str = "the `telly sweep` that made it writes it again, and trains nothing twice";

/// A sweep as it is reported.
pub(super) struct ReportedSweep {
    folder: PathBuf,
    recipe: Option<String>,
    /// None of a sweep that is not finished.
    result: Option<SweepResult>,
    found: FoundRuns,
    identity: Option<RunIdentity>,
}

impl ReportedSweep {
    /// The sweep in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(SWEEP_RESULT);
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
            remedy: REMEDY,
        };
        let result = if path.is_file() {
            let value = read_json(&path, REMEDY)?;
            Some(SweepResult::from_json(value).map_err(damaged)?)
        } else {
            None
        };
        let shared = folder.join(SWEEP_SHARED);
        let recipe = if shared.is_file() {
            Some(fs_err::read_to_string(shared).map_err(Error::Read)?)
        } else {
            None
        };
        let found = find_runs(&folder.join(SWEEP_RUNS))?;
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
        let conclusion = self.result.as_ref().map(SweepResult::conclusion);
        self.section_saying("Sweep", conclusion)
    }

    /// All that there is to say of a pilot, which is judged by more than its metric: that `advised` is to be
    /// taken.
    pub(super) fn section_of_pilot(mut self, advised: Option<Freeze>) -> Section {
        if let Some(SweepResult(table)) = &mut self.result {
            let row = table.best().find(|row| Some(row.freeze) == advised);
            table.cheapest_not_worse = row.map(|row| study::Cell {
                freeze: row.freeze,
                lr: row.lr,
            });
        }
        self.section_saying("Pilot of", None)
    }

    fn section_saying(&self, kind: &str, conclusion: Option<String>) -> Section {
        let path = self.folder.display().to_string();
        let mut section = Section::new(format!("{kind} {}", folder_name(&self.folder)), Some(path));
        if let Some(result) = &self.result {
            section
                .blocks
                .extend(self.left_out(result).map(Block::Warning));
            section.blocks.extend(conclusion.map(Block::Paragraph));
            section.draw(&result.plots());
            section.add_table(result.table());
            if result.shares_passes() {
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
            section.add_table(fingerprints(identity));
        }
        if let Some(recipe) = &self.recipe {
            section.blocks.push(Block::Text {
                heading: "Recipe that all runs share".into(),
                text: recipe.clone(),
            });
        }
        section
    }

    /// Which runs of the folder the result does not have.
    fn left_out(&self, result: &SweepResult) -> Option<String> {
        let runs = self.folder.join(SWEEP_RUNS);
        let in_it: HashSet<PathBuf> = result
            .0
            .rows
            .iter()
            .flat_map(|row| {
                let seeds = row.seeds.iter();
                seeds.map(move |seed| format!("freeze-{}/lr-{:e}/seed-{seed}", row.freeze, row.lr))
            })
            .map(|name| runs.join(name))
            .collect();
        let others = self.found.runs.iter().filter_map(|run| {
            let state = match run.summary {
                None => "not finished",
                Some(_) if in_it.contains(&run.folder) => return None,
                Some(_) => "finished",
            };
            Some((&run.folder, state))
        });
        let unreadable = self.found.unreadable.iter();
        let unreadable = unreadable.map(|(folder, _)| (folder, "damaged"));
        let named = others.chain(unreadable).map(|(folder, state)| {
            let name = folder.strip_prefix(&runs).unwrap_or(folder);
            format!("{} ({state})", name.display())
        });
        let named: Vec<String> = named.collect();
        (!named.is_empty()).then(|| {
            format!(
                "The folder has runs that the table and the plots have not, because they were not asked for with the others, were finished later, or are not finished: {}.",
                named.join(", ")
            )
        })
    }

    /// What the first seed of each K learnt, at its best learning rate.
    fn curves(&self, result: &SweepResult) -> Vec<Plot> {
        let histories = result.0.best().filter_map(|row| {
            let (lr, seed) = (row.lr, row.seeds.first()?);
            let folder = format!("runs/freeze-{}/lr-{lr:e}/seed-{seed}", row.freeze);
            let history = History::read(&self.folder.join(folder)).ok()?;
            Some((format!("K = {}", row.freeze), history))
        });
        let histories: Vec<(String, History)> = histories.collect();
        let plot = |name: &str, title: String, y: &str, series: Vec<Series>| Plot {
            name: name.into(),
            title,
            caption: "First seed of each K, at its best learning rate.".into(),
            x: Axis::new("step", Marks::Whole),
            y: Axis::new(y, Marks::Numbers),
            series,
        };
        let metric = &result.0.metric;
        vec![
            plot(
                "training-loss",
                "Training loss".into(),
                "loss",
                curves(&histories, "loss", |history| history.losses.clone()),
            ),
            plot(
                "validation",
                format!("Validation {metric} while training"),
                metric,
                curves(&histories, metric, |history| history.metric(metric)),
            ),
        ]
    }

    /// The runs of a sweep that is not finished.
    fn runs_so_far(&self) -> Table {
        let rows = self.found.runs.iter().map(|run| {
            let name = run.folder.strip_prefix(self.folder.join(SWEEP_RUNS));
            let name = name.unwrap_or(&run.folder).display().to_string();
            let metric = run.metric().unwrap_or_default();
            let figure = |split: &str| {
                let summary = run.summary.as_ref()?;
                summary.get(split)?.get(&metric)?.as_f64()
            };
            let state = if run.summary.is_some() { "yes" } else { "no" };
            Row::new(vec![
                Cell::text(name),
                Cell::text(state),
                Cell::text(&metric),
                Cell::figure(figure("valid"), number),
                Cell::figure(figure("test"), number),
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
