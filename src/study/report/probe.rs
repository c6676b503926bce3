//! What layers know of code, as `telly probe --json` printed it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::figures::named;
use super::heat_map::{self, HeatMap};
use super::plot::{Axis, Marks, Plot, Point, Series};
use super::section::{Cell, Drawing, Row, Section, Table};
use super::{Error, svg};
use crate::study::probe::{Finding, LayerReading};

/// The probes of a model.
pub(super) struct ProbedModel {
    path: PathBuf,
    probes: Vec<Finding>,
    /// Whatever else was printed.
    facts: Map<String, Value>,
}

impl ProbedModel {
    /// The key that tells it from other results.
    pub(super) const KEY: &str = "probes";

    /// That of `facts`, which stood in the file `path`.
    pub(super) fn new(path: &Path, mut facts: Map<String, Value>) -> Result<Self, Error> {
        let other = |problem: String| Error::NoProbes {
            path: path.into(),
            problem,
        };
        let probes = facts.remove(Self::KEY).unwrap_or_default();
        let probes: Vec<Finding> = serde_json::from_value(probes)
            .map_err(|error| other(format!("`{}`: {error}", Self::KEY)))?;
        let layers = probes.first().map_or(0, |probe| probe.layers.len());
        if layers == 0 {
            return Err(other("there is no layer".into()));
        }
        if probes.iter().any(|probe| probe.layers.len() != layers) {
            return Err(other("its probes have different numbers of layers".into()));
        }
        Ok(Self {
            path: path.into(),
            probes,
            facts,
        })
    }

    /// All that there is to say.
    pub(super) fn section(&self) -> Section {
        let model = self.facts.get("model").and_then(Value::as_str);
        let model = model.map(|path| super::run::folder_name(Path::new(path)));
        let title = match model {
            Some(model) => format!("What the layers of {model} know"),
            None => "What layers know".into(),
        };
        let mut section = Section::new(title, Some(self.path.display().to_string()));
        let map = |title: &'static str, value: &dyn Fn(&LayerReading) -> f64| HeatMap {
            title,
            rows: self.probes[0]
                .layers
                .iter()
                .map(|layer| format!("layer {}", layer.layer))
                .collect(),
            columns: self.probes.iter().map(|probe| probe.probe.name()).collect(),
            cells: (0..self.probes[0].layers.len())
                .map(|row| {
                    let probes = self.probes.iter();
                    probes
                        .map(|probe| Some(value(&probe.layers[row])))
                        .collect()
                })
                .collect(),
        };
        let plot = self.plot();
        section.add_drawings(vec![
            Drawing {
                name: "probes".into(),
                svg: heat_map::draw(&map("Found by layer", &|layer| layer.reading.value)),
                caption: format!("{}. Layer 0 is the embeddings.", self.metrics()),
            },
            Drawing {
                name: "weights".into(),
                svg: heat_map::draw(&map("Weight in the mixture", &|layer| layer.weight)),
                caption: "How much of each layer a probe takes that may mix all.".into(),
            },
            Drawing {
                name: "layers".into(),
                svg: svg::draw(&plot),
                caption: plot.caption,
            },
        ]);
        for probe in &self.probes {
            section.add_table(table(probe));
        }
        section.add_table(Table::facts("How it was measured", self.facts()));
        section
    }

    /// Whatever else was printed; what is within another by both names.
    fn facts(&self) -> Vec<Row> {
        let fact = |label: &str, name: &str, value: &Value| {
            Row::fact(&label.replace('_', " "), Cell::text(named(name, value)))
        };
        let mut rows = Vec::new();
        for (name, value) in &self.facts {
            match value {
                Value::Null => {}
                Value::Object(inner) => rows.extend(
                    inner
                        .iter()
                        .map(|(key, value)| fact(&format!("{name}, {key}"), key, value)),
                ),
                value => rows.push(fact(name, name, value)),
            }
        }
        rows
    }

    /// What the numbers of each probe are.
    fn metrics(&self) -> String {
        let probes = self.probes.iter();
        let metrics = probes.map(|probe| format!("{}: {}", probe.probe.name(), probe.metric));
        metrics.collect::<Vec<_>>().join(", ")
    }

    fn plot(&self) -> Plot {
        let series = self.probes.iter().map(|probe| {
            let points = probe.layers.iter().map(|layer| {
                let (reading, name) = (layer.reading, probe.probe.name());
                let title = format!("layer {}: {name} {reading}", layer.layer);
                let mut point = Point::new(layer.layer as f64, reading.value, title);
                point.interval = reading.interval;
                point
            });
            Series {
                name: probe.probe.name().into(),
                points: points.collect(),
                line: true,
            }
        });
        let names = self.probes[0].layers.iter();
        let names = names.map(|layer| (layer.layer as f64, layer.layer.to_string()));
        Plot {
            name: "layers".into(),
            title: "What is found from layer to layer".into(),
            caption: if self.probes.iter().any(Finding::has_intervals) {
                format!(
                    "{}. Bars are 95 % intervals over other test examples.",
                    self.metrics()
                )
            } else {
                self.metrics()
            },
            x: Axis::new("layer", Marks::Named(names.collect())),
            y: Axis::new("found", Marks::Numbers),
            series: series.collect(),
        }
    }
}

fn table(finding: &Finding) -> Table {
    let rows = finding.rows().map(|cells| {
        let mut cells = cells.into_iter();
        let name = cells.next().map(Cell::text);
        Row::new(name.into_iter().chain(cells.map(Cell::number)).collect())
    });
    Table {
        heading: finding.summary(),
        columns: finding.columns(),
        rows: rows.collect(),
    }
}
