//! Where the hub is and where its files are kept, by the environment variables that Python's
//! `huggingface_hub` goes by.

use std::path::{Path, PathBuf};

use hf_hub::{Cache, Repo, RepoType};

use super::{HubError, HubName, is_commit};

/// The folder of a model's revisions.
pub(super) const SNAPSHOTS: &str = "snapshots";

/// What the environment says.
pub(super) struct Places {
    /// The folder of all models.
    pub(super) cache: PathBuf,
    /// Another hub than the usual one.
    pub(super) endpoint: Option<String>,
    pub(super) token: Option<String>,
    /// Whether the network may not be used.
    pub(super) offline: bool,
}

impl Places {
    pub(super) fn from_environment() -> Result<Self, HubError> {
        let home = match variable("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => user_cache().ok_or(HubError::NoHome)?.join("huggingface"),
        };
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.map_or_else(|| home.join("hub"), PathBuf::from);
        let token_file =
            variable("HF_TOKEN_PATH").map_or_else(|| home.join("token"), PathBuf::from);
        let token = variable("HF_TOKEN").or_else(|| fs_err::read_to_string(token_file).ok());
        let token = token.map(|token| token.trim().to_owned());
        let yes = |name| variable(name).is_some_and(|value| is_yes(&value));
        Ok(Self {
            // Links within the cache are made relative to it.
            cache: std::path::absolute(&cache).unwrap_or(cache),
            endpoint: variable("HF_ENDPOINT").map(|url| url.trim_end_matches('/').to_owned()),
            token: token.filter(|token| !token.is_empty()),
            offline: yes("HF_HUB_OFFLINE") || yes("TRANSFORMERS_OFFLINE"),
        })
    }

    /// The folder of `name`'s revision, if it is known here which commit that is.
    pub(super) fn kept(&self, name: &HubName) -> Option<PathBuf> {
        let folder = self.repository(name);
        let commit = if is_commit(&name.revision) {
            name.revision.clone()
        } else {
            let reference = folder.join("refs").join(&name.revision);
            let commit = fs_err::read_to_string(reference).ok()?;
            commit.trim().to_owned()
        };
        is_commit(&commit).then(|| folder.join(SNAPSHOTS).join(commit))
    }

    /// The folder of all that is kept of `name`.
    pub(super) fn repository(&self, name: &HubName) -> PathBuf {
        let repository = Repo::new(name.repository.clone(), RepoType::Model);
        self.cache.join(repository.folder_name())
    }

    pub(super) fn hub_cache(&self) -> Cache {
        Cache::new(self.cache.clone())
    }
}

/// A variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `~/.cache`, unless the desktop's conventions say otherwise.
fn user_cache() -> Option<PathBuf> {
    if let Some(cache) = variable("XDG_CACHE_HOME") {
        return Some(PathBuf::from(cache));
    }
    let home = std::env::home_dir().filter(|home| home != Path::new(""))?;
    Some(home.join(".cache"))
}

fn is_yes(value: &str) -> bool {
    ["1", "on", "yes", "true"].contains(&value.to_ascii_lowercase().as_str())
}
