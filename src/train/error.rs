use std::io;
use std::path::PathBuf;

use bytesize::ByteSize;

use crate::error::{Explain, write_hint};
use crate::task::ClassWeights;
use crate::{cache, frozen, generation, task, trainable};

/// Why training failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model or the metrics failed.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The cache could not be read.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The frozen half could not be run.
    #[error(transparent)]
    Frozen(#[from] frozen::Error),
    /// Text could not be written.
    #[error(transparent)]
    Generation(#[from] generation::Error),
    /// The optimizer failed.
    #[error(transparent)]
    Trainable(#[from] trainable::Error),
    /// The loss is no number any more.
    #[error("the loss is {loss} at step {step}")]
    Diverged {
        /// The step.
        step: usize,
        /// NaN or infinite.
        loss: f64,
    },
    /// In fp16, gradients are no numbers at any scale.
    #[error(
        "at step {step} the gradients are no numbers in fp16, even with the loss times {scale}"
    )]
    LossScale {
        /// The step.
        step: usize,
        /// What the loss was multiplied by.
        scale: f64,
    },
    /// The run folder holds something already.
    #[error("`{folder}` is not empty")]
    RunExists {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder is no run.
    #[error("`{folder}` holds no finished run: no `{file}`")]
    NoRun {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        file: &'static str,
    },
    /// Nothing is validated.
    #[error("`{flag}` needs a validation split, and the cache has none")]
    NoValidation {
        /// The flag.
        flag: &'static str,
    },
    /// Texts are asked for where none are written.
    #[error("`{flag}` is for tasks that write text")]
    WritesNoText {
        /// The flag.
        flag: &'static str,
    },
    /// Classes are weighed or smoothed where a row has not one of them.
    #[error("`{flag}` is for classes of which each row has one")]
    NotOneClass {
        /// The flag.
        flag: &'static str,
    },
    /// Not a weight a class.
    #[error("`--class-weights {found}` is not one weight for each of {classes} classes")]
    ClassWeights {
        /// As given.
        found: ClassWeights,
        /// How many there are.
        classes: usize,
    },
    /// A metric that the task does not have.
    #[error("`--best-metric {found}` is none of the task's metrics")]
    UnknownMetric {
        /// As given.
        found: String,
        /// Those it has.
        known: Vec<String>,
    },
    /// There is no run to go on with.
    #[error("`{folder}` holds no run to go on with: no `{file}`")]
    NothingToResume {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        file: &'static str,
    },
    /// What was typed is not the run that was begun.
    #[error("`{folder}` was begun with {field} {begun}, now {now}")]
    OtherRun {
        /// The run folder.
        folder: PathBuf,
        /// What differs.
        field: String,
        /// In the checkpoint.
        begun: String,
        /// As asked for.
        now: String,
    },
    /// The budget does not even hold the parameters.
    #[error(
        "`--memory-budget {}` is too small: without any activations, parameters, gradients, optimizer, batches and program take {}",
        ByteSize(*.budget),
        ByteSize(*.needed)
    )]
    MemoryBudget {
        /// As given.
        budget: u64,
        /// Without any batch.
        needed: u64,
    },
    /// Ctrl-C.
    #[error("interrupted: nothing is written")]
    Interrupted,
    /// A file of a run is malformed.
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be written.
    #[error("cannot write the run")]
    Write(#[source] io::Error),
    /// A file could not be read.
    #[error("cannot read the run")]
    Read(#[source] io::Error),
    /// Everything is frozen.
    #[error("`--freeze {freeze}` leaves nothing to train")]
    NothingToTrain {
        /// As given.
        freeze: String,
    },
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Task(error) => return error.hint(),
            Self::Cache(error) => return error.hint(),
            Self::Frozen(error) => return error.hint(),
            Self::Generation(error) => return error.hint(),
            Self::Trainable(error) => return error.hint(),
            Self::Diverged { .. } => "lower `--lr`, or raise `--warmup`".into(),
            Self::LossScale { .. } => "use `--mixed-precision bf16`, or lower `--lr`".into(),
            Self::RunExists { .. } => {
                "choose another `--out`, or replace the run with `--force`".into()
            }
            Self::MemoryBudget { .. } => "raise `--memory-budget`, freeze more layers, or lower `--batch-size`; `telly estimate` tells what each comes to".into(),
            Self::NoValidation { .. } => "fill the cache with `telly precompute --valid`".into(),
            Self::WritesNoText { .. } => "leave it out: it belongs to `--task summarize`, `generate` and `complete`".into(),
            Self::NotOneClass { .. } => "leave it out: it belongs to `--task classify` with `--objective single-label`".into(),
            Self::ClassWeights { .. } => "give them in the order of the classes: integers by value, then words by the alphabet; or `balanced`".into(),
            Self::UnknownMetric { known, .. } => format!("it has {}", known.join(", ")),
            Self::NothingToResume { .. } => "leave out `--resume` to begin a run".into(),
            Self::OtherRun { .. } => {
                "`--resume` needs no flags but `--out`; for another run choose another `--out`"
                    .into()
            }
            Self::NoRun { .. } => "it is the folder that `telly train --out` wrote; of several seeds one of those in it".into(),
            Self::Write(error) => return write_hint(error, "an `--out` folder"),
            Self::NothingToTrain { .. } => "freeze fewer layers than the model has".into(),
            Self::Damaged { path, .. } if path.ends_with("recipe.toml") => return None,
            Self::Damaged { .. } => "the run's `recipe.toml` repeats it: `telly train --recipe`, with another `--out`".into(),
            Self::Read(_) | Self::Interrupted => return None,
        })
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Task(error) => error.is_input(),
            Self::Cache(error) => error.is_input(),
            Self::Frozen(error) => error.is_input(),
            Self::Generation(error) => error.is_input(),
            Self::Trainable(error) => error.is_input(),
            Self::RunExists { .. }
            | Self::NoRun { .. }
            | Self::NoValidation { .. }
            | Self::WritesNoText { .. }
            | Self::NotOneClass { .. }
            | Self::ClassWeights { .. }
            | Self::UnknownMetric { .. }
            | Self::NothingToResume { .. }
            | Self::MemoryBudget { .. }
            | Self::OtherRun { .. }
            | Self::Damaged { .. }
            | Self::NothingToTrain { .. } => true,
            Self::Diverged { .. }
            | Self::LossScale { .. }
            | Self::Write(_)
            | Self::Read(_)
            | Self::Interrupted => false,
        }
    }
}
