//! `telly report`.

use std::path::PathBuf;

use clap::Args;
use serde_json::{Map, json};

use super::console;
use super::output_file::place;
use crate::error::Error;
use crate::publish::publish;
use crate::study::report::Report;

/// Write what runs, sweeps, advice and comparisons came to as one HTML page.
///
/// The page needs no network and no other file: curves, K against quality and cost, similarity and
/// probes by layer, tables, recipes and fingerprints. It reads well on a phone, in the dark and on paper. Of
/// several runs, the page begins with all of them side by side.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly report runs/mine --out report.html
  telly report sweeps/mine runs/mine-1 rsa.json --out study.html --plots plots")]
pub(super) struct ReportArguments {
    /// Folders of runs, of sweeps and of `telly advise`, and files with what `telly rsa --json` and `telly probe --json` printed.
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,
    /// HTML file to write; an earlier one is replaced.
    #[arg(long, value_name = "FILE", help_heading = "Output")]
    out: PathBuf,
    /// Write each plot as an SVG file into this folder as well.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    plots: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(arguments: &ReportArguments) -> Result<(), Error> {
    let (folder, name) = place("--out", &arguments.out)?;
    if let Some(plots) = arguments.plots.as_deref().filter(|plots| plots.is_file()) {
        return Err(Error::Usage {
            problem: format!("`--plots {}` is a file, expected a folder", plots.display()),
            hint: "name a folder; one that is not there is made".into(),
        });
    }
    let report = Report::read(&arguments.paths)?;
    let plots = report.plots();
    if let Some(folder) = &arguments.plots {
        fs_err::create_dir_all(folder).map_err(Error::Output)?;
        for (name, svg) in &plots {
            publish(folder, name, svg.as_bytes()).map_err(Error::Output)?;
        }
    }
    publish(folder, &name, report.to_html().as_bytes()).map_err(Error::Output)?;
    let object = Map::from_iter([
        (
            "report".to_owned(),
            json!(arguments.out.display().to_string()),
        ),
        ("plots".to_owned(), json!(plots.len())),
    ]);
    console::result(arguments.json, &object)
}
