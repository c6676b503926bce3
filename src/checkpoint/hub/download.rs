//! Bringing a model from the hub: only the files that are needed, the weights last, and the name
//! of the revision when all is there.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Repo, RepoType};

use super::places::{Places, SNAPSHOTS};
use super::{CONFIG, DEFAULT_REVISION, HubError, HubName, is_commit, is_word};
use crate::checkpoint::weights::{Parts, SOURCES, shard_names};
use crate::checkpoint::{Error, vocabulary_files};
use crate::progress::Progress;

/// How often a download that broke off is taken up again.
const RETRIES: usize = 3;

/// Brings the model `name`; its folder.
pub(super) fn download(name: &HubName, places: &Places) -> Result<PathBuf, Error> {
    let hub = Hub::new(name, places)?;
    let (commit, files) = hub.listing()?;
    let there = |file: &&str| files.contains(*file);
    let lacking = |what| {
        Error::Hub(HubError::NoFile {
            name: name.to_string(),
            what,
        })
    };
    let sources = SOURCES.iter().find(|(file, ..)| there(file));
    let (weights, _, parts) = sources.ok_or_else(|| {
        lacking("`model.safetensors`, no `pytorch_model.bin` and no index of either")
    })?;
    if !there(&CONFIG) {
        return Err(lacking("`config.json`"));
    }
    let mut tokenizer: Vec<&str> = vocabulary_files::ALL.into_iter().filter(there).collect();
    if tokenizer.first() == Some(&vocabulary_files::TOKENIZER) {
        tokenizer.truncate(1);
    }
    if tokenizer.is_empty() {
        return Err(lacking("files of a tokenizer"));
    }

    let snapshot = places.repository(name).join(SNAPSHOTS).join(&commit);
    let commit_of = hub.at(&commit);
    let bring = |file: &str| hub.bring(&commit_of, &commit, &snapshot, file);
    bring(CONFIG)?;
    tokenizer.into_iter().try_for_each(bring)?;
    bring(weights)?;
    if *parts == Parts::Index {
        let names = shard_names(&snapshot.join(weights))?;
        names.iter().try_for_each(|name| bring(name))?;
    }
    hub.name_revision(&commit)?;
    Ok(snapshot)
}

/// The hub, and the model that is asked for.
struct Hub<'a> {
    api: Api,
    name: &'a HubName,
    places: &'a Places,
}

impl<'a> Hub<'a> {
    fn new(name: &'a HubName, places: &'a Places) -> Result<Self, Error> {
        let mut builder = ApiBuilder::from_cache(places.hub_cache())
            .with_token(places.token.clone())
            .with_retries(RETRIES)
            .with_progress(false)
            .with_user_agent("telly", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &places.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build().map_err(|source| {
            Error::Hub(HubError::Request {
                name: name.to_string(),
                source: Box::new(source),
            })
        })?;
        Ok(Self { api, name, places })
    }

    /// The model at this branch, tag or commit.
    fn at(&self, revision: &str) -> ApiRepo {
        let repository = self.name.repository.clone();
        let repository = Repo::with_revision(repository, RepoType::Model, revision.into());
        self.api.repo(repository)
    }

    /// The commit that the revision is, and the names of its files.
    fn listing(&self) -> Result<(String, BTreeSet<String>), Error> {
        let revision = &self.name.revision;
        let listing = self.at(revision).info().map_err(|error| {
            let missing = status(&error) == Some(404) && revision != DEFAULT_REVISION;
            if missing && self.at(DEFAULT_REVISION).info().is_ok() {
                return Error::Hub(HubError::NoRevision {
                    name: self.name.repository.clone(),
                    revision: revision.clone(),
                });
            }
            self.failed(error)
        })?;
        if !is_commit(&listing.sha) {
            return Err(self.answer(format!("`{}` is no commit", listing.sha.escape_debug())));
        }
        let files = listing.siblings.into_iter().map(|file| file.rfilename);
        Ok((listing.sha, files.collect()))
    }

    /// Brings `file` of the model at `commit` into `snapshot`, unless it is there.
    fn bring(
        &self,
        model: &ApiRepo,
        commit: &str,
        snapshot: &Path,
        file: &str,
    ) -> Result<(), Error> {
        let target = snapshot.join(file);
        if target.is_file() {
            return Ok(());
        }
        let known = self.api.metadata(&model.url(file));
        let known = known.map_err(|error| self.failed(error))?;
        // The library makes file names of both. A weak tag begins with `W/`.
        let tag = known.etag();
        if !is_word(tag.strip_prefix("W/").unwrap_or(tag)) {
            let etag = tag.escape_debug();
            return Err(self.answer(format!("`{file}` has the tag `{etag}`")));
        }
        if known.commit_hash() != commit {
            return Err(self.answer(format!("`{file}` is of another commit than {commit}")));
        }
        let bytes = known.size() as u64;
        self.check_space(file, bytes)?;
        let label = format!("downloading {file}");
        let progress = Download { label, bar: None };
        let brought = model.download_with_progress(file, progress);
        let brought = brought.map_err(|error| self.failed(error))?;
        let found = fs_err::metadata(&brought).map_err(|error| self.cache(error))?;
        if found.len() != bytes {
            // Neither the name nor the bytes behind it may be taken for good ones.
            let blob = fs_err::canonicalize(&brought).map_err(|error| self.cache(error))?;
            for path in [brought, blob] {
                fs_err::remove_file(path).map_err(|error| self.cache(error))?;
            }
            let found = found.len();
            return Err(self.answer(format!("`{file}` came with {found} of {bytes} bytes")));
        }
        Ok(())
    }

    fn check_space(&self, file: &str, bytes: u64) -> Result<(), Error> {
        let cache = &self.places.cache;
        fs_err::create_dir_all(cache).map_err(|error| self.cache(error))?;
        let space = rustix::fs::statvfs(cache).map_err(|error| self.cache(error.into()))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        if bytes > free {
            return Err(Error::Hub(HubError::NoSpace {
                name: self.name.to_string(),
                file: file.into(),
                bytes,
                cache: cache.clone(),
                free,
            }));
        }
        Ok(())
    }

    /// Notes that the revision is `commit`, for this and for Python.
    fn name_revision(&self, commit: &str) -> Result<(), Error> {
        let revision = &self.name.revision;
        if revision == commit {
            return Ok(());
        }
        let repository = self.name.repository.clone();
        let repository = Repo::with_revision(repository, RepoType::Model, revision.clone());
        let named = self.places.hub_cache().repo(repository).create_ref(commit);
        named.map_err(|error| self.cache(error))
    }

    fn cache(&self, source: std::io::Error) -> Error {
        Error::Hub(HubError::Cache {
            cache: self.places.cache.clone(),
            source,
        })
    }

    fn answer(&self, problem: String) -> Error {
        Error::Hub(HubError::Answer {
            name: self.name.to_string(),
            problem,
        })
    }

    fn failed(&self, error: ApiError) -> Error {
        let name = self.name.to_string();
        Error::Hub(match (status(&error), error) {
            (Some(404), _) => HubError::NotFound { name },
            (Some(status @ (401 | 403)), _) => HubError::Refused { name, status },
            (_, ApiError::IoError(error)) if is_disk(&error) => return self.cache(error),
            (_, source) => HubError::Request {
                name,
                source: Box::new(source),
            },
        })
    }
}

/// The HTTP status that the hub answered with, if that is what went wrong.
fn status(error: &ApiError) -> Option<u16> {
    match error {
        ApiError::RequestError(error) => match **error {
            ureq::Error::StatusCode(status) => Some(status),
            _ => None,
        },
        ApiError::TooManyRetries(error) => status(error),
        _ => None,
    }
}

/// Whether the disk said so, rather than the network.
fn is_disk(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        NotADirectory, PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull,
    };
    matches!(
        error.kind(),
        PermissionDenied | ReadOnlyFilesystem | StorageFull | QuotaExceeded | NotADirectory
    )
}

/// The bytes of one file as they come.
struct Download {
    label: String,
    bar: Option<Progress>,
}

impl hf_hub::api::Progress for Download {
    fn init(&mut self, size: usize, _: &str) {
        self.bar = Some(Progress::new(&self.label, size as u64, "bytes"));
    }

    fn update(&mut self, size: usize) {
        if let Some(bar) = &mut self.bar {
            bar.advance(size as u64);
        }
    }

    fn finish(&mut self) {
        self.bar = None;
    }
}
