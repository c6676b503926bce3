//! How much of a checkpoint stays as it is.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// `--freeze`: which part of the encoder is not trained; rising, from nothing on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Freeze {
    /// Nothing: ordinary fine-tuning, embeddings included.
    Nothing,
    /// The embeddings and layers `0..K`; K = 0 freezes the embeddings alone. MPNet's table of
    /// relative positions, which all layers share, is frozen with layer 0.
    Layers(usize),
}

impl Freeze {
    /// How many layers are frozen.
    pub fn layers(self) -> usize {
        match self {
            Self::Nothing => 0,
            Self::Layers(layers) => layers,
        }
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Nothing => formatter.write_str("none"),
            Self::Layers(layers) => layers.fmt(formatter),
        }
    }
}

impl FromStr for Freeze {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "none" {
            return Ok(Self::Nothing);
        }
        let layers = text.parse();
        layers
            .map(Self::Layers)
            .map_err(|_| "expected `none` or a number of layers".into())
    }
}

impl Serialize for Freeze {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nothing => serializer.serialize_str("none"),
            Self::Layers(layers) => serializer.serialize_u64(*layers as u64),
        }
    }
}

impl<'de> Deserialize<'de> for Freeze {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Layers(usize),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Layers(layers) => Ok(Self::Layers(layers)),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}
