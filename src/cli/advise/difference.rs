//! How far two K of a pilot differ where there is one seed: row by row.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::BufRead;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::kept::{kept, of_run};
use super::sample::VALID;
use crate::checkpoint::Freeze;
use crate::cli::sweep::folder::Sweep;
use crate::cli::sweep::process::telly_json_if_it_can;
use crate::error::Error;
use crate::study::{self, interval_of_mean};

/// Flags of training that decide what a run says of a row.
const SHARED: [&str; 7] = [
    "code_base",
    "provider",
    "cuda_devices",
    "batch_tokens",
    "threads",
    "onnxruntime",
    "device",
];

/// The metrics that are means over rows, as `telly evaluate --scores` writes them.
const MEANS: [&str; 3] = ["accuracy", "mrr", "map@r"];

/// What the rows that a pilot validates on tell of two K.
pub(super) struct Difference {
    /// The mean over the rows that count of the one's scores less the other's.
    mean: f64,
    /// Its 95 % confidence interval; none where all rows score the same with both, by which nothing can be
    /// judged.
    pub(super) interval: Option<[f64; 2]>,
    /// How many they are.
    pub(super) rows: usize,
    /// How many groups they are in, where those of one are found among each other and so not independent.
    pub(super) groups: Option<usize>,
}

#[derive(Serialize, Deserialize)]
struct Line {
    score: Option<f64>,
    group: Option<i64>,
}

impl Difference {
    /// Of `chosen` against the base of `table`, by the first seed of the pilot's `sweep`; none where the
    /// metric is no mean over rows, or they do not tell.
    pub(super) fn of(
        sweep: &Sweep,
        table: &study::Table,
        chosen: Freeze,
    ) -> Result<Option<Self>, Error> {
        if !MEANS.contains(&table.metric.as_str()) {
            return Ok(None);
        }
        let scores = |freeze| match sweep.first_run(freeze) {
            Some(run) => scores(sweep, freeze, &run),
            None => Ok(None),
        };
        let (Some(lines), Some(base)) = (scores(chosen)?, scores(table.base)?) else {
            return Ok(None);
        };
        let pairs = (0..).zip(lines.iter().zip(&base));
        let pairs = pairs.filter_map(|(row, (one, other))| {
            let difference = one.score? - other.score?;
            Some((difference, one.group.unwrap_or(row)))
        });
        let (differences, clusters): (Vec<f64>, Vec<i64>) = pairs.unzip();
        let interval = interval_of_mean(&differences, &clusters);
        let alike = differences.iter().all(|difference| *difference == 0.0);
        let is_grouped = lines.iter().any(|line| line.group.is_some());
        let groups = clusters.iter().collect::<HashSet<_>>().len();
        Ok((interval.is_some() || alike).then_some(Self {
            mean: differences.iter().sum::<f64>() / differences.len().max(1) as f64,
            interval,
            rows: differences.len(),
            groups: is_grouped.then_some(groups),
        }))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "rows": self.rows,
            "groups": self.groups,
            "mean": self.mean,
            "interval": self.interval,
        })
    }

    /// The rows in words.
    pub(super) fn said(&self) -> String {
        match self.groups {
            Some(groups) => format!("{} rows of {groups} groups", self.rows),
            None => format!("{} rows", self.rows),
        }
    }
}

/// Of each row what the run of `freeze` makes of it; none where `telly evaluate` has no such scores.
fn scores(sweep: &Sweep, freeze: Freeze, run: &Path) -> Result<Option<Vec<Line>>, Error> {
    let folder = &sweep.folder;
    let mut flags: Vec<OsString> = vec!["--run".into(), run.into(), "--data".into()];
    flags.push(folder.join(VALID).into());
    flags.extend(sweep.typed(&SHARED));
    let name = format!("scores-freeze-{freeze}.json");
    kept(folder, &name, of_run(run, &flags)?, || {
        evaluate(folder, flags)
    })
}

/// What `telly evaluate` with `flags` writes of each row.
fn evaluate(folder: &Path, mut flags: Vec<OsString>) -> Result<Option<Vec<Line>>, Error> {
    let place = tempfile::tempdir_in(folder).map_err(Error::Output)?;
    let file = place.path().join("scores.jsonl");
    flags.extend(["--scores".into(), file.clone().into()]);
    let without = "the rows are not compared; the advice goes without";
    if telly_json_if_it_can("evaluate", flags, folder, without)?.is_none() {
        return Ok(None);
    }
    let text = fs_err::read(&file).map_err(Error::Output)?;
    let lines = text.lines().map(|line| {
        let line = line.map_err(Error::Output)?;
        serde_json::from_str(&line).map_err(|error| Error::Output(std::io::Error::other(error)))
    });
    lines.collect::<Result<Vec<_>, _>>().map(Some)
}
