//! How far two K of a pilot differ where there is one seed: row by row.

use std::ffi::OsString;
use std::io::BufRead;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::advise_sample::VALID;
use super::console;
use super::sweep_folder::{Sweep, telly_json};
use crate::checkpoint::Freeze;
use crate::error::Error;
use crate::study::{self, PairedTest};

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
    /// Over the rows that count; none where all rows score the same with both, which no test can judge.
    pub(super) test: Option<PairedTest>,
    /// How many they are.
    pub(super) rows: usize,
}

#[derive(Deserialize)]
struct Line {
    score: Option<f64>,
}

impl Difference {
    /// Of `chosen` against the base of `table`, by the first seed of the pilot's `sweep`; none where the
    /// metric is no mean over rows.
    pub(super) fn of(
        sweep: &Sweep,
        table: &study::Table,
        chosen: Freeze,
    ) -> Result<Option<Self>, Error> {
        if !MEANS.contains(&table.metric.as_str()) {
            return Ok(None);
        }
        let runs = [chosen, table.base].map(|freeze| sweep.first_run(freeze));
        let [Some(chosen), Some(base)] = runs else {
            return Ok(None);
        };
        let (Some(scores), Some(base)) = (scores(sweep, &chosen)?, scores(sweep, &base)?) else {
            return Ok(None);
        };
        let pairs = scores.into_iter().zip(base);
        let pairs: Vec<(f64, f64)> = pairs.filter_map(|(one, other)| one.zip(other)).collect();
        let alike = pairs
            .iter()
            .all(|(one, other)| one.total_cmp(other).is_eq());
        let test = PairedTest::new(&pairs).filter(|_| !alike);
        Ok((test.is_some() || alike).then_some(Self {
            test,
            rows: pairs.len(),
        }))
    }

    pub(super) fn to_json(&self) -> Value {
        json!({ "rows": self.rows, "test": self.test })
    }
}

/// Of each row what `run` makes of it; none where `telly evaluate` has no such scores.
fn scores(sweep: &Sweep, run: &Path) -> Result<Option<Vec<Option<f64>>>, Error> {
    let folder = &sweep.folder;
    let place = tempfile::tempdir_in(folder).map_err(Error::Output)?;
    let file = place.path().join("scores.jsonl");
    let mut flags: Vec<OsString> = vec!["--run".into(), run.into(), "--data".into()];
    flags.extend([folder.join(VALID).into(), "--scores".into()]);
    flags.push(file.clone().into());
    flags.extend(sweep.typed(&SHARED));
    match telly_json("evaluate", flags, folder) {
        Ok(_) => {}
        Err(Error::Child { .. }) => {
            console::say("the rows are not compared; the advice goes without");
            return Ok(None);
        }
        Err(error) => return Err(error),
    }
    let text = fs_err::read(&file).map_err(Error::Output)?;
    let lines = text.lines().map(|line| {
        let line = line.map_err(Error::Output)?;
        let line: Line = serde_json::from_str(&line)
            .map_err(|error| Error::Output(std::io::Error::other(error)))?;
        Ok(line.score)
    });
    lines.collect::<Result<Vec<_>, _>>().map(Some)
}
