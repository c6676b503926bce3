//! A model that is looked at, layer by layer: a checkpoint's, or a finished run's.

use std::path::Path;

use super::model::open_run;
use super::options::RuntimeOptions;
use super::task::TaskOptions;
use super::{console, hub};
use crate::checkpoint::{Checkpoint, EncoderConfig};
use crate::error::Error;
use crate::export::TrainedModel;
use crate::frozen::{FrozenEncoder, FrozenPrecision};
use crate::task::{Encoding, TaskKind};
use crate::train::RunFolder;

/// A model and where it came from.
pub(super) struct Studied<'a> {
    pub(super) path: &'a Path,
    pub(super) checkpoint: Checkpoint,
}

impl<'a> Studied<'a> {
    /// The run in the folder `path`, or else the checkpoint. `moved` is where the model that a run was
    /// trained from lies now.
    pub(super) fn open(path: &'a Path, moved: Option<&Path>) -> Result<Self, Error> {
        if RunFolder::recipe(path).is_err() {
            let checkpoint = Checkpoint::open(&hub::located(path)?)?;
            return Ok(Self { path, checkpoint });
        }
        let (saved, checkpoint) = open_run(path, moved)?;
        let mut checkpoint = TrainedModel::new(path, saved, checkpoint)?.checkpoint;
        // Texts come one by one here, whatever its task put into a sequence.
        checkpoint.config = EncoderConfig::read(&checkpoint.folder.join("config.json"))?;
        Ok(Self { path, checkpoint })
    }

    pub(super) fn layers(&self) -> usize {
        self.checkpoint.config.layers
    }

    /// Most tokens that it takes.
    pub(super) fn longest(&self) -> usize {
        self.checkpoint.config.longest_sequence()
    }

    /// How it takes texts of at most `max_length` tokens, those in `text_field` of records.
    pub(super) fn text_encoding(
        &self,
        text_field: Option<String>,
        max_length: usize,
    ) -> Result<Encoding, Error> {
        let options = TaskOptions {
            task: Some(TaskKind::Classify),
            text_field,
            max_length: Some(max_length),
            ..TaskOptions::default()
        };
        let encoding = options.encoding(&self.checkpoint, None)?;
        encoding.check_lengths(self.longest())?;
        Ok(encoding)
    }

    /// It in ONNX Runtime, in fp32, putting out the states at every depth of texts of at most
    /// `max_length` tokens.
    pub(super) fn frozen(
        &self,
        options: &RuntimeOptions,
        max_length: usize,
    ) -> Result<FrozenEncoder, Error> {
        let checkpoint = &self.checkpoint;
        let session = options.session(FrozenPrecision::Fp32, Some(max_length))?;
        let runtime = options.runtime()?;
        let depths: Vec<usize> = (0..=self.layers()).collect();
        let frozen = FrozenEncoder::without_hashes(&runtime, checkpoint, &depths, &session)?;
        checkpoint.weights.release();
        if let Some(reason) = frozen.fallback() {
            console::say(&format!(
                "CUDA cannot be used, running on the CPU: {reason}"
            ));
        }
        Ok(frozen)
    }
}
