//! What a probe found beside its controls, as `telly probe` tells it and `telly report` reads it.

use std::fmt::{self, Display, Formatter};

use serde::{Deserialize, Serialize};

use super::{Probe, ProbeResult, Readings, Scores};

/// What a probe's result is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Control {
    /// The same probes on a model of the same shape with random weights.
    Weights,
    /// The same probes on labels in random order: what they find is chance.
    Labels,
    /// Nothing.
    None,
}

/// A number that a probe found, and what its controls did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// By the probe's metric.
    pub value: f64,
    /// The 95 % confidence interval of the value, over other test examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interval: Option<[f64; 2]>,
    /// Of a model of the same shape with random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_weights: Option<f64>,
    /// The 95 % confidence interval of how far the value is above that, by the same test examples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above_random_weights: Option<[f64; 2]>,
    /// With labels in random order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_labels: Option<f64>,
}

impl Reading {
    /// Of a probe that has these `scores` on test examples of `clusters`.
    fn new(scores: &Scores, clusters: &[i64]) -> Self {
        Self {
            value: scores.mean(),
            interval: scores.interval(clusters),
            random_weights: None,
            above_random_weights: None,
            random_labels: None,
        }
    }

    /// Sets beside `own` scores those of a `control`.
    fn set(&mut self, control: Control, own: &Scores, other: &Scores, clusters: &[i64]) {
        match control {
            Control::Weights => {
                self.random_weights = Some(other.mean());
                self.above_random_weights = own.interval_above(other, clusters);
            }
            Control::Labels => self.random_labels = Some(other.mean()),
            Control::None => {}
        }
    }
}

/// The value, and its interval if there is one.
impl Display for Reading {
    fn fmt(&self, formatter: &mut Formatter) -> fmt::Result {
        write!(formatter, "{:.4}", self.value)?;
        match self.interval {
            None => Ok(()),
            Some([low, high]) => write!(formatter, " [{low:.4}, {high:.4}]"),
        }
    }
}

/// A layer, as a probe found it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LayerReading {
    /// From the embeddings, which are layer 0.
    pub layer: usize,
    /// What the probe of this layer alone found.
    #[serde(flatten)]
    pub reading: Reading,
    /// The layer's share of the mixture.
    pub weight: f64,
}

/// All that one probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Which one.
    pub probe: Probe,
    /// What tells how well it is found.
    pub metric: String,
    /// Examples it learnt from.
    pub train: usize,
    /// Examples it was tested on.
    pub test: usize,
    /// What guessing gives.
    pub chance: f64,
    /// Of the probe that mixes all layers.
    pub mixed: Reading,
    /// Of the probes of each layer.
    pub layers: Vec<LayerReading>,
}

impl Finding {
    /// Of `probe`, which came to `result`.
    pub fn new(probe: Probe, result: &ProbeResult) -> Self {
        let reading = |scores| Reading::new(scores, &result.clusters);
        let Readings {
            layers,
            mixed,
            weights,
        } = &result.readings;
        let layers = layers.iter().zip(weights).enumerate();
        Self {
            probe,
            metric: probe.metric().into(),
            train: result.train,
            test: result.test,
            chance: result.chance,
            mixed: reading(mixed),
            layers: layers
                .map(|(layer, (scores, &weight))| LayerReading {
                    layer,
                    reading: reading(scores),
                    weight,
                })
                .collect(),
        }
    }

    /// Sets beside it, which came of `own`, what a `control` came to on the same test examples.
    pub fn set_beside(&mut self, control: Control, own: &ProbeResult, other: &ProbeResult) {
        let clusters = &own.clusters;
        let (own, other) = (&own.readings, &other.readings);
        let layers = own.layers.iter().zip(&other.layers);
        for (layer, (own, other)) in self.layers.iter_mut().zip(layers) {
            layer.reading.set(control, own, other, clusters);
        }
        self.mixed.set(control, &own.mixed, &other.mixed, clusters);
    }

    /// What it learnt from, what it was tested on, and what guessing gives.
    pub fn summary(&self) -> String {
        format!(
            "{}: learnt from {}, tested on {}; guessing gives {:.4}",
            self.probe.name(),
            self.train,
            self.test,
            self.chance
        )
    }

    /// Whether there is an interval of what it found.
    pub fn has_intervals(&self) -> bool {
        self.readings().any(|reading| reading.interval.is_some())
    }

    /// The heading of its table: layer, metric, controls, weight.
    pub fn columns(&self) -> Vec<String> {
        let interval = if self.has_intervals() { " [95 %]" } else { "" };
        let columns = [
            ("layer".to_owned(), true),
            (format!("{}{interval}", self.metric), true),
            ("random weights".into(), self.has_random_weights()),
            ("above them, 95 %".into(), self.has_intervals_above()),
            ("random labels".into(), self.has_random_labels()),
            ("weight in the mixture".into(), true),
        ];
        let columns = columns.into_iter().filter(|(_, is_there)| *is_there);
        columns.map(|(name, _)| name).collect()
    }

    /// The rows of its table: each layer, and all of them mixed, which has no weight.
    pub fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let layers = self.layers.iter();
        let layers = layers.map(|layer| (layer.layer.to_string(), layer.reading, layer.weight));
        let rows = layers.map(|(name, reading, weight)| (name, reading, format!("{weight:.3}")));
        let rows = rows.chain([("mixed".into(), self.mixed, String::new())]);
        rows.map(|(name, reading, weight)| {
            let control = |value: Option<f64>, is_there: bool| {
                let cell = value.map_or_else(|| "-".into(), |value| format!("{value:.4}"));
                is_there.then_some(cell)
            };
            let above = reading.above_random_weights;
            let above = above.map_or_else(
                || "-".into(),
                |[low, high]| format!("[{low:+.4}, {high:+.4}]"),
            );
            let cells = [
                Some(name),
                Some(reading.to_string()),
                control(reading.random_weights, self.has_random_weights()),
                self.has_intervals_above().then_some(above),
                control(reading.random_labels, self.has_random_labels()),
                Some(weight),
            ];
            cells.into_iter().flatten().collect()
        })
    }

    fn readings(&self) -> impl Iterator<Item = &Reading> {
        let layers = self.layers.iter().map(|layer| &layer.reading);
        layers.chain([&self.mixed])
    }

    fn has_random_weights(&self) -> bool {
        self.mixed.random_weights.is_some()
    }

    fn has_intervals_above(&self) -> bool {
        self.readings()
            .any(|reading| reading.above_random_weights.is_some())
    }

    fn has_random_labels(&self) -> bool {
        self.mixed.random_labels.is_some()
    }
}
