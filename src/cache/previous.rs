//! What a cache held before its data changed: sequences that are in it need not be computed
//! again.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use blake3::Hash;

use super::shard::Shard;
use super::{Difference, EncodedStates, Error, MANIFEST, Manifest, writer};
use crate::disk;
use crate::publish::publish_from;
use crate::ragged::Ragged;

/// Where a cache's files stay while those that replace them are written.
pub(super) const PREVIOUS: &str = "previous";
/// Fields of the fingerprint that a sequence's states do not depend on, once it is token ids.
const DATA_FIELDS: [&str; 6] = [
    "tokenizer",
    "encoding",
    "train",
    "valid",
    "test",
    "code-base",
];

/// Whether caches with these differences hold the same states for the same token ids.
pub(super) fn same_states(differences: &[Difference]) -> bool {
    let mut fields = differences
        .iter()
        .map(|difference| difference.field.as_str());
    fields.all(|field| DATA_FIELDS.contains(&field))
}

/// The whole shards of an earlier cache, and where in them each sequence lies.
pub struct Previous {
    shards: Vec<Shard>,
    /// Shard, and number within it.
    places: HashMap<Hash, (usize, usize)>,
}

impl Previous {
    /// Opens every shard of the cache in `folder` whose checksum holds; none without a manifest.
    pub(super) fn open(folder: &Path) -> Option<Self> {
        let manifest = Manifest::read(folder).ok()?;
        manifest.precision?;
        let mut previous = Self {
            shards: Vec::new(),
            places: HashMap::new(),
        };
        for entry in manifest
            .shards
            .iter()
            .filter(|entry| entry.blake3.is_some())
        {
            let shard = Shard::open(folder, entry, manifest.precision, manifest.width);
            let Ok(shard) = shard else { continue };
            if Some(shard.hash()) != entry.blake3 {
                continue;
            }
            let mut ids = Vec::new();
            for index in 0..entry.sequences {
                ids.clear();
                shard.read_ids(index, &mut ids);
                previous
                    .places
                    .insert(key(&ids), (previous.shards.len(), index));
            }
            previous.shards.push(shard);
        }
        Some(previous)
    }

    /// How many of `sequences` it holds.
    pub(super) fn count(&self, sequences: &Ragged<u32>) -> usize {
        sequences.iter().filter(|ids| self.holds(ids)).count()
    }

    /// Whether it holds the sequence `ids`.
    pub fn holds(&self, ids: &[u32]) -> bool {
        self.places.contains_key(&key(ids))
    }

    /// Copies the states of the sequence `ids` to `states`, from `first_token` on. Says whether it
    /// holds that sequence.
    pub fn copy(&self, ids: &[u32], first_token: usize, states: &mut EncodedStates) -> bool {
        let Some(&(shard, index)) = self.places.get(&key(ids)) else {
            return false;
        };
        let (hidden, scales) = self.shards[shard].encoded(index);
        states.put_encoded(first_token, hidden, scales);
        true
    }
}

fn key(ids: &[u32]) -> Hash {
    let mut hasher = blake3::Hasher::new();
    for id in ids {
        hasher.update(&id.to_le_bytes());
    }
    hasher.finalize()
}

/// Keeps the files of the cache in `folder` aside, its manifest last: without it they do not
/// count.
pub(super) fn keep(folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    let place = place(folder);
    disk::create_folders(&place).map_err(Error::Write)?;
    let written = manifest
        .shards
        .iter()
        .filter(|shard| shard.blake3.is_some());
    let splits = manifest.splits.iter().map(|split| split.file.as_str());
    let shards = written.map(|shard| shard.file.as_str());
    let files = shards.chain(splits).chain([MANIFEST]);
    for file in files.filter(|file| folder.join(file).is_file()) {
        publish_from(&folder.join(file), &place, file).map_err(Error::Write)?;
    }
    Ok(())
}

/// What is kept aside in `folder`, if its states are those of the cache that `manifest` plans.
pub(super) fn kept(folder: &Path, manifest: &Manifest) -> Option<Previous> {
    let place = place(folder);
    let kept = Manifest::read(&place).ok()?;
    let differences = kept.fingerprint.all_differences(&manifest.fingerprint);
    same_states(&differences).then(|| Previous::open(&place))?
}

/// Lets go of what was kept.
pub(super) fn drop_kept(folder: &Path) -> Result<(), Error> {
    let place = place(folder);
    if place.is_dir() {
        writer::remove_cache_files(&place)?;
        disk::remove_folder(&place).map_err(Error::Write)?;
    }
    Ok(())
}

/// Where [`keep`] keeps what was in `folder`.
fn place(folder: &Path) -> PathBuf {
    folder.join(PREVIOUS)
}
