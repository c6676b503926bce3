//! A model to be used: a finished run, or a checkpoint as it is.

use std::path::{Path, PathBuf};

use candle_core::Device;
use clap::Args;
use serde_json::json;

use super::head::{JudgementOptions, check_pooling};
use super::options::{DeviceChoice, RuntimeOptions, limit_threads};
use super::task::TaskOptions;
use super::{console, hub};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::dataset::Source;
use crate::error::Error;
use crate::frozen::onnx::{self, Pool, Readout};
use crate::frozen::{
    self, FrozenEncoder, FrozenPrecision, ModelSession, Provider, ProviderChoice, SessionOptions,
};
use crate::task::{self, Encoding, HeadSettings, Labels, Model, TaskKind};
use crate::train::{self, SavedRun};
use crate::trainable::{Ops, OpsChoice, Pooling};

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
    /// Folder of a pre-trained model, or owner/name[@revision] of one on the hub: without a run, that
    /// model as it is; with one, where the model lies now [default: where it lay when the run was made].
    #[arg(long, value_name = "MODEL", help_heading = "Model")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub task: TaskOptions,
    #[command(flatten)]
    pub judgement: JudgementOptions,
    /// One vector a sequence, without a run [default: mean].
    #[arg(long, value_enum, help_heading = "Task")]
    pub pooling: Option<Pooling>,
    #[command(flatten)]
    pub runtime: RuntimeOptions,
    /// Where the trained half runs [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    pub device: Option<DeviceChoice>,
    /// What the trained layers are computed by: auto takes fused on the CPU and composed on CUDA
    /// [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    pub ops: Option<OpsChoice>,
}

/// A model ready to run: both halves, and how to encode records for it.
pub(super) struct LoadedModel {
    pub checkpoint: Checkpoint,
    pub encoding: Encoding,
    pub labels: Option<Labels>,
    pub model: Model,
    /// Of all that decides its output: of the run, or of the model and the task.
    pub fingerprint: String,
    freeze: Freeze,
    frozen_precision: FrozenPrecision,
    pub(super) runtime: RuntimeOptions,
}

impl ModelOptions {
    /// Opens the model that is meant for the data in `path`, a test split if that is a folder.
    pub(super) fn load(&self, path: &Path) -> Result<(LoadedModel, Source), Error> {
        let source = Source::of(path, "test")?;
        limit_threads(self.runtime.threads)?;
        match (&self.run, &self.model) {
            (Some(run), model) => Ok((self.load_run(run, model.as_deref())?, source)),
            (None, Some(model)) => Ok((self.load_checkpoint(model, &source)?, source)),
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
        let (saved, checkpoint) = open_run(run, moved)?;
        let identity = &saved.identity;
        let head = self.judgement.over(identity.head(), &identity.encoding)?;
        let (device, ops) = self.device()?;
        let model = saved.model(&checkpoint, &head, &device)?.run_by(ops);
        let SavedRun { identity, hash, .. } = saved;
        Ok(LoadedModel {
            checkpoint,
            encoding: self.task.with_fields(identity.encoding),
            labels: identity.labels,
            model,
            fingerprint: hash,
            freeze: identity.freeze,
            frozen_precision: identity.frozen_precision,
            runtime: self.runtime.clone(),
        })
    }

    /// Where the trained half runs, and what by.
    fn device(&self) -> Result<(Device, Ops), Error> {
        let ops = self.ops.unwrap_or_default();
        let device = self.device.unwrap_or_default().device_for(ops)?;
        let ops = ops.resolve(device.is_cpu())?;
        Ok((device, ops))
    }

    fn load_checkpoint(&self, model: &Path, source: &Source) -> Result<LoadedModel, Error> {
        let mut checkpoint = Checkpoint::open(&hub::located(model)?)?;
        let encoding = self.task.encoding(&checkpoint, Some(source))?;
        encoding.prepare(&mut checkpoint)?;
        if encoding.task() == TaskKind::Classify {
            return Err(Error::Usage {
                problem: "a pre-trained model has no classes yet".into(),
                hint: "train it first and pass the run with `--run`".into(),
            });
        }
        encoding.check_lengths(checkpoint.config.longest_sequence())?;
        // Nothing is trained, so ONNX Runtime runs every layer.
        let freeze = Freeze::Layers(checkpoint.config.layers);
        let head = HeadSettings::usual(&encoding, None);
        let head = self.judgement.over(head, &encoding)?;
        check_pooling(self.pooling, &head, &checkpoint.config)?;
        let pooling = self
            .pooling
            .unwrap_or(head.default_pooling(&checkpoint.config));
        let (device, ops) = self.device()?;
        let model = Model::new(&checkpoint, freeze, &head, pooling, 0, &device)?.run_by(ops);
        let identity = checkpoint.identity()?;
        let fingerprint = json!({
            "weights": identity.weights,
            "tokenizer": identity.tokenizer,
            "task": encoding.task(),
            "lengths": encoding.lengths(),
            "mode_token": encoding.mode_token(),
            "pooling": pooling,
        });
        let fingerprint = blake3::hash(fingerprint.to_string().as_bytes());
        Ok(LoadedModel {
            checkpoint,
            encoding,
            labels: None,
            model,
            fingerprint: fingerprint.to_hex().to_string(),
            freeze,
            frozen_precision: FrozenPrecision::default(),
            runtime: self.runtime.clone(),
        })
    }
}

/// The checkpoint in `folder` with what was trained in `model` in its place.
pub(super) fn trained_checkpoint(
    folder: &Path,
    encoding: &Encoding,
    model: &Model,
) -> Result<Checkpoint, train::Error> {
    // Opened again: the tensors of one that is open are those of before the training.
    let mut checkpoint = Checkpoint::open(folder).map_err(task::Error::from)?;
    encoding.prepare(&mut checkpoint)?;
    model.replace_in(&mut checkpoint)?;
    Ok(checkpoint)
}

/// The run in the folder `run`, and the model that it was trained from, which lies in `moved` or
/// where it lay then.
pub(super) fn open_run(run: &Path, moved: Option<&Path>) -> Result<(SavedRun, Checkpoint), Error> {
    let saved = SavedRun::open(run)?;
    let identity = &saved.identity;
    let mut checkpoint = Checkpoint::open(&hub::located(moved.unwrap_or(&identity.model))?)?;
    identity.encoding.prepare(&mut checkpoint)?;
    let found = checkpoint.identity()?;
    for (what, found, expected) in [
        ("weights", &found.weights, Some(&identity.weights)),
        ("tokenizer", &found.tokenizer, Some(&identity.tokenizer)),
        ("config", &found.config, identity.config.as_ref()),
    ] {
        if let Some(expected) = expected.filter(|expected| *expected != found) {
            return Err(Error::Usage {
                problem: format!(
                    "`{}` is not the model that `{}` was trained from: the hash of its {what} is {found}, expected {expected}",
                    checkpoint.folder.display(),
                    run.display()
                ),
                hint: "pass that model's folder with `--model`".into(),
            });
        }
    }
    Ok((saved, checkpoint))
}

impl LoadedModel {
    /// The checkpoint with what was trained in its place.
    pub(super) fn trained_checkpoint(&self) -> Result<Checkpoint, Error> {
        let folder = &self.checkpoint.folder;
        Ok(trained_checkpoint(folder, &self.encoding, &self.model)?)
    }

    /// All layers, trained ones too, as one graph in 8-bit integers that gives pooled vectors.
    pub(super) fn quantized(&self) -> Result<ModelSession, Error> {
        let checkpoint = self.trained_checkpoint()?;
        let readout = Readout {
            pool: match self.model.pooling() {
                Pooling::Cls => Pool::First,
                Pooling::Mean => Pool::Mean,
                Pooling::Scored => unreachable!("a model that writes text is exported by itself"),
            },
            columns: 1,
            layers: Vec::new(),
            unit_length: false,
            output: "pooled",
        };
        let precision = FrozenPrecision::Int8;
        let name = onnx::DATA_FILE.trim_end_matches(".data");
        let model = onnx::write_whole(&checkpoint, &readout, precision, &[], name);
        let model = model?.into_model();
        checkpoint.weights.release();
        let mut session = self
            .runtime
            .session(precision, Some(self.encoding.longest()))?;
        session.provider = ProviderChoice::Cpu;
        let runtime = self.runtime.runtime()?;
        let padding = checkpoint.config.padding_id;
        Ok(ModelSession::new(&runtime, &model, padding, &session)?)
    }

    /// The frozen half, unless nothing is frozen.
    pub(super) fn frozen(&self) -> Result<Option<FrozenEncoder>, Error> {
        let Freeze::Layers(layers) = self.freeze else {
            return Ok(None);
        };
        let runtime = self.runtime.runtime()?;
        let longest = Some(self.encoding.longest());
        let mut session = self.runtime.session(self.frozen_precision, longest)?;
        let open = |session: &SessionOptions| {
            FrozenEncoder::new(&runtime, &self.checkpoint, &[layers], session)
        };
        let frozen = match open(&session) {
            // A model that was trained on a card is to be used without one, and fp32 is what these
            // round.
            Err(frozen::Error::Elsewhere {
                provider: Provider::Cpu,
                precision: precision @ (FrozenPrecision::Tf32 | FrozenPrecision::Bf16),
                ..
            }) => {
                console::say(&format!(
                    "the cache's frozen half was in {precision}, which runs on CUDA only: running it in fp32"
                ));
                session.precision = FrozenPrecision::Fp32;
                open(&session)?
            }
            opened => opened?,
        };
        if let Some(reason) = frozen.fallback() {
            console::say(&format!(
                "CUDA cannot be used, running on the CPU: {reason}"
            ));
        }
        Ok(Some(frozen))
    }
}
