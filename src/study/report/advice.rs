//! The folder of `telly advise`: which K to take, what it costs, and the pilot that says so.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::figures::{bytes, seconds};
use super::probe::ProbedModel;
use super::rsa::Comparison;
use super::run::folder_name;
use super::section::{Block, Cell, Row, Section, Table};
use super::sweep::ReportedSweep;
use super::{Error, read_json};
use crate::checkpoint::Freeze;
use crate::study::ADVICE_RESULT;

/// What helps where it is damaged.
const REMEDY: &str = "the `telly advise` that made it writes it again, and trains nothing twice";

/// Advice as it is reported.
pub(super) struct ReportedAdvice {
    name: String,
    path: String,
    advice: Advice,
    comparison: Option<Comparison>,
    probed: Option<ProbedModel>,
    pilot: ReportedSweep,
}

#[derive(Deserialize)]
struct Advice {
    sentences: Vec<String>,
    predicted: Option<Prediction>,
    predicted_base: Option<Prediction>,
    similarities: Option<Value>,
    probes: Option<Map<String, Value>>,
}

/// What training on all of the data comes to.
#[derive(Deserialize)]
struct Prediction {
    freeze: Freeze,
    precompute_seconds: Option<f64>,
    epoch_seconds: Option<f64>,
    cache_bytes: Option<f64>,
    precompute_peak_bytes: Option<f64>,
    train_peak_bytes: Option<f64>,
}

impl ReportedAdvice {
    /// That in `folder`.
    pub(super) fn read(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(ADVICE_RESULT);
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
            remedy: REMEDY,
        };
        let value = read_json(&path, REMEDY)?;
        let mut advice: Advice =
            serde_json::from_value(value).map_err(|error| damaged(error.to_string()))?;
        let similarities = advice.similarities.take();
        let comparison = similarities.map(|found| Comparison::new(&path, found));
        let probed = advice.probes.take();
        let probed = probed.map(|found| ProbedModel::new(&path, found));
        Ok(Self {
            name: folder_name(folder),
            path: folder.display().to_string(),
            advice,
            comparison: comparison.transpose()?,
            probed: probed.transpose()?,
            pilot: ReportedSweep::read(folder)?,
        })
    }

    /// What it says, what the layers do before and after training, and the pilot.
    pub(super) fn sections(self) -> Vec<Section> {
        let mut section = Section::new(format!("Advice {}", self.name), Some(self.path));
        let Advice {
            sentences,
            predicted,
            predicted_base,
            ..
        } = self.advice;
        section.blocks.extend(
            sentences
                .iter()
                .map(|said| Block::Paragraph(sentence(said))),
        );
        let advised = predicted.as_ref().map(|predicted| predicted.freeze);
        let base = predicted_base.filter(|predicted| advised != Some(predicted.freeze));
        section.add_table(costs(predicted.iter().chain(&base)));
        let comparison = self.comparison.map(|comparison| comparison.section());
        std::iter::once(section)
            .chain(comparison)
            .chain(self.probed.map(|probed| probed.section()))
            .chain([self.pilot.section_of_pilot(advised)])
            .collect()
    }
}

/// A line of a terminal as a sentence: with a capital and a full stop.
fn sentence(said: &str) -> String {
    let mut letters = said.chars();
    let first = letters.next().into_iter().flat_map(char::to_uppercase);
    first.chain(letters).chain(['.']).collect()
}

fn costs<'a>(predicted: impl Iterator<Item = &'a Prediction>) -> Table {
    let columns = [
        "K",
        "precompute",
        "an epoch",
        "disk",
        "memory of precompute",
        "memory of training",
    ];
    let rows = predicted.map(|predicted| {
        Row::new(vec![
            Cell::text(predicted.freeze.to_string()),
            Cell::figure(predicted.precompute_seconds, seconds),
            Cell::figure(predicted.epoch_seconds, seconds),
            Cell::figure(predicted.cache_bytes, bytes),
            Cell::figure(predicted.precompute_peak_bytes, bytes),
            Cell::figure(predicted.train_peak_bytes, bytes),
        ])
    });
    Table {
        heading: "What all of the data will cost".into(),
        columns: columns.map(String::from).to_vec(),
        rows: rows.collect(),
    }
}
