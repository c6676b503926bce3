//! A run and the model that it was trained from, put together.

use std::path::Path;

use candle_core::Device;
use serde_json::{Map, Value};

use super::Error;
use crate::checkpoint::Checkpoint;
use crate::task::{HeadSettings, Objective};
use crate::train::{RunFolder, RunIdentity, SavedRun};

/// A run and the model that it was trained from, put together.
pub struct TrainedModel {
    /// The run folder's name.
    pub name: String,
    /// BLAKE3 of the run's `model.safetensors`, hexadecimal.
    pub hash: String,
    /// How the run is used.
    pub identity: RunIdentity,
    /// What stands on top of the pooled vectors.
    pub head: HeadSettings,
    /// The model, with what was trained in the place of its own tensors, and the head beside them.
    pub checkpoint: Checkpoint,
    /// The run's recipe, TOML.
    pub recipe: Option<String>,
    /// The run's summary; absent of one that was interrupted.
    pub summary: Option<Map<String, Value>>,
}

impl TrainedModel {
    /// Puts `saved`, the run in `folder`, over the `checkpoint` that it was trained from.
    pub fn new(
        folder: &Path,
        saved: SavedRun,
        mut checkpoint: Checkpoint,
    ) -> Result<Self, crate::error::Error> {
        let head = saved.identity.head();
        let model = saved.model(&checkpoint, &head, &Device::Cpu)?;
        let SavedRun {
            identity,
            hash,
            tensors,
            ..
        } = saved;
        // Not a third time in memory.
        drop(tensors);
        model.replace_in(&mut checkpoint)?;
        checkpoint.check()?;
        let recipe = RunFolder::recipe(folder).ok();
        let recipe = recipe.map(fs_err::read_to_string).transpose();
        let name = fs_err::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
        Ok(Self {
            name: file_name(&name),
            hash,
            head,
            identity,
            checkpoint,
            recipe: recipe.map_err(Error::Read)?,
            summary: RunFolder::summary(folder)?,
        })
    }

    /// Whether what comes out is an embedding of unit length, rather than logits.
    pub fn gives_embeddings(&self) -> bool {
        match self.head {
            HeadSettings::Match { .. } | HeadSettings::Cosine { .. } | HeadSettings::Contrast => {
                true
            }
            HeadSettings::Linear { .. }
            | HeadSettings::HuggingFace { .. }
            | HeadSettings::Concat
            | HeadSettings::Language { .. } => false,
        }
    }

    /// Whether it writes text.
    pub fn writes_text(&self) -> bool {
        matches!(self.head, HeadSettings::Language { .. })
    }

    /// Whether the matrix from states to words was trained apart from the embeddings.
    pub(super) fn trains_head(&self) -> bool {
        let HeadSettings::Language { train_head, .. } = self.head else {
            return false;
        };
        train_head
    }

    /// Classes, 0 of a model without any.
    pub(super) fn classes(&self) -> usize {
        match self.head {
            HeadSettings::Linear { classes, .. } | HeadSettings::HuggingFace { classes, .. } => {
                classes
            }
            // No clone, clone.
            HeadSettings::Concat => 2,
            _ => 0,
        }
    }

    /// What its logits stand for.
    pub(super) fn objective(&self) -> Objective {
        match self.head {
            HeadSettings::Linear { objective, .. }
            | HeadSettings::HuggingFace { objective, .. } => objective,
            _ => Objective::SingleLabel,
        }
    }

    /// The classes' names, in order.
    pub(super) fn class_names(&self) -> Vec<String> {
        let labels = self.identity.labels.as_ref();
        // A regression has an empty list.
        let Some(labels) = labels.filter(|labels| labels.count() > 0) else {
            let classes = 0..self.classes();
            // What transformers calls the one output of a regression.
            return match self.objective() {
                Objective::Regression => classes.map(|class| format!("LABEL_{class}")).collect(),
                _ => classes.map(|class| class.to_string()).collect(),
            };
        };
        let labels = labels.iter();
        labels
            .map(|label| match label {
                crate::dataset::Label::Integer(number) => number.to_string(),
                crate::dataset::Label::Text(text) => text.clone(),
            })
            .collect()
    }

    /// The most tokens of any of the task's texts.
    pub(super) fn longest(&self) -> usize {
        let lengths = self.identity.encoding.lengths();
        lengths
            .iter()
            .map(|(_, length)| *length)
            .max()
            .unwrap_or_default()
    }
}

/// The last name of `path`.
pub(super) fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}
