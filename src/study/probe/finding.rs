//! What a probe found beside its controls, as `telly probe` tells it and `telly report` reads it.

use serde::{Deserialize, Serialize};

use super::{Probe, ProbeResult, Readings};

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
    /// Of a model of the same shape with random weights.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_weights: Option<f64>,
    /// With labels in random order.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub random_labels: Option<f64>,
}

impl Reading {
    /// What the controls found that there are, each by its name.
    pub fn controls(&self) -> impl Iterator<Item = (&'static str, f64)> {
        [
            ("random weights", self.random_weights),
            ("random labels", self.random_labels),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
    }

    fn set(&mut self, control: Control, value: f64) {
        match control {
            Control::Weights => self.random_weights = Some(value),
            Control::Labels => self.random_labels = Some(value),
            Control::None => {}
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
        let reading = |value| Reading {
            value,
            random_weights: None,
            random_labels: None,
        };
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
            mixed: reading(*mixed),
            layers: layers
                .map(|(layer, (&value, &weight))| LayerReading {
                    layer,
                    reading: reading(value),
                    weight,
                })
                .collect(),
        }
    }

    /// Sets beside it what its `control` came to.
    pub fn set_beside(&mut self, control: Control, result: &ProbeResult) {
        for (layer, &value) in self.layers.iter_mut().zip(&result.readings.layers) {
            layer.reading.set(control, value);
        }
        self.mixed.set(control, result.readings.mixed);
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

    /// The heading of its table: layer, metric, controls, weight.
    pub fn columns(&self) -> Vec<String> {
        let controls = self.mixed.controls().map(|(name, _)| name.to_owned());
        ["layer".to_owned(), self.metric.clone()]
            .into_iter()
            .chain(controls)
            .chain(["weight in the mixture".into()])
            .collect()
    }

    /// The rows of its table: each layer, and all of them mixed, which has no weight.
    pub fn rows(&self) -> impl Iterator<Item = (String, Reading, Option<f64>)> {
        let layers = self.layers.iter();
        layers
            .map(|layer| (layer.layer.to_string(), layer.reading, Some(layer.weight)))
            .chain([("mixed".into(), self.mixed, None)])
    }
}
