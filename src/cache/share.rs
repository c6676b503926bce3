//! One of several machines' parts of a cache, and putting the parts together.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::writer::{self, Writer};
use super::{Error, Manifest, verify};
use crate::disk;

const PREFIX: &str = "share-";

/// `--shard i/n`: the shards that one of `count` processes computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// From 1.
    index: usize,
    count: usize,
}

impl Share {
    /// Share `index` of `count`, from 1; none if there is no such share.
    pub fn new(index: usize, count: usize) -> Option<Self> {
        (1..=count)
            .contains(&index)
            .then_some(Self { index, count })
    }

    /// Whether this share computes shard `number`, counted from 0: every `count`th, so that all
    /// shares are alike in size.
    pub(super) fn owns(self, number: usize) -> bool {
        number % self.count == self.index - 1
    }

    /// Where this share of the cache in `folder` is written.
    pub fn folder(self, folder: &Path) -> PathBuf {
        folder.join(format!("{PREFIX}{}-of-{}", self.index, self.count))
    }

    /// From the name of a share's folder.
    pub fn of_folder(name: &str) -> Option<Self> {
        let (index, count) = name.strip_prefix(PREFIX)?.split_once("-of-")?;
        Self::new(index.parse().ok()?, count.parse().ok()?)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{}/{}", self.index, self.count)
    }
}

impl FromStr for Share {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.split_once('/')
            .and_then(|(index, count)| Self::new(index.parse().ok()?, count.parse().ok()?))
            .ok_or_else(|| format!("`{text}` is no share: expected i/n with i from 1 to n, as 2/8"))
    }
}

/// Puts the shares in `folder` together into one cache, with the bytes that a single process
/// would have written, and removes them. Every shard's checksum is compared on the way. Stopped
/// at any moment, it can be run again.
pub fn merge(folder: &Path) -> Result<Manifest, Error> {
    let shares = shares(folder)?;
    let Some(count) = shares.iter().map(|share| share.count).max() else {
        return Err(Error::NoShares {
            folder: folder.to_owned(),
        });
    };
    if let Some(manifest) = put_together(folder, &shares) {
        remove_shares(folder, &shares)?;
        return Ok(manifest);
    }
    let mut manifests = Vec::new();
    for index in 1..=count {
        let share = Share { index, count };
        manifests.push((share, finished(folder, share)?));
    }
    let (first, plan) = &manifests[0];
    for (share, manifest) in &manifests[1..] {
        let differences = plan.fingerprint.all_differences(&manifest.fingerprint);
        if !differences.is_empty() {
            return Err(Error::Stale {
                folder: share.folder(folder),
                differences,
                hint: format!("run share {share} again with what share {first} was made from"),
            });
        }
    }
    let mut merged = plan.clone();
    for (number, shard) in merged.shards.iter_mut().enumerate() {
        let (_, manifest) = &manifests[number % count];
        shard.blake3.clone_from(&manifest.shards[number].blake3);
    }
    let writer = Writer::adopt(folder, merged)?;
    for split in &plan.splits {
        writer.take(&first.folder(folder), &split.file)?;
    }
    for (number, shard) in plan.shards.iter().enumerate() {
        let (share, _) = &manifests[number % count];
        writer.take(&share.folder(folder), &shard.file)?;
    }
    writer.taken()?;
    let found = verify(folder, |_| ())?;
    if let Some(problem) = found.problems.into_iter().next() {
        return Err(problem);
    }
    let manifest = writer.finish()?;
    remove_shares(folder, &shares)?;
    Ok(manifest)
}

/// The manifest of the whole cache in `folder` if these `shares` are what is left of those it was
/// put together from: their removal was stopped.
fn put_together(folder: &Path, shares: &[Share]) -> Option<Manifest> {
    if shares.iter().all(|share| all_finished(folder, *share)) {
        return None;
    }
    let manifest = Manifest::read(folder).ok()?;
    let from_the_same = |share: &Share| match Manifest::read(&share.folder(folder)) {
        Ok(part) => part.fingerprint == manifest.fingerprint,
        // A share's manifest is what is removed first.
        Err(error) => matches!(error, Error::Missing { .. }),
    };
    let whole = || verify(folder, |_| ()).is_ok_and(|found| found.problems.is_empty());
    (manifest.complete && shares.iter().all(from_the_same) && whole()).then_some(manifest)
}

fn remove_shares(folder: &Path, shares: &[Share]) -> Result<(), Error> {
    for share in shares {
        let part = share.folder(folder);
        writer::remove(&part)?;
        disk::remove_folder(&part).map_err(Error::Write)?;
    }
    Ok(())
}

/// Whether every share of the cache in `folder` is there and finished.
pub fn all_finished(folder: &Path, share: Share) -> bool {
    (1..=share.count).all(|index| finished(folder, Share { index, ..share }).is_ok())
}

/// The manifest of `share`, all of whose shards are written.
fn finished(folder: &Path, share: Share) -> Result<Manifest, Error> {
    let unfinished = |written, planned| Error::Share {
        share,
        folder: folder.to_owned(),
        written,
        planned,
    };
    let manifest = match Manifest::read(&share.folder(folder)) {
        Err(Error::Missing { .. }) => return Err(unfinished(0, None)),
        manifest => manifest?,
    };
    let shards = manifest.shards.iter().enumerate();
    let own = shards.filter(|(number, _)| share.owns(*number));
    let planned = own.clone().count();
    let written = own.filter(|(_, shard)| shard.blake3.is_some()).count();
    if written < planned {
        return Err(unfinished(written, Some(planned)));
    }
    Ok(manifest)
}

/// The shares that lie in `folder`.
fn shares(folder: &Path) -> Result<Vec<Share>, Error> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::Read(error)),
    };
    let mut shares = Vec::new();
    for entry in entries {
        let name = entry.map_err(Error::Read)?.file_name();
        shares.extend(Share::of_folder(&name.to_string_lossy()));
    }
    Ok(shares)
}

/// Whether a file of a cache's folder is a share's.
pub(super) fn is_share(name: &str) -> bool {
    Share::of_folder(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shard_has_one_share() {
        for number in 0..20 {
            let owners = (1..=6).filter(|&index| Share { index, count: 6 }.owns(number));
            assert_eq!(owners.count(), 1);
        }
    }

    #[test]
    fn shares_are_read_and_named() {
        let share: Share = "2/8".parse().expect("a share");
        assert_eq!(share.to_string(), "2/8");
        let folder = share.folder(Path::new("cache"));
        assert_eq!(folder, Path::new("cache/share-2-of-8"));
        assert!(is_share("share-2-of-8") && !is_share("share-9-of-8") && !is_share("share-x"));
        for wrong in ["0/8", "9/8", "2", "a/b", "1/0"] {
            assert!(wrong.parse::<Share>().is_err(), "{wrong}");
        }
    }
}
