use std::io;
use std::path::PathBuf;

use crate::error::Explain;
use crate::train;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A run could not be read.
    #[error(transparent)]
    Run(#[from] train::Error),
    /// There is nothing.
    #[error("there is no `{path}`")]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// What is there is nothing that can be reported.
    #[error(
        "`{path}` is neither a run nor a sweep: it has none of recipe.toml, sweep.json and sweep.toml"
    )]
    Unknown {
        /// As given.
        path: PathBuf,
    },
    /// A file is malformed.
    #[error("`{path}` is damaged: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// A file holds JSON of another kind.
    #[error("`{path}` is not what `telly rsa --json` prints: {problem}")]
    NoComparison {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The result of probes is malformed.
    #[error("`{path}` is not what `telly probe --json` prints: {problem}")]
    NoProbes {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be read.
    #[error("cannot read what is to be reported")]
    Read(#[source] io::Error),
}

impl Explain for Error {
    fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Run(error) => {
                let lost = || "bring the file back, or leave this run out".into();
                return error.hint().or_else(|| error.is_input().then(lost));
            }
            Self::Missing { .. } => {
                "pass folders that `telly train --out` and `telly sweep --out` wrote".into()
            }
            Self::Unknown { .. } => {
                "pass the folder of a run or of a sweep itself, or a file with what `telly rsa --json` or `telly probe --json` printed; `telly runs list` finds runs in a folder".into()
            }
            Self::Damaged { remedy, .. } => (*remedy).into(),
            Self::NoComparison { .. } => {
                "make it with `telly rsa A B --data FILE --json > rsa.json`; pass runs and sweeps as folders".into()
            }
            Self::NoProbes { .. } => {
                "make it with `telly probe MODEL --data FILE --json > probe.json`".into()
            }
            Self::Read(_) => return None,
        })
    }

    fn is_input(&self) -> bool {
        match self {
            Self::Run(error) => error.is_input(),
            Self::Read(_) => false,
            _ => true,
        }
    }
}
