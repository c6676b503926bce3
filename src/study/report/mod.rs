//! What runs, sweeps, advice, comparisons and probes of models came to, as one HTML page that needs nothing else.

mod advice;
mod error;
mod figures;
mod heat_map;
mod html;
mod page;
mod palette;
mod plot;
mod probe;
mod rsa;
mod run;
mod scale;
mod section;
mod summary;
mod svg;
mod sweep;
mod sweep_result;

use std::path::{Path, PathBuf};

use serde_json::Value;

use advice::ReportedAdvice;
pub use error::Error;
use probe::ProbedModel;
use rsa::Comparison;
use run::ReportedRun;
use section::Section;
use sweep::ReportedSweep;

use super::{ADVICE_RESULT, SWEEP_RESULT, SWEEP_SHARED};
use crate::train::RunFolder;

/// A page of runs, sweeps and comparisons, read and ready to be written.
pub struct Report {
    sections: Vec<Section>,
}

/// What a path turned out to be.
enum Part {
    Run(Box<ReportedRun>),
    Sweep(Box<ReportedSweep>),
    Advice(Box<ReportedAdvice>),
    Comparison(Comparison),
    Probed(ProbedModel),
}

impl Part {
    fn read(path: &Path) -> Result<Self, Error> {
        if path.join(ADVICE_RESULT).is_file() {
            return Ok(Self::Advice(Box::new(ReportedAdvice::read(path)?)));
        }
        if path.join(SWEEP_RESULT).is_file() || path.join(SWEEP_SHARED).is_file() {
            return Ok(Self::Sweep(Box::new(ReportedSweep::read(path)?)));
        }
        if RunFolder::recipe(path).is_ok() {
            return Ok(Self::Run(Box::new(ReportedRun::read(path)?)));
        }
        if path.is_file() {
            return match read_json(
                path,
                "pass run folders, sweep folders, and files with what `telly rsa --json` or `telly probe --json` printed",
            )? {
                Value::Object(facts) if facts.contains_key(ProbedModel::KEY) => {
                    Ok(Self::Probed(ProbedModel::new(path, facts)?))
                }
                other => Ok(Self::Comparison(Comparison::new(path, other)?)),
            };
        }
        Err(if path.exists() {
            Error::Unknown { path: path.into() }
        } else {
            Error::Missing { path: path.into() }
        })
    }

    fn sections(self) -> Vec<Section> {
        match self {
            Self::Run(run) => vec![run.section()],
            Self::Sweep(sweep) => vec![sweep.section()],
            Self::Advice(advice) => advice.sections(),
            Self::Comparison(comparison) => vec![comparison.section()],
            Self::Probed(probed) => vec![probed.section()],
        }
    }
}

impl Report {
    /// Of `paths`, each a run's folder, a sweep's, that of `telly advise`, or a file with what `telly rsa --json` or
    /// `telly probe --json` printed, in their order. The first of them that cannot be read is the error.
    pub fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let parts = paths.iter().map(|path| Part::read(path));
        let parts = parts.collect::<Result<Vec<Part>, Error>>()?;
        let runs: Vec<&ReportedRun> = parts
            .iter()
            .filter_map(|part| match part {
                Part::Run(run) => Some(run.as_ref()),
                _ => None,
            })
            .collect();
        let mut sections = Vec::new();
        if runs.len() > 1 {
            sections.push(run::overview(&runs));
        }
        sections.extend(parts.into_iter().flat_map(Part::sections));
        section::name_apart(&mut sections);
        Ok(Self { sections })
    }

    /// The page, which refers to no other file.
    pub fn to_html(&self) -> String {
        page::page(&self.sections)
    }

    /// Every plot as a file of its own, in the order of the page: the file's name, and SVG.
    pub fn plots(&self) -> Vec<(String, String)> {
        let sections = self.sections.iter();
        let plots = sections.flat_map(|section| {
            let drawings = section.drawings();
            drawings.map(|drawing| {
                let name = format!("{}-{}.svg", section.id, drawing.name);
                (name, palette::standalone(&drawing.svg))
            })
        });
        plots.collect()
    }
}

/// The JSON in the file `path`; of several lines that are no JSON together, that in the last one. `remedy` is
/// what helps where there is none.
fn read_json(path: &Path, remedy: &'static str) -> Result<Value, Error> {
    let bytes = fs_err::read(path).map_err(Error::Read)?;
    let text = String::from_utf8(bytes).map_err(|_| Error::Damaged {
        path: path.into(),
        problem: "it is no text".into(),
        remedy,
    })?;
    let whole = serde_json::from_str(&text);
    whole
        .or_else(|error| {
            let last = text.lines().rev().find(|line| !line.trim().is_empty());
            last.and_then(|line| serde_json::from_str(line).ok())
                .ok_or(error)
        })
        .map_err(|error| Error::Damaged {
            path: path.into(),
            problem: error.to_string(),
            remedy,
        })
}
