//! How alike two models are at each layer, as `telly rsa --json` printed it.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::figures::named;
use super::heat_map::{self, HeatMap};
use super::plot::{Axis, Marks, Plot, Point, Series};
use super::section::{Cell, Drawing, Row, Section, Table};
use super::{Error, svg};

/// What is measured of a layer.
const MEASURES: [&str; 3] = ["Pearson", "Spearman", "CKA"];
/// How far beside their layer the intervals of two measures are, so that they can be seen.
const ASIDE: f64 = 0.12;

/// A comparison of two models.
pub(super) struct Comparison {
    path: PathBuf,
    layers: Vec<Layer>,
    /// Whatever else was printed.
    facts: Map<String, Value>,
}

#[derive(Deserialize)]
struct Layer {
    #[serde(rename = "layer")]
    number: usize,
    pearson: Option<f64>,
    pearson_interval: Option<[f64; 2]>,
    spearman: Option<f64>,
    spearman_interval: Option<[f64; 2]>,
    cka: Option<f64>,
    cka_interval: Option<[f64; 2]>,
}

impl Layer {
    /// Values and intervals in the order of [`MEASURES`].
    fn measured(&self) -> [(Option<f64>, Option<[f64; 2]>); 3] {
        [
            (self.pearson, self.pearson_interval),
            (self.spearman, self.spearman_interval),
            (self.cka, self.cka_interval),
        ]
    }
}

impl Comparison {
    /// That of `found`, which stood in the file `path`.
    pub(super) fn new(path: &Path, found: Value) -> Result<Self, Error> {
        let other = |problem: String| Error::NoComparison {
            path: path.into(),
            problem,
        };
        let Value::Object(mut facts) = found else {
            return Err(other("it is no JSON object".into()));
        };
        let layers = facts.remove("layers");
        let layers = layers.ok_or_else(|| other("it has no `layers`".into()))?;
        let layers: Vec<Layer> =
            serde_json::from_value(layers).map_err(|error| other(format!("`layers`: {error}")))?;
        if layers.is_empty() {
            return Err(other("`layers` is empty".into()));
        }
        Ok(Self {
            path: path.into(),
            layers,
            facts,
        })
    }

    /// All that there is to say.
    pub(super) fn section(&self) -> Section {
        let name = |key: &str| {
            let path = self.facts.get(key)?.as_str()?;
            Some(super::run::folder_name(Path::new(path)))
        };
        let title = match (name("a"), name("b")) {
            (Some(a), Some(b)) => format!("Similarity of {a} and {b}"),
            _ => "Similarity of two models".into(),
        };
        let mut section = Section::new(title, Some(self.path.display().to_string()));
        let plot = self.plot();
        section.add_drawings(vec![
            Drawing {
                name: "heat-map".into(),
                svg: heat_map::draw(&self.heat_map()),
                caption: "1: the layer relates the texts to each other as the other model's does. Layer 0 is the embeddings.".into(),
            },
            Drawing {
                name: "layers".into(),
                svg: svg::draw(&plot),
                caption: plot.caption,
            },
        ]);
        section.add_table(self.table());
        let facts = self.facts.iter().filter(|(_, value)| !value.is_null());
        let facts = facts.map(|(name, value)| {
            let label = match name.as_str() {
                "a" => "first model".into(),
                "b" => "second model".into(),
                name => name.replace('_', " "),
            };
            Row::fact(&label, Cell::text(named(name, value)))
        });
        section.add_table(Table::facts("How it was measured", facts.collect()));
        section
    }

    /// Whether there is an interval of anything.
    fn has_intervals(&self) -> bool {
        let mut measured = self.layers.iter().flat_map(Layer::measured);
        measured.any(|(_, interval)| interval.is_some())
    }

    fn heat_map(&self) -> HeatMap<'_> {
        let layers = self.layers.iter();
        HeatMap {
            title: "Similarity by layer",
            rows: layers
                .clone()
                .map(|layer| format!("layer {}", layer.number))
                .collect(),
            columns: MEASURES.to_vec(),
            cells: layers
                .map(|layer| layer.measured().map(|(value, _)| value).to_vec())
                .collect(),
        }
    }

    fn plot(&self) -> Plot {
        let series = MEASURES.iter().enumerate().map(|(measure, name)| {
            let aside = (measure as f64 - 1.0) * ASIDE;
            let points = self.layers.iter().filter_map(|layer| {
                let (value, interval) = layer.measured()[measure];
                let value = value?;
                let said = interval.map(|[low, high]| format!(" [{low:.4}, {high:.4}]"));
                let title = format!(
                    "layer {}: {name} {value:.4}{}",
                    layer.number,
                    said.unwrap_or_default()
                );
                let mut point = Point::new(layer.number as f64 + aside, value, title);
                point.interval = interval;
                Some(point)
            });
            Series {
                name: (*name).into(),
                points: points.collect(),
                line: true,
            }
        });
        let names = self.layers.iter();
        let names = names.map(|layer| (layer.number as f64, layer.number.to_string()));
        Plot {
            name: "layers".into(),
            title: "Similarity from layer to layer".into(),
            caption: if self.has_intervals() {
                "Bars are 95 % intervals over resampled texts. CKA is too large on few texts and more so in resamples, so that its bar may lie above it.".into()
            } else {
                String::new()
            },
            x: Axis::new("layer", Marks::Named(names.collect())),
            y: Axis::new("similarity", Marks::Numbers),
            series: series.collect(),
        }
    }

    fn table(&self) -> Table {
        let rows = self.layers.iter().map(|layer| {
            let cells = layer.measured().map(|(value, interval)| {
                let text = match (value, interval) {
                    (None, _) => "-".into(),
                    (Some(value), Some([low, high])) => {
                        format!("{value:.4} [{low:.4}, {high:.4}]")
                    }
                    (Some(value), None) => format!("{value:.4}"),
                };
                Cell::number(text)
            });
            let name = Cell::text(layer.number.to_string());
            Row::new(std::iter::once(name).chain(cells).collect())
        });
        let interval = if self.has_intervals() { " [95 %]" } else { "" };
        let columns = MEASURES.map(|name| format!("{name}{interval}"));
        Table {
            heading: "Layers".into(),
            columns: std::iter::once("layer".to_owned()).chain(columns).collect(),
            rows: rows.collect(),
        }
    }
}
