//! What an unfinished run leaves, so that it can go on to the same weights.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io;
use std::path::Path;

use candle_core::{Device, Tensor};
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensors, View};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Error, TrainSettings};
use crate::mapping::MappedFile;
use crate::publish::publish_with;
use crate::task::Metrics;
use crate::trainable::{self, LossScaler};

/// The file in a run's `checkpoint/`.
const STATE: &str = "state.safetensors";
/// The key of the [`Position`] in its metadata.
const POSITION: &str = "telly";

/// Where a run stands, besides its tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Position {
    /// What the run was told.
    pub settings: TrainSettings,
    /// The content of the cache that it trains from.
    pub cache: String,
    /// Steps done.
    pub step: usize,
    /// Epochs trained and evaluated.
    pub epoch: usize,
    /// Batches done of the epoch after these.
    pub batch: usize,
    /// Training seconds of each epoch begun, evaluation left out.
    pub epoch_seconds: Vec<f64>,
    /// Seconds in all, evaluation included.
    pub seconds: f64,
    /// The best evaluation so far.
    pub best: Option<BestEpoch>,
    /// Steps done when the validation split was last evaluated.
    #[serde(default)]
    pub evaluated: usize,
    /// Evaluations since the best.
    #[serde(default)]
    pub without_better: usize,
    /// What scales the loss, in fp16.
    #[serde(default)]
    pub loss_scaler: Option<LossScaler>,
    /// Bytes of `metrics.jsonl` that belong to these steps.
    pub metrics_bytes: u64,
    /// Bytes of the TensorBoard events that belong to them.
    pub tensorboard_bytes: u64,
}

/// The evaluation whose weights are kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BestEpoch {
    /// From 1.
    pub epoch: usize,
    /// Steps done; runs of before there was a choice do not say.
    #[serde(default)]
    pub step: usize,
    /// On the validation split.
    pub metrics: Metrics,
}

/// A tensor of a checkpoint, written from where it lies: a copy of all would be memory that a run
/// was not allowed.
#[derive(Debug, Clone, Copy)]
pub enum StateTensor<'a> {
    /// As candle has it.
    Tensor(&'a Tensor),
    /// Numbers of the shape `shape`.
    Numbers {
        /// All of them.
        numbers: &'a [f32],
        /// As many as they are.
        shape: &'a [usize],
    },
}

impl View for StateTensor<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::Tensor(tensor) => View::dtype(tensor),
            Self::Numbers { .. } => Dtype::F32,
        }
    }

    fn shape(&self) -> &[usize] {
        match self {
            Self::Tensor(tensor) => tensor.dims(),
            Self::Numbers { shape, .. } => shape,
        }
    }

    fn data(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Tensor(tensor) => View::data(tensor),
            Self::Numbers { numbers, .. } => Cow::Borrowed(bytemuck::cast_slice(numbers)),
        }
    }

    fn data_len(&self) -> usize {
        match self {
            Self::Tensor(tensor) => View::data_len(tensor),
            Self::Numbers { numbers, .. } => size_of_val(*numbers),
        }
    }
}

/// A run's last checkpoint, its tensors in the file until they are asked for: all of them at once
/// would be memory that a run was not allowed.
pub struct TrainingState {
    /// Where it stood.
    pub position: Position,
    file: MappedFile,
    /// Where the file's tensors begin.
    begin: usize,
    metadata: Metadata,
}

impl Position {
    /// Refuses to go on as `new` says when that would not be the same run.
    pub(super) fn check(&self, new: &Self, folder: &Path) -> Result<(), Error> {
        let differs = |field: &str, begun: String, now: String| Error::OtherRun {
            folder: folder.to_owned(),
            field: field.to_owned(),
            begun,
            now,
        };
        if self.cache != new.cache {
            return Err(differs("cache", self.cache.clone(), new.cache.clone()));
        }
        let [begun, now] = [&self.settings, &new.settings].map(TrainSettings::deciding);
        match begun
            .iter()
            .find(|(field, value)| now.get(*field) != Some(value))
        {
            Some((field, value)) => Err(differs(
                field,
                value.to_string(),
                now.get(field).unwrap_or(&Value::Null).to_string(),
            )),
            None => Ok(()),
        }
    }
}

impl TrainingState {
    /// Writes a checkpoint into `folder`, in place of the one before.
    pub(super) fn write(
        folder: &Path,
        position: &Position,
        tensors: Vec<(String, StateTensor)>,
    ) -> Result<(), Error> {
        fs_err::create_dir_all(folder).map_err(Error::Write)?;
        let position = serde_json::to_string(position)
            .unwrap_or_else(|_| unreachable!("a position has only string keys"));
        let metadata = HashMap::from([(POSITION.to_owned(), position)]);
        publish_with(folder, STATE, |path| {
            safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(io::Error::other)
        })
        .map_err(Error::Write)
    }

    /// Reads the checkpoint in `folder`; none if the run was stopped before its first.
    pub(super) fn read(folder: &Path) -> Result<Option<Self>, Error> {
        let path = folder.join(STATE);
        if !path.exists() {
            return Ok(None);
        }
        let damaged = |problem: String| Error::Damaged {
            path: path.clone(),
            problem,
        };
        let file = MappedFile::open(&path).map_err(Error::Read)?;
        let (header, metadata) =
            SafeTensors::read_metadata(&file).map_err(|error| damaged(error.to_string()))?;
        let position = metadata
            .metadata()
            .as_ref()
            .and_then(|map| map.get(POSITION))
            .ok_or_else(|| damaged(format!("its metadata has no `{POSITION}`")))?;
        let position =
            serde_json::from_str(position).map_err(|error| damaged(error.to_string()))?;
        Ok(Some(Self {
            position,
            file,
            begin: size_of::<u64>() + header,
            metadata,
        }))
    }

    /// The tensor `name`, if there is one, on the CPU.
    pub(super) fn tensor(&self, name: &str) -> Result<Option<Tensor>, trainable::Error> {
        let Some(info) = self.metadata.info(name) else {
            return Ok(None);
        };
        let (start, end) = info.data_offsets;
        let bytes = &self.file[self.begin..][start..end];
        let dtype = info.dtype.try_into()?;
        let tensor = Tensor::from_raw_buffer(bytes, dtype, &info.shape, &Device::Cpu)?;
        Ok(Some(tensor))
    }
}
