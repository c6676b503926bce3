//! What a run leaves on disk, and reading it back.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Seek as _, Write};
use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use safetensors::SafeTensors;
use safetensors::tensor::Metadata;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Error;
use super::checkpoint::{Position, StateTensor, TrainingState};
use super::tensorboard::{TensorBoard, reopen};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::frozen::FrozenPrecision;
use crate::mapping::MappedFile;
use crate::publish::{publish, publish_with};
use crate::task::{Encoding, HeadSettings, Labels, Model};
use crate::trainable::{self, Pooling};

pub(super) const RECIPE: &str = "recipe.toml";
pub(super) const METRICS: &str = "metrics.jsonl";
pub(super) const SUMMARY: &str = "summary.json";
const TENSORBOARD: &str = "tensorboard";
const CHECKPOINT: &str = "checkpoint";
const MODEL: &str = "model.safetensors";
/// The key of the run's identity in the metadata of `model.safetensors`.
const IDENTITY: &str = "telly";

/// What a run needs to be used again, besides its tensors: kept in `model.safetensors`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunIdentity {
    /// The checkpoint's folder when the run was made.
    pub model: PathBuf,
    /// BLAKE3 of the checkpoint's weights.
    pub weights: String,
    /// BLAKE3 of its tokenizer.
    pub tokenizer: String,
    /// BLAKE3 of its `config.json`; runs of before it was kept do not say.
    #[serde(default)]
    pub config: Option<String>,
    /// What was frozen.
    pub freeze: Freeze,
    /// What the frozen half computed in; runs of before there was a choice do not say.
    #[serde(default)]
    pub frozen_precision: FrozenPrecision,
    /// How records were encoded.
    pub encoding: Encoding,
    /// One vector a sequence.
    pub pooling: Pooling,
    /// The classes, for a task that has them.
    pub labels: Option<Labels>,
    /// BLAKE3 of each split's content, by its name; runs of before it was kept do not say.
    #[serde(default)]
    pub data: BTreeMap<String, String>,
    /// The head; the usual one of `labels` in runs of before there was a choice.
    #[serde(default)]
    pub head: Option<HeadSettings>,
}

impl RunIdentity {
    /// The head that it was trained with.
    pub fn head(&self) -> HeadSettings {
        let usual = || HeadSettings::usual(&self.encoding, self.labels.as_ref());
        self.head.clone().unwrap_or_else(usual)
    }

    /// Of the run in `folder`, and BLAKE3 of the file that holds it and the tensors, hexadecimal; none
    /// of a run that has no weights yet. The tensors are not held in memory.
    pub fn read(folder: &Path) -> Result<Option<(Self, String)>, Error> {
        let opened = Self::open(folder)?;
        Ok(opened.map(|(identity, file)| (identity, blake3::hash(&file).to_hex().to_string())))
    }

    /// Of the run in `folder`; none of a run that has no weights yet. No more than the header is read.
    pub fn read_header(folder: &Path) -> Result<Option<Self>, Error> {
        Ok(Self::open(folder)?.map(|(identity, _)| identity))
    }

    fn open(folder: &Path) -> Result<Option<(Self, MappedFile)>, Error> {
        let path = folder.join(MODEL);
        if !path.is_file() {
            return Ok(None);
        }
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let file = MappedFile::open(&path).map_err(Error::Read)?;
        let (_, metadata) =
            SafeTensors::read_metadata(&file).map_err(|error| damaged(error.to_string()))?;
        let identity = Self::from_metadata(&metadata).map_err(damaged)?;
        Ok(Some((identity, file)))
    }

    /// Out of the header of `model.safetensors`.
    fn from_metadata(metadata: &Metadata) -> Result<Self, String> {
        let map = metadata.metadata().as_ref();
        let text = map.and_then(|map| map.get(IDENTITY));
        let text = text.ok_or_else(|| format!("its metadata has no `{IDENTITY}`"))?;
        serde_json::from_str(text).map_err(|error| error.to_string())
    }
}

/// A run folder being written.
pub struct RunFolder {
    folder: PathBuf,
    metrics: File,
    board: TensorBoard,
}

impl RunFolder {
    /// Makes `folder`. One that holds something is refused, or with `force` emptied of what a
    /// run writes.
    pub fn create(folder: &Path, force: bool) -> Result<Self, Error> {
        let occupied = fs_err::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !force {
            return Err(Error::RunExists {
                folder: folder.to_owned(),
            });
        }
        fs_err::create_dir_all(folder).map_err(Error::Write)?;
        clear(folder)?;
        let board = TensorBoard::create(&folder.join(TENSORBOARD)).map_err(Error::Write)?;
        let metrics = fs_err::File::create(folder.join(METRICS)).map_err(Error::Write)?;
        Ok(Self {
            folder: folder.to_owned(),
            metrics: metrics.into_parts().0,
            board,
        })
    }

    /// Opens the unfinished run in `folder` to go on from its last checkpoint; a run that was
    /// stopped before its first begins anew.
    pub fn resume(folder: &Path) -> Result<(Self, Option<TrainingState>), Error> {
        let Some(state) = TrainingState::read(&folder.join(CHECKPOINT))? else {
            let recipe = fs_err::read(folder.join(RECIPE)).map_err(Error::Read)?;
            let run = Self::create(folder, true)?;
            run.publish(RECIPE, &recipe)?;
            return Ok((run, None));
        };
        let Position {
            metrics_bytes,
            tensorboard_bytes,
            ..
        } = state.position;
        let metrics = reopen(&folder.join(METRICS), metrics_bytes).map_err(Error::Write)?;
        let board = TensorBoard::resume(&folder.join(TENSORBOARD), tensorboard_bytes);
        let run = Self {
            folder: folder.to_owned(),
            metrics,
            board: board.map_err(Error::Write)?,
        };
        Ok((run, Some(state)))
    }

    /// The recipe of the run in `folder`.
    pub fn recipe(folder: &Path) -> Result<PathBuf, Error> {
        let path = folder.join(RECIPE);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::NothingToResume {
            folder: folder.to_owned(),
            file: RECIPE,
        })
    }

    /// The summary of the run in `folder`, if it is finished.
    pub fn summary(folder: &Path) -> Result<Option<Map<String, Value>>, Error> {
        let path = folder.join(SUMMARY);
        if !path.is_file() {
            return Ok(None);
        }
        let text = fs_err::read_to_string(&path).map_err(Error::Read)?;
        let summary = serde_json::from_str(&text).map_err(|error| Error::Damaged {
            path,
            problem: error.to_string(),
        })?;
        Ok(Some(summary))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Appends a line to `metrics.jsonl`, and its numbers to TensorBoard: those of a step as
    /// `train/loss` and so on, those of an evaluation as `valid/accuracy` and so on.
    pub fn log(&mut self, line: &Value) -> Result<(), Error> {
        writeln!(self.metrics, "{line}").map_err(Error::Write)?;
        let (group, numbers) = match (line["split"].as_str(), &line["metrics"]) {
            (Some(split), Value::Object(metrics)) => (split, Some(metrics)),
            _ => ("train", line.as_object()),
        };
        let scalars: Vec<(String, f64)> = numbers
            .into_iter()
            .flatten()
            .filter(|(name, _)| !matches!(name.as_str(), "step" | "epoch"))
            .filter_map(|(name, number)| Some((format!("{group}/{name}"), number.as_f64()?)))
            .collect();
        let step = line["step"]
            .as_u64()
            .and_then(|step| usize::try_from(step).ok());
        self.board
            .scalars(step.unwrap_or_default(), &scalars)
            .map_err(Error::Write)
    }

    /// Writes `checkpoint/`: `tensors`, and `position` with how far the logs belong to it.
    pub(super) fn write_checkpoint(
        &mut self,
        position: &mut Position,
        tensors: Vec<(String, StateTensor)>,
    ) -> Result<(), Error> {
        let sync = |file: &mut File| {
            file.sync_all()?;
            file.stream_position()
        };
        position.metrics_bytes = sync(&mut self.metrics).map_err(Error::Write)?;
        position.tensorboard_bytes = self.board.sync().map_err(Error::Write)?;
        TrainingState::write(&self.folder.join(CHECKPOINT), position, tensors)
    }

    /// Writes `recipe.toml`.
    pub fn write_recipe(&self, recipe: &str) -> Result<(), Error> {
        self.publish(RECIPE, recipe.as_bytes())
    }

    /// Writes `summary.json`.
    pub fn write_summary(&self, summary: &Value) -> Result<(), Error> {
        self.publish(SUMMARY, format!("{summary:#}\n").as_bytes())
    }

    /// Writes `model.safetensors`: the trained tensors, and how to use them.
    pub fn write_model(&self, model: &Model, identity: &RunIdentity) -> Result<(), Error> {
        let identity = serde_json::to_string(identity)
            .unwrap_or_else(|_| unreachable!("an identity has only string keys"));
        let tensors: Vec<(&str, Tensor)> = model
            .parameters
            .iter()
            .map(|parameter| {
                (
                    parameter.name.as_str(),
                    parameter.variable.as_detached_tensor(),
                )
            })
            .collect();
        // One key only: the library writes several in an order that changes from run to run.
        let metadata = HashMap::from([(IDENTITY.to_owned(), identity)]);
        publish_with(&self.folder, MODEL, |path| {
            safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(io::Error::other)
        })
        .map_err(Error::Write)
    }

    /// Writes `name` whole or not at all.
    fn publish(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        publish(&self.folder, name, bytes).map_err(Error::Write)
    }
}

/// Removes what a run writes from `folder`.
pub(super) fn clear(folder: &Path) -> Result<(), Error> {
    for file in [SUMMARY, MODEL, RECIPE, METRICS] {
        match fs_err::remove_file(folder.join(file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Write(error));
            }
            _ => {}
        }
    }
    for part in [TENSORBOARD, CHECKPOINT] {
        match fs_err::remove_dir_all(folder.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::Write(error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// A finished run.
pub struct SavedRun {
    /// The file that holds it.
    pub path: PathBuf,
    /// How to use it.
    pub identity: RunIdentity,
    /// The trained tensors by name, on the CPU.
    pub tensors: HashMap<String, Tensor>,
    /// BLAKE3 of the file that holds both, hexadecimal.
    pub hash: String,
}

impl SavedRun {
    /// Reads the run in `folder`.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(MODEL);
        if !path.is_file() {
            return Err(Error::NoRun {
                folder: folder.to_owned(),
                file: MODEL,
            });
        }
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let bytes = fs_err::read(&path).map_err(Error::Read)?;
        let (_, metadata) =
            SafeTensors::read_metadata(&bytes).map_err(|error| damaged(error.to_string()))?;
        let identity = RunIdentity::from_metadata(&metadata).map_err(damaged)?;
        let tensors = candle_core::safetensors::load_buffer(&bytes, &Device::Cpu)
            .map_err(|error| damaged(error.to_string()))?;
        let hash = blake3::hash(&bytes).to_hex().to_string();
        Ok(Self {
            path,
            identity,
            tensors,
            hash,
        })
    }

    /// What was trained, on `device`, over the `checkpoint` that it was trained from. `head` is the
    /// run's, or judges what comes out in another way.
    ///
    /// # Errors
    /// [`Error::Damaged`] unless the run has all of the model's trained tensors and no others.
    pub fn model(
        &self,
        checkpoint: &Checkpoint,
        head: &HeadSettings,
        device: &Device,
    ) -> Result<Model, Error> {
        let RunIdentity {
            freeze, pooling, ..
        } = self.identity;
        let model = Model::new(checkpoint, freeze, head, pooling, 0, device)?;
        model.parameters.set_all(&self.tensors).map_err(|error| {
            if !matches!(error, trainable::Error::Mismatch { .. }) {
                return error.into();
            }
            Error::Damaged {
                path: self.path.clone(),
                problem: error.to_string(),
            }
        })?;
        Ok(model)
    }
}
