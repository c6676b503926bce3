//! A model to be used: a finished run, or a checkpoint as it is.

use std::path::{Path, PathBuf};

use clap::Args;

use super::options::{DeviceChoice, RuntimeOptions, TaskOptions, limit_threads};
use super::{console, hub};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::error::Error;
use crate::frozen::{FrozenEncoder, FrozenPrecision};
use crate::task::{Encoding, Labels, Model, TaskKind};
use crate::train::SavedRun;
use crate::trainable::Pooling;

/// Which model.
#[derive(Args)]
pub(super) struct ModelOptions {
    /// Folder of a finished run.
    #[arg(
        long,
        value_name = "FOLDER",
        required_unless_present = "model",
        help_heading = "Model"
    )]
    pub run: Option<PathBuf>,
    /// Folder of a pre-trained model, or owner/name[@revision] of one on the hub: without a run, that model as it is; with one, where the
    /// model lies now [default: where it lay when the run was made].
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub task: TaskOptions,
    /// One vector a sequence, without a run [default: mean for search].
    #[arg(long, value_enum, help_heading = "Task")]
    pub pooling: Option<Pooling>,
    #[command(flatten)]
    pub runtime: RuntimeOptions,
    /// Where the trained half runs [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    pub device: Option<DeviceChoice>,
}

/// A model ready to run: both halves, and how to encode records for it.
pub(super) struct LoadedModel {
    pub checkpoint: Checkpoint,
    pub encoding: Encoding,
    pub labels: Option<Labels>,
    pub model: Model,
    freeze: Freeze,
    frozen_precision: FrozenPrecision,
    runtime: RuntimeOptions,
}

impl ModelOptions {
    /// Opens the model that is meant.
    pub(super) fn load(&self) -> Result<LoadedModel, Error> {
        limit_threads(self.runtime.threads)?;
        match (&self.run, &self.model) {
            (Some(run), model) => self.load_run(run, model.as_deref()),
            (None, Some(model)) => self.load_checkpoint(model),
            (None, None) => Err(super::options::missing("--run")),
        }
    }

    fn load_run(&self, run: &Path, moved: Option<&Path>) -> Result<LoadedModel, Error> {
        if self.task.task.is_some() || self.pooling.is_some() {
            return Err(Error::Usage {
                problem: "a run knows its own task".into(),
                hint: "leave out `--task` and `--pooling`".into(),
            });
        }
        let SavedRun { identity, tensors } = SavedRun::open(run)?;
        let checkpoint = Checkpoint::open(&hub::located(moved.unwrap_or(&identity.model))?)?;
        let found = checkpoint.identity()?;
        for (what, found, expected) in [
            ("weights", &found.weights, &identity.weights),
            ("tokenizer", &found.tokenizer, &identity.tokenizer),
        ] {
            if found != expected {
                return Err(Error::Usage {
                    problem: format!(
                        "`{}` is not the model that `{}` was trained from: its {what} have the hash {found}, expected {expected}",
                        checkpoint.folder.display(),
                        run.display()
                    ),
                    hint: "pass that model's folder with `--model`".into(),
                });
            }
        }
        let model = Model::new(
            &checkpoint,
            identity.freeze,
            identity.labels.as_ref(),
            identity.pooling,
            0,
            &self.device.unwrap_or_default().device()?,
        )?;
        model.parameters.set_all(&tensors)?;
        Ok(LoadedModel {
            checkpoint,
            encoding: self.with_fields(identity.encoding),
            labels: identity.labels,
            model,
            freeze: identity.freeze,
            frozen_precision: identity.frozen_precision,
            runtime: self.runtime.clone(),
        })
    }

    fn load_checkpoint(&self, model: &Path) -> Result<LoadedModel, Error> {
        let encoding = self.task.encoding()?;
        if encoding.task() == TaskKind::Classify {
            return Err(Error::Usage {
                problem: "a pre-trained model has no classes yet".into(),
                hint: "train it first and pass the run with `--run`".into(),
            });
        }
        let checkpoint = Checkpoint::open(&hub::located(model)?)?;
        encoding.check_lengths(checkpoint.config.longest_sequence())?;
        // Nothing is trained, so ONNX Runtime runs every layer.
        let freeze = Freeze::Layers(checkpoint.config.layers);
        let pooling = self.pooling.unwrap_or(encoding.task().default_pooling());
        let device = self.device.unwrap_or_default().device()?;
        let model = Model::new(&checkpoint, freeze, None, pooling, 0, &device)?;
        Ok(LoadedModel {
            checkpoint,
            encoding,
            labels: None,
            model,
            freeze,
            frozen_precision: FrozenPrecision::default(),
            runtime: self.runtime.clone(),
        })
    }

    /// Field names may differ from file to file; lengths are the run's.
    fn with_fields(&self, encoding: Encoding) -> Encoding {
        let typed = &self.task;
        match encoding {
            Encoding::Classify {
                text_field,
                label_field,
                max_length,
            } => Encoding::Classify {
                text_field: typed.text_field.clone().or(text_field),
                label_field: typed.label_field.clone().or(label_field),
                max_length,
            },
            Encoding::Search {
                query_field,
                code_field,
                max_query_length,
                max_code_length,
            } => Encoding::Search {
                query_field: typed.query_field.clone().or(query_field),
                code_field: typed.code_field.clone().or(code_field),
                max_query_length,
                max_code_length,
            },
        }
    }
}

impl LoadedModel {
    /// The frozen half, unless nothing is frozen.
    pub(super) fn frozen(&self) -> Result<Option<FrozenEncoder>, Error> {
        let Freeze::Layers(layers) = self.freeze else {
            return Ok(None);
        };
        let runtime = self.runtime.runtime()?;
        let session = self.runtime.session(self.frozen_precision);
        let frozen = FrozenEncoder::new(&runtime, &self.checkpoint, &[layers], &session)?;
        if let Some(reason) = frozen.fallback() {
            console::say(&format!(
                "CUDA cannot be used, running on the CPU: {reason}"
            ));
        }
        Ok(Some(frozen))
    }
}
