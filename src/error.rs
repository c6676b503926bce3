//! One error for the whole crate, and what each module adds to say what to do about it.

use std::io;
use std::process::ExitStatus;

use crate::{
    cache, checkpoint, cuda, dataset, export, frozen, generation, index, precompute, study, task,
    train, trainable,
};

/// What an error knows beyond its message.
pub trait Explain {
    /// What the user can do about it, one sentence.
    fn hint(&self) -> Option<String> {
        None
    }

    /// Whether the input or the command line was wrong (exit status 2), rather than something
    /// that failed while running (exit status 1).
    fn is_input(&self) -> bool;
}

/// Anything that can go wrong in Telly.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A pre-trained model could not be used.
    #[error(transparent)]
    Checkpoint(#[from] checkpoint::Error),
    /// Records could not be read.
    #[error(transparent)]
    Dataset(#[from] dataset::Error),
    /// Records do not fit the task.
    #[error(transparent)]
    Task(#[from] task::Error),
    /// The frozen half could not be built or run.
    #[error(transparent)]
    Frozen(#[from] frozen::Error),
    /// The trainable half cannot run on a card.
    #[error("`--device cuda` was asked for, and cannot be had here")]
    NoCudaDevice(#[source] cuda::Error),
    /// The cache was not filled.
    #[error(transparent)]
    Precompute(#[from] precompute::Error),
    /// The activation cache could not be read or written.
    #[error(transparent)]
    Cache(#[from] cache::Error),
    /// The trainable half failed.
    #[error(transparent)]
    Trainable(#[from] trainable::Error),
    /// Training failed.
    #[error(transparent)]
    Train(#[from] train::Error),
    /// A run was not exported.
    #[error(transparent)]
    Export(#[from] export::Error),
    /// An index could not be made or used.
    #[error(transparent)]
    Index(#[from] index::Error),
    /// Text was not written.
    #[error(transparent)]
    Generation(#[from] generation::Error),
    /// There is no report.
    #[error(transparent)]
    Report(#[from] study::report::Error),
    /// Models could not be compared.
    #[error(transparent)]
    Study(#[from] study::Error),
    /// The command line asks for something that cannot be.
    #[error("{problem}")]
    Usage {
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A file of the user's own choosing could not be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A command that this one ran failed, and has said why if it could.
    #[error("`{command}` failed ({status})")]
    Child {
        /// What was run.
        command: String,
        /// How it ended.
        status: ExitStatus,
    },
    /// Some runs of several failed, and have said why.
    #[error("not trained: {}", .failed.join("; "))]
    Runs {
        /// Which.
        failed: Vec<String>,
    },
    /// Ctrl-C.
    #[error("interrupted: {kept}")]
    Interrupted {
        /// What is kept, and how to go on.
        kept: String,
    },
}

impl Error {
    fn inner(&self) -> Option<&dyn Explain> {
        match self {
            Self::Checkpoint(error) => Some(error),
            Self::Dataset(error) => Some(error),
            Self::Task(error) => Some(error),
            Self::Frozen(error) => Some(error),
            Self::NoCudaDevice(error) => Some(error),
            Self::Precompute(error) => Some(error),
            Self::Cache(error) => Some(error),
            Self::Trainable(error) => Some(error),
            Self::Train(error) => Some(error),
            Self::Export(error) => Some(error),
            Self::Index(error) => Some(error),
            Self::Generation(error) => Some(error),
            Self::Report(error) => Some(error),
            Self::Study(error) => Some(error),
            Self::Usage { .. }
            | Self::Output(_)
            | Self::Child { .. }
            | Self::Runs { .. }
            | Self::Interrupted { .. } => None,
        }
    }
}

/// What to do when `what` cannot be written: nothing else than the system's own words helps
/// unless the place is the trouble.
pub(crate) fn write_hint(error: &io::Error, what: &str) -> Option<String> {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            Some(format!("choose {what} that you may write to"))
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Some(format!("make room, or choose {what} on another disk"))
        }
        io::ErrorKind::NotFound => Some(format!("choose {what} whose parent folder exists")),
        _ => None,
    }
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Usage { hint, .. } => Some(hint.clone()),
            Self::Output(error) => write_hint(error, "a file in a folder"),
            Self::Child { status, .. } if status.code().is_none() => Some(
                "it may have run out of memory: `telly estimate` tells what is needed; the same command goes on".into(),
            ),
            Self::Child { .. } => Some("mend what it says above, and the same command goes on".into()),
            Self::Runs { .. } => Some("what each said stands above; leave them out, or mend that and repeat the command".into()),
            _ => self.inner().and_then(Explain::hint),
        }
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Usage { .. } => true,
            Self::Child { status, .. } => status.code() == Some(2),
            _ => self.inner().is_some_and(Explain::is_input),
        }
    }
}
