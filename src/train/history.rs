//! What runs left on disk, for looking at.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde_json::{Map, Value};
use toml::Table;

use super::run_folder::{METRICS, RECIPE};
use super::{Error, RunFolder};

/// The figures of a run by its steps, as `metrics.jsonl` has them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Training losses: step, loss.
    pub losses: Vec<(f64, f64)>,
    /// Learning rates: step, rate.
    pub learning_rates: Vec<(f64, f64)>,
    /// Euclidean norms of the gradients before they were clipped: step, norm.
    pub gradient_norms: Vec<(f64, f64)>,
    /// Evaluations of the validation split: step, metrics.
    pub valid: Vec<(f64, Map<String, Value>)>,
}

impl History {
    /// Of the run in `folder`. A last line that is not whole, as a killed run may leave, is passed
    /// over, and so is a run without any.
    pub fn read(folder: &Path) -> Result<Self, Error> {
        let text = match fs_err::read_to_string(folder.join(METRICS)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(Error::Read(error)),
        };
        let mut history = Self::default();
        let lines = text.lines().map(serde_json::from_str::<Value>);
        for line in lines.map_while(Result::ok) {
            let Some(step) = line["step"].as_f64() else {
                continue;
            };
            for (name, figures) in [
                ("learning_rate", &mut history.learning_rates),
                ("gradient_norm", &mut history.gradient_norms),
            ] {
                figures.extend(line[name].as_f64().map(|figure| (step, figure)));
            }
            if let Some(loss) = line["loss"].as_f64() {
                history.losses.push((step, loss));
            } else if let ("valid", Some(metrics)) = (
                line["split"].as_str().unwrap_or_default(),
                line["metrics"].as_object(),
            ) {
                history.valid.push((step, metrics.clone()));
            }
        }
        Ok(history)
    }

    /// The validation metric `name` by steps.
    pub fn metric(&self, name: &str) -> Vec<(f64, f64)> {
        let evaluations = self.valid.iter();
        evaluations
            .filter_map(|(step, metrics)| Some((*step, metrics.get(name)?.as_f64()?)))
            .collect()
    }
}

/// A run as it lies on disk, or a group of them.
#[derive(Debug, Clone)]
pub struct RecordedRun {
    /// Where.
    pub folder: PathBuf,
    /// What it was told.
    pub recipe: Table,
    /// What it came to, if it is finished.
    pub summary: Option<Map<String, Value>>,
    /// When it was last written to.
    pub modified: SystemTime,
}

impl RecordedRun {
    /// The run in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(RECIPE);
        if !path.is_file() {
            return Err(Error::NoRun {
                folder: folder.to_owned(),
                file: RECIPE,
            });
        }
        let text = fs_err::read_to_string(&path).map_err(Error::Read)?;
        let recipe = text
            .parse()
            .map_err(|error: toml::de::Error| Error::Damaged {
                path: path.clone(),
                problem: error.message().to_owned(),
            })?;
        let modified = [METRICS, RECIPE].into_iter().find_map(|file| {
            let metadata = fs_err::metadata(folder.join(file)).ok()?;
            metadata.modified().ok()
        });
        Ok(Self {
            folder: folder.to_owned(),
            recipe,
            summary: RunFolder::summary(folder)?,
            modified: modified.unwrap_or(SystemTime::UNIX_EPOCH),
        })
    }

    /// The metric by which it is judged: the one that chose its weights, else its task's first.
    pub fn metric(&self) -> Option<String> {
        if let Some(name) = self.recipe.get("best_metric") {
            return name.as_str().map(str::to_owned);
        }
        let summary = self.summary.as_ref()?;
        if let Some(name) = summary.get("metric").and_then(Value::as_str) {
            return Some(name.to_owned());
        }
        let splits = ["valid", "test"].into_iter();
        let metrics = splits.filter_map(|split| summary.get(split)?.as_object());
        metrics.flat_map(Map::keys).next().cloned()
    }
}

/// What was found of runs, by the names of their folders.
#[derive(Debug, Default)]
pub struct FoundRuns {
    /// Those that can be read.
    pub runs: Vec<RecordedRun>,
    /// Those that cannot, and why.
    pub unreadable: Vec<(PathBuf, Error)>,
}

/// The runs in `folder` and in all folders below it; none if it is not there.
pub fn find_runs(folder: &Path) -> Result<FoundRuns, Error> {
    let mut found = FoundRuns::default();
    if !folder.exists() {
        return Ok(found);
    }
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        if folder.join(RECIPE).is_file() {
            match RecordedRun::open(&folder) {
                Ok(run) => found.runs.push(run),
                Err(error) => found.unreadable.push((folder.clone(), error)),
            }
        }
        for entry in fs_err::read_dir(&folder).map_err(Error::Read)? {
            let entry = entry.map_err(Error::Read)?;
            // Links are not followed: they might lead around in circles.
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                open.push(entry.path());
            }
        }
    }
    found.runs.sort_by(|a, b| a.folder.cmp(&b.folder));
    found.unreadable.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}
