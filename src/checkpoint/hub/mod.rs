//! Models by their name on the Hugging Face hub, kept where Python keeps them.
//!
//! What is in the hub's cache is used as it is, and nobody is asked. The rest is brought by the
//! `hf-hub` crate, whose version 0.5 is enough for that and needs neither an asynchronous runtime
//! nor the hub's own transfer protocol.

mod download;
mod error;
mod places;

use std::path::{Path, PathBuf};

pub use error::HubError;
use places::Places;

use super::weights::{Parts, SOURCES, shard_names};
use super::{Error, vocabulary_files};

const CONFIG: &str = "config.json";
/// The revision that is meant where none is given.
const DEFAULT_REVISION: &str = "main";

/// A model on the hub: `owner/name`, or `owner/name@revision`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HubName {
    /// `owner/name`.
    repository: String,
    /// A branch, a tag or a commit.
    revision: String,
}

impl std::fmt::Display for HubName {
    fn fmt(&self, formatter: &mut std::fmt::Formatter) -> std::fmt::Result {
        formatter.write_str(&self.repository)?;
        if self.revision == DEFAULT_REVISION {
            return Ok(());
        }
        write!(formatter, "@{}", self.revision)
    }
}

impl HubName {
    /// What `text` names; none if it cannot be a name on the hub.
    fn parse(text: &str) -> Option<Self> {
        let (repository, revision) = match text.split_once('@') {
            Some((repository, revision)) => (repository, revision),
            None => (text, DEFAULT_REVISION),
        };
        let (owner, name) = repository.split_once('/')?;
        let good = is_word(owner) && is_word(name) && revision.split('/').all(is_word);
        good.then(|| Self {
            repository: repository.into(),
            revision: revision.into(),
        })
    }
}

/// One part of a name: no path leads anywhere else by it.
fn is_word(word: &str) -> bool {
    let letters =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    !word.is_empty() && !word.starts_with(['.', '-']) && word.chars().all(letters)
}

/// Whether `text` is a commit's hash.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.chars().all(|letter| letter.is_ascii_hexdigit())
}

/// The folder of `model`: itself if there is one of that name, else that of the model on the hub,
/// which is brought if it is not there yet.
pub fn locate(model: &Path) -> Result<PathBuf, Error> {
    if model.is_dir() {
        return Ok(model.to_owned());
    }
    let Some(name) = model.to_str().and_then(HubName::parse) else {
        // Whoever opens it will say that there is no such folder.
        return Ok(model.to_owned());
    };
    let places = Places::from_environment().map_err(Error::Hub)?;
    let kept = places.kept(&name);
    if let Some(folder) = kept.filter(|folder| is_whole(folder)) {
        return Ok(folder);
    }
    if places.offline {
        return Err(Error::Hub(HubError::Offline {
            name: name.to_string(),
            cache: places.cache,
        }));
    }
    download::download(&name, &places)
}

/// Whether `folder` has all that a checkpoint needs. Its weights are brought last, so that a
/// download that was cut short is never taken for whole.
fn is_whole(folder: &Path) -> bool {
    let source = SOURCES
        .iter()
        .find(|(name, ..)| folder.join(name).is_file());
    let weights = source.is_some_and(|(name, _, parts)| match parts {
        Parts::One => true,
        Parts::Index => shard_names(&folder.join(name))
            .is_ok_and(|names| names.iter().all(|name| folder.join(name).is_file())),
    });
    weights && folder.join(CONFIG).is_file() && vocabulary_files::found(folder).is_ok()
}

/// `owner/name@commit` of a `folder` that is one of the hub's cache.
pub(super) fn name_of(folder: &Path) -> Option<String> {
    let mut parts = folder.iter().rev().map(|part| part.to_str());
    let (commit, snapshots, repository) = (parts.next()??, parts.next()??, parts.next()??);
    let (owner, name) = repository.strip_prefix("models--")?.split_once("--")?;
    let whole = snapshots == places::SNAPSHOTS && is_commit(commit);
    whole.then(|| format!("{owner}/{name}@{commit}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let name = |text| HubName::parse(text).map(|name| (name.repository, name.revision));
        let pair = |left: &str, right: &str| Some((left.to_owned(), right.to_owned()));
        assert_eq!(
            name("microsoft/unixcoder-base"),
            pair("microsoft/unixcoder-base", "main")
        );
        assert_eq!(name("a/b@v1.0"), pair("a/b", "v1.0"));
        assert_eq!(name("a/b@refs/pr/3"), pair("a/b", "refs/pr/3"));
        for text in [
            "name",
            "/a/b",
            "a/b/c",
            "a//b",
            "../b",
            "a/..",
            "./a",
            "a/b@",
            "a/b@../x",
            "a/b@x/../y",
            "a/b@-x",
            "a b/c",
            "a/b\\c",
            "a/b@x@y",
            "",
        ] {
            assert_eq!(name(text), None, "{text}");
        }
    }

    #[test]
    fn a_snapshot_knows_its_name() {
        let commit = "0123456789abcdef0123456789abcdef01234567";
        let folder = format!("x/hub/models--a--b-c/snapshots/{commit}");
        assert_eq!(name_of(Path::new(&folder)), Some(format!("a/b-c@{commit}")));
        assert_eq!(name_of(Path::new("models/a")), None);
    }
}
