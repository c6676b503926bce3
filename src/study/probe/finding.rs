//! What a probe found beside its controls, as `telly probe` tells it and `telly report` reads it.

use std::collections::HashSet;
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

/// What a finding is set beside: the same probes on something else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// A model of the same shape with random weights.
    RandomWeights,
    /// Labels in random order.
    RandomLabels,
    /// The model that this one is compared with.
    Beside,
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
    /// Of the model that this one is held beside.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<f64>,
    /// The 95 % confidence interval of how far the value is above that, by the same test examples; none where
    /// these are others, as tokens are to another tokenizer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub above_beside: Option<[f64; 2]>,
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
            beside: None,
            above_beside: None,
        }
    }

    /// Sets beside it what was `found` elsewhere, and how far it is `above` that.
    fn set(&mut self, reference: Reference, found: f64, above: Option<[f64; 2]>) {
        match reference {
            Reference::RandomWeights => {
                (self.random_weights, self.above_random_weights) = (Some(found), above);
            }
            Reference::RandomLabels => self.random_labels = Some(found),
            Reference::Beside => (self.beside, self.above_beside) = (Some(found), above),
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
    /// The independent texts or problems that these are of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test_clusters: Option<usize>,
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
            test_clusters: Some(result.clusters.iter().collect::<HashSet<_>>().len()),
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

    /// Sets beside it, which came of `own`, what the `reference` came to; the two have as many layers.
    pub fn set_beside(&mut self, reference: Reference, own: &ProbeResult, other: &ProbeResult) {
        // Tokens of another tokenizer are other examples.
        let is_paired = own.clusters == other.clusters;
        let set = |reading: &mut Reading, scores: &Scores, others: &Scores| {
            let above = is_paired.then(|| scores.interval_above(others, &own.clusters));
            reading.set(reference, others.mean(), above.flatten());
        };
        let layers = own.readings.layers.iter().zip(&other.readings.layers);
        for (layer, (scores, others)) in self.layers.iter_mut().zip(layers) {
            set(&mut layer.reading, scores, others);
        }
        set(&mut self.mixed, &own.readings.mixed, &other.readings.mixed);
    }

    /// What it learnt from, what it was tested on, and what guessing gives.
    pub fn summary(&self) -> String {
        format!(
            "{}: learnt from {}, tested on {}; guessing gives {:.4}",
            self.probe.name(),
            self.train,
            self.tested_on(),
            self.chance
        )
    }

    /// How much it was tested on.
    pub fn tested_on(&self) -> String {
        match self.test_clusters {
            Some(clusters) if clusters < self.test => {
                format!("{} in {clusters} independent parts", self.test)
            }
            _ => self.test.to_string(),
        }
    }

    /// Whether there is an interval of what it found.
    pub fn has_intervals(&self) -> bool {
        self.readings().any(|reading| reading.interval.is_some())
    }

    /// The heading of its table: layer, metric, what it is set beside, weight.
    pub fn columns(&self) -> Vec<String> {
        let interval = if self.has_intervals() { " [95 %]" } else { "" };
        let metric = format!("{}{interval}", self.metric);
        let columns = Column::ALL.into_iter().filter(|column| self.has(*column));
        let columns = columns.map(|column| column.heading().to_owned());
        ["layer".to_owned(), metric]
            .into_iter()
            .chain(columns)
            .chain(["weight in the mixture".into()])
            .collect()
    }

    /// The rows of its table: each layer, and all of them mixed, which has no weight.
    pub fn rows(&self) -> impl Iterator<Item = Vec<String>> {
        let layers = self.layers.iter();
        let layers = layers.map(|layer| {
            let weight = format!("{:.3}", layer.weight);
            (layer.layer.to_string(), layer.reading, weight)
        });
        let rows = layers.chain([("mixed".into(), self.mixed, String::new())]);
        rows.map(|(name, reading, weight)| {
            let columns = Column::ALL.into_iter().filter(|column| self.has(*column));
            let columns = columns.map(|column| column.of(&reading).unwrap_or_else(|| "-".into()));
            [name, reading.to_string()]
                .into_iter()
                .chain(columns)
                .chain([weight])
                .collect()
        })
    }

    /// Whether `column` says anything.
    fn has(&self, column: Column) -> bool {
        self.readings().any(|reading| column.of(reading).is_some())
    }

    fn readings(&self) -> impl Iterator<Item = &Reading> {
        let layers = self.layers.iter().map(|layer| &layer.reading);
        layers.chain([&self.mixed])
    }
}

/// What stands beside the values of a table, where it is known.
#[derive(Debug, Clone, Copy)]
enum Column {
    RandomWeights,
    AboveRandomWeights,
    RandomLabels,
    Beside,
    AboveBeside,
}

impl Column {
    const ALL: [Self; 5] = [
        Self::RandomWeights,
        Self::AboveRandomWeights,
        Self::RandomLabels,
        Self::Beside,
        Self::AboveBeside,
    ];

    fn heading(self) -> &'static str {
        match self {
            Self::RandomWeights => "random weights",
            Self::AboveRandomWeights => "above random weights [95 %]",
            Self::AboveBeside => "above beside [95 %]",
            Self::RandomLabels => "random labels",
            Self::Beside => "beside",
        }
    }

    /// What it says of `reading`.
    fn of(self, reading: &Reading) -> Option<String> {
        let number = |value: Option<f64>| Some(format!("{:.4}", value?));
        let above = |ends: Option<[f64; 2]>, other: Option<f64>| match ends {
            Some([low, high]) => Some(format!("[{low:+.4}, {high:+.4}]")),
            // No example differs, so that there is nothing to judge by.
            None if other.is_some_and(|other| other.total_cmp(&reading.value).is_eq()) => {
                Some("same".into())
            }
            None => None,
        };
        match self {
            Self::RandomWeights => number(reading.random_weights),
            Self::AboveRandomWeights => above(reading.above_random_weights, reading.random_weights),
            Self::RandomLabels => number(reading.random_labels),
            Self::Beside => number(reading.beside),
            Self::AboveBeside => above(reading.above_beside, reading.beside),
        }
    }
}
