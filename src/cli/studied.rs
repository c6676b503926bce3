//! A model that is looked at, layer by layer: a checkpoint's, or a finished run's.

use std::path::{Path, PathBuf};

use clap::Args;

use super::model::open_run;
use super::options::RuntimeOptions;
use super::task::{CLASSIFY_LENGTH, TaskOptions};
use super::{console, hub};
use crate::cache::Fingerprint;
use crate::checkpoint::{Checkpoint, EncoderConfig};
use crate::error::Error;
use crate::export::TrainedModel;
use crate::frozen::{FrozenEncoder, FrozenPrecision};
use crate::task::{Encoding, TaskKind};
use crate::train::{RunFolder, RunIdentity};

/// What model is looked at, and how much of each text it is given.
#[derive(Args)]
pub(super) struct StudiedOptions {
    /// The model that a run was trained from [default: where it lay when the run was made].
    #[arg(long, value_name = "MODEL", help_heading = "Input")]
    pub(super) model: Option<PathBuf>,
    /// Most tokens of a text, special ones included [default: 256, or what the model allows].
    #[arg(long, value_name = "TOKENS", help_heading = "Input")]
    pub(super) max_length: Option<usize>,
}

impl StudiedOptions {
    /// The run or the checkpoint in the folder `path`.
    pub(super) fn open<'a>(&self, path: &'a Path) -> Result<Studied<'a>, Error> {
        Studied::open(path, self.model.as_deref())
    }

    /// Most tokens of a text that each of `studied` is given.
    pub(super) fn max_length<'a>(
        &self,
        studied: impl IntoIterator<Item = &'a Studied<'a>>,
    ) -> usize {
        let longest = studied.into_iter().map(Studied::longest);
        self.max_length
            .unwrap_or_else(|| longest.fold(CLASSIFY_LENGTH, usize::min))
    }
}

/// A model and where it came from.
pub(super) struct Studied<'a> {
    pub(super) path: &'a Path,
    pub(super) checkpoint: Checkpoint,
    is_run: bool,
}

impl<'a> Studied<'a> {
    /// The run in the folder `path`, or else the checkpoint. `moved` is where the model that a run was
    /// trained from lies now.
    fn open(path: &'a Path, moved: Option<&Path>) -> Result<Self, Error> {
        if RunFolder::recipe(path).is_err() {
            let checkpoint = Checkpoint::open(&hub::located(path)?)?;
            return Ok(Self {
                path,
                checkpoint,
                is_run: false,
            });
        }
        let (saved, checkpoint) = open_run(path, moved)?;
        let mut checkpoint = TrainedModel::new(path, saved, checkpoint)?.checkpoint;
        // Texts come one by one here, whatever its task put into a sequence.
        checkpoint.config = EncoderConfig::read(&checkpoint.folder.join("config.json"))?;
        Ok(Self {
            path,
            checkpoint,
            is_run: true,
        })
    }

    pub(super) fn layers(&self) -> usize {
        self.checkpoint.config.layers
    }

    /// Most tokens that it takes.
    fn longest(&self) -> usize {
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

    /// The token before each text of at most `max_length`, if there is one.
    pub(super) fn mode_token(&self, max_length: usize) -> Result<Option<String>, Error> {
        Ok(match self.text_encoding(None, max_length)? {
            Encoding::Classify { mode_token, .. } => mode_token,
            _ => None,
        })
    }

    /// Of its files: what was trained, and what that was trained from.
    pub(super) fn fingerprint(&self) -> Result<Fingerprint, Error> {
        let identity = self.checkpoint.identity()?;
        let run = if self.is_run {
            RunIdentity::read(self.path)?.map(|(_, hash)| hash)
        } else {
            None
        };
        let mut fingerprint = Fingerprint::default();
        fingerprint.set("weights", identity.weights);
        fingerprint.set("config", identity.config);
        fingerprint.set("tokenizer", identity.tokenizer);
        fingerprint.set("run", run);
        Ok(fingerprint)
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

/// That there is no `--data` to look at models by; or, where one of `paths` is not there, that: with a file
/// or a folder of what was kept none is needed.
pub(super) fn missing_data(paths: &[&Path]) -> Error {
    match paths.iter().find(|path| !path.exists()) {
        Some(path) => Error::Usage {
            problem: format!("there is no `{}`", path.display()),
            hint: "name the folder of a model or of a run, or what was kept of one; a model on the hub needs `--data` too".into(),
        },
        None => Error::Usage {
            problem: "`--data` is missing".into(),
            hint: "name a file of records to look at the model by; `--help` has an example".into(),
        },
    }
}
