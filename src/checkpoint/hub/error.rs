use std::io;
use std::path::PathBuf;

use hf_hub::api::sync::ApiError;

/// Why a model was not brought from the hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The network may not be used, and the cache has not got the model.
    #[error(
        "no folder `{name}`, the hub's cache `{cache}` has not got that model whole, and HF_HUB_OFFLINE forbids asking the hub"
    )]
    Offline {
        /// The model.
        name: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The hub has no such model.
    #[error("no folder `{name}`, and the hub has no model of that name")]
    NotFound {
        /// The model.
        name: String,
    },
    /// The hub has the model, but no such revision of it.
    #[error("the hub's model `{name}` has no revision `{revision}`")]
    NoRevision {
        /// The model.
        name: String,
        /// What was asked for.
        revision: String,
    },
    /// The hub does not let everyone have the model.
    #[error(
        "the hub refuses `{name}` (HTTP status {status}): it is private, asks for agreement, or does not exist"
    )]
    Refused {
        /// The model.
        name: String,
        /// 401 or 403.
        status: u16,
    },
    /// The model lacks a file that is needed.
    #[error("the hub's model `{name}` has no {what}")]
    NoFile {
        /// The model.
        name: String,
        /// Which.
        what: &'static str,
    },
    /// The disk is too small.
    #[error("`{file}` of `{name}` has {bytes} bytes, `{cache}` has room for {free}")]
    NoSpace {
        /// The model.
        name: String,
        /// The file.
        file: String,
        /// Its length.
        bytes: u64,
        /// Where it would go.
        cache: PathBuf,
        /// What is free there.
        free: u64,
    },
    /// The hub answers what cannot be.
    #[error("the hub's answer for `{name}` cannot be used: {problem}")]
    Answer {
        /// The model.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// The hub could not be asked, or a download broke off.
    #[error("no folder `{name}`, and it cannot be got from the hub")]
    Request {
        /// The model.
        name: String,
        /// What happened.
        source: Box<ApiError>,
    },
    /// The hub's cache could not be written.
    #[error("cannot write to the hub's cache `{cache}`")]
    Cache {
        /// The folder.
        cache: PathBuf,
        /// The system's own words.
        source: io::Error,
    },
    /// There is no place for the hub's cache.
    #[error("there is no home folder for the hub's cache")]
    NoHome,
}

impl HubError {
    pub(crate) fn hint(&self) -> String {
        match self {
            Self::Offline { .. } => "unset HF_HUB_OFFLINE, bring the model into that cache, or pass a folder",
            Self::NotFound { .. } => "pass a folder, or `owner/name` as the hub writes it",
            Self::NoRevision { .. } => "a revision is a branch, a tag or a whole commit hash",
            Self::Refused { .. } => "ask for access on the model's page, then set HF_TOKEN to a token of yours",
            Self::NoFile { .. } => "Telly reads encoders saved by transformers: choose a model that has such files",
            Self::NoSpace { .. } | Self::Cache { .. } => "make room, or set HF_HOME or HF_HUB_CACHE to a folder on another disk",
            Self::Answer { .. } => "check HF_ENDPOINT, or try again later",
            Self::Request { .. } => "check the network, or bring the model to this machine and pass its folder; what was brought is kept",
            Self::NoHome => "set HF_HOME to a folder",
        }
        .into()
    }

    /// Whether what was asked for is wrong, rather than the network or the disk.
    pub(crate) fn is_input(&self) -> bool {
        !matches!(
            self,
            Self::NoSpace { .. } | Self::Answer { .. } | Self::Request { .. } | Self::Cache { .. }
        )
    }
}
