//! Filling a cache: manifest first, then shard by shard, each under a temporary name until it
//! is whole.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};

use super::previous::{self, PREVIOUS, Previous, same_states};
use super::reader::{CLASSES, FIRST_SCORED, NUMBERS, REFERENCE_OFFSETS, REFERENCES, SETS};
use super::shard::{self, Shard};
use super::share::{Share, is_share};
use super::{EncodedStates, Error, MANIFEST, Manifest, ShardEntry, SplitEntry};
use crate::disk;
use crate::lock::Lock;
use crate::publish::{TEMPORARY_PREFIX, publish, publish_from};
use crate::ragged::Ragged;
use crate::targets::Targets;

/// A shard takes sequences until it would exceed this many bytes: small enough to be held in
/// memory while it is computed, large enough that sequences can be sorted by length within it.
pub const SHARD_BYTES: usize = 128 << 20;
const LOCK: &str = "lock";
/// Tells backup programs that what lies here can be made again (bford.info/cachedir).
const TAG: &str = "CACHEDIR.TAG";
const TAG_CONTENT: &str = "Signature: 8a477f597d28d172789f06886806bc55\n\
    # An activation cache of telly: `telly precompute` makes it again.\n";

/// Which sequences a split's rows are made of.
pub struct SplitRows {
    /// `train`, `valid` or `test`.
    pub name: String,
    /// Sequences a row.
    pub columns: usize,
    /// Index of each row's sequences, row after row.
    pub rows: Vec<u32>,
    /// What each row is to come to.
    pub targets: Targets,
    /// Tokens of all rows.
    pub tokens: usize,
}

/// A cache being filled. Holds the folder's lock.
pub struct Writer {
    folder: PathBuf,
    manifest: Manifest,
    /// What of it this writer fills; all when absent.
    share: Option<Share>,
    previous: Option<Previous>,
    _lock: Lock,
}

impl Writer {
    /// Lays out in `manifest` the shards for `sequences`, each of about `shard_bytes` at most.
    pub fn plan_shards(
        manifest: &mut Manifest,
        sequences: &Ragged<u32>,
        shard_bytes: usize,
    ) -> Result<(), Error> {
        let hidden = manifest
            .precision
            .map(|precision| (precision, manifest.width));
        let token_bytes = hidden.map_or(0, |(precision, width)| precision.token_bytes(width));
        let most_tokens = (shard_bytes / (size_of::<u32>() + token_bytes)).max(1);
        manifest.shards.clear();
        let (mut count, mut tokens) = (0, 0);
        let mut close = |count: &mut usize, tokens: &mut usize| -> Result<(), Error> {
            let bytes = shard::serialised_length(*count, *tokens, hidden).map_err(invalid)?;
            manifest.shards.push(ShardEntry {
                file: format!("shard-{:05}.safetensors", manifest.shards.len()),
                sequences: std::mem::take(count),
                tokens: std::mem::take(tokens),
                bytes,
                blake3: None,
            });
            Ok(())
        };
        for index in 0..sequences.len() {
            let length = sequences.length(index);
            if count > 0 && tokens + length > most_tokens {
                close(&mut count, &mut tokens)?;
            }
            count += 1;
            tokens += length;
        }
        if count > 0 {
            close(&mut count, &mut tokens)?;
        }
        manifest.shard_bytes = Some(shard_bytes as u64);
        manifest.sequences = sequences.len();
        manifest.tokens = sequences.tokens();
        manifest.bytes = manifest.shards.iter().map(|shard| shard.bytes).sum();
        Ok(())
    }

    /// Starts or goes on with the cache in `folder` that `manifest` plans for `sequences`. Shards
    /// that an earlier run with the same fingerprint wrote, and that are whole, are kept. Where
    /// only the data or the size of shards has changed, the sequences that are in it already are
    /// [`previous`](Self::take_previous); with other data it is refused without `force` when these
    /// are less than half of what it holds, as it may be another's. A cache of another fingerprint
    /// is replaced with `force` and refused without.
    pub fn open(
        folder: &Path,
        mut manifest: Manifest,
        sequences: &Ragged<u32>,
        splits: &[SplitRows],
        force: bool,
    ) -> Result<Self, Error> {
        if !folder.join(MANIFEST).is_file() {
            check_empty(folder)?;
        }
        disk::create_folders(folder).map_err(Error::Write)?;
        let lock = lock(folder)?;
        remove_temporary_files(folder)?;
        let existing = match Manifest::read(folder) {
            Ok(existing) => Some(existing),
            Err(Error::Missing { .. }) => None,
            Err(_) if force => None,
            Err(error) => return Err(error),
        };
        let previous = if let Some(existing) = &existing {
            take_over(folder, existing, &mut manifest, sequences, force)?
        } else {
            remove_cache_files(folder)?;
            previous::kept(folder, &manifest)
        };
        check_space(folder, &manifest)?;
        publish(folder, TAG, TAG_CONTENT.as_bytes()).map_err(Error::Write)?;
        for split in splits {
            manifest.splits.push(write_split(folder, split)?);
        }
        let writer = Self {
            folder: folder.to_owned(),
            manifest,
            share: None,
            previous,
            _lock: lock,
        };
        writer.write_manifest()?;
        Ok(writer)
    }

    /// As [`open`](Self::open), of one `share` of the cache in `folder`, which lies in a folder of
    /// its own there.
    pub fn open_share(
        folder: &Path,
        share: Share,
        manifest: Manifest,
        sequences: &Ragged<u32>,
        splits: &[SplitRows],
        force: bool,
    ) -> Result<Self, Error> {
        if !folder.join(MANIFEST).is_file() {
            check_empty(folder)?;
        }
        let mut writer = Self::open(&share.folder(folder), manifest, sequences, splits, force)?;
        writer.share = Some(share);
        Ok(writer)
    }

    /// Takes up the cache that `manifest` describes, to [`take`](Self::take) its files from
    /// elsewhere; what was there before goes. There is no manifest until
    /// [`taken`](Self::taken).
    pub(super) fn adopt(folder: &Path, mut manifest: Manifest) -> Result<Self, Error> {
        let lock = lock(folder)?;
        remove_cache_files(folder)?;
        publish(folder, TAG, TAG_CONTENT.as_bytes()).map_err(Error::Write)?;
        manifest.complete = false;
        Ok(Self {
            folder: folder.to_owned(),
            manifest,
            share: None,
            previous: None,
            _lock: lock,
        })
    }

    /// Brings `file` over from the folder `from`, without copying where the disk can do so; what
    /// is there stays there.
    pub(super) fn take(&self, from: &Path, file: &str) -> Result<(), Error> {
        publish_from(&from.join(file), &self.folder, file).map_err(Error::Write)
    }

    /// Every file has been taken: the cache is there, incomplete until it is finished.
    pub(super) fn taken(&self) -> Result<(), Error> {
        self.write_manifest()
    }

    /// Shards still to be written: number, and its sequences.
    pub fn missing(&self) -> Vec<(usize, Range<usize>)> {
        let mut start = 0;
        let mut missing = Vec::new();
        for (number, shard) in self.manifest.shards.iter().enumerate() {
            let sequences = start..start + shard.sequences;
            start = sequences.end;
            let ours = self.share.is_none_or(|share| share.owns(number));
            if ours && shard.blake3.is_none() {
                missing.push((number, sequences));
            }
        }
        missing
    }

    /// Refuses to start `writers`, all on one disk, when there is not room for all of them.
    pub fn check_space_for_all(writers: &[Self]) -> Result<(), Error> {
        let Some(first) = writers.first() else {
            return Ok(());
        };
        let missing = writers.iter().flat_map(|writer| {
            let missing = writer.missing().into_iter();
            missing.map(|(number, _)| writer.manifest.shards[number].bytes)
        });
        require_space(&first.folder, missing.sum())
    }

    /// What was there before the data changed. It is kept on disk until the writer has finished.
    pub fn take_previous(&mut self) -> Option<Previous> {
        self.previous.take()
    }

    /// Publishes shard `number`: its token `ids` and, when the cache holds activations, their
    /// `states` in its precision.
    pub fn write_shard(
        &mut self,
        number: usize,
        ids: &Ragged<u32>,
        states: Option<&EncodedStates>,
    ) -> Result<(), Error> {
        let precision = self.manifest.precision.zip(states);
        let states = precision.map(|(precision, states)| (precision, self.manifest.width, states));
        let bytes = shard::serialise(ids, states).map_err(invalid)?;
        let entry = &mut self.manifest.shards[number];
        debug_assert_eq!(entry.bytes, bytes.len() as u64, "the estimate is exact");
        publish(&self.folder, &entry.file, &bytes).map_err(Error::Write)?;
        entry.blake3 = Some(hash(&bytes));
        self.write_manifest()
    }

    /// Marks the cache complete; a share by itself never is.
    pub fn finish(mut self) -> Result<Manifest, Error> {
        self.manifest.complete = self.share.is_none();
        self.write_manifest()?;
        previous::drop_kept(&self.folder)?;
        Ok(self.manifest)
    }

    fn write_manifest(&self) -> Result<(), Error> {
        publish(&self.folder, MANIFEST, &self.manifest.to_bytes()).map_err(Error::Write)
    }
}

fn hash(bytes: &[u8]) -> String {
    blake3::Hasher::new()
        .update_rayon(bytes)
        .finalize()
        .to_hex()
        .to_string()
}

fn lock(folder: &Path) -> Result<Lock, Error> {
    let path = folder.join(LOCK);
    let file = match disk::create_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let file = fs_err::File::options().write(true).open(&path);
            file.map_err(Error::Write)?.into_parts().0
        }
        created => created.map_err(Error::Write)?,
    };
    let lock = Lock::of(file).map_err(Error::Write)?;
    lock.ok_or_else(|| Error::Locked {
        folder: folder.to_owned(),
    })
}

/// A folder that holds other people's files is no place for a cache.
fn check_empty(folder: &Path) -> Result<(), Error> {
    let entries = match fs_err::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::Read(error)),
    };
    for entry in entries {
        let name = entry.map_err(Error::Read)?.file_name();
        if !is_ours(&name.to_string_lossy()) {
            return Err(Error::Foreign {
                folder: folder.to_owned(),
            });
        }
    }
    Ok(())
}

fn is_ours(name: &str) -> bool {
    [LOCK, TAG, MANIFEST].contains(&name)
        || name == PREVIOUS
        || is_share(name)
        || name.starts_with(TEMPORARY_PREFIX)
        || is_part(name)
}

/// The splits that a cache may have.
const SPLITS: [&str; 4] = ["train", "valid", "test", "code-base"];

/// Whether a file of this name holds a shard or the rows of a split: others, as pooled vectors and
/// weights, are somebody else's.
fn is_part(name: &str) -> bool {
    let Some(stem) = name.strip_suffix(".safetensors") else {
        return false;
    };
    let number = stem.strip_prefix("shard-");
    SPLITS.contains(&stem)
        || number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn remove_temporary_files(folder: &Path) -> Result<(), Error> {
    remove_files(folder, |name| name.starts_with(TEMPORARY_PREFIX))
}

/// The manifest goes first, to stay away: without it the folder is no cache, whatever else is
/// left.
pub(super) fn remove_cache_files(folder: &Path) -> Result<(), Error> {
    remove_files(folder, |name| name == MANIFEST)?;
    disk::sync_folder(folder).map_err(Error::Write)?;
    remove_files(folder, |name| {
        is_part(name) || name.starts_with(TEMPORARY_PREFIX)
    })
}

/// Removes every file that a writer leaves in `folder`.
pub(super) fn remove(folder: &Path) -> Result<(), Error> {
    let _lock = lock(folder)?;
    previous::drop_kept(folder)?;
    remove_cache_files(folder)?;
    remove_files(folder, |name| is_ours(name) && !is_share(name))
}

fn remove_files(folder: &Path, which: impl Fn(&str) -> bool) -> Result<(), Error> {
    for entry in fs_err::read_dir(folder).map_err(Error::Read)? {
        let entry = entry.map_err(Error::Read)?;
        if which(&entry.file_name().to_string_lossy()) {
            disk::remove_file(&entry.path()).map_err(Error::Write)?;
        }
    }
    Ok(())
}

/// Keeps what of the `existing` cache can be used for the one that `manifest` plans, and removes
/// the rest.
fn take_over(
    folder: &Path,
    existing: &Manifest,
    manifest: &mut Manifest,
    sequences: &Ragged<u32>,
    force: bool,
) -> Result<Option<Previous>, Error> {
    let differences = existing.fingerprint.all_differences(&manifest.fingerprint);
    let same = differences.is_empty();
    if same && same_layout(existing, manifest) && !force {
        keep_whole_shards(folder, existing, manifest);
        return Ok(previous::kept(folder, manifest));
    }
    // With `--force`, what was made from the same is there to be made anew.
    if same_states(&differences) && !(same && force) {
        // What is open stays open when the files get other names.
        let open = Previous::open(folder);
        let known = open.as_ref().map_or(0, |open| open.count(sequences));
        if same || 2 * known >= existing.sequences || force {
            previous::drop_kept(folder)?;
            previous::keep(folder, existing)?;
            remove_cache_files(folder)?;
            return Ok(open);
        }
    }
    if !same && !force {
        return Err(Error::Stale {
            folder: folder.to_owned(),
            differences,
            hint: "choose another `--cache`, or replace this one with `--force`".into(),
        });
    }
    previous::drop_kept(folder)?;
    remove_cache_files(folder)?;
    Ok(None)
}

/// Whether the shards of both hold the same sequences.
fn same_layout(existing: &Manifest, manifest: &Manifest) -> bool {
    let layout = |manifest: &Manifest| -> Vec<(usize, u64)> {
        let shards = manifest.shards.iter();
        shards.map(|shard| (shard.sequences, shard.bytes)).collect()
    };
    layout(existing) == layout(manifest)
}

/// Takes over the checksums of shards that are on disk as the `existing` manifest says, which lays
/// them out as `manifest` does.
fn keep_whole_shards(folder: &Path, existing: &Manifest, manifest: &mut Manifest) {
    for (planned, written) in manifest.shards.iter_mut().zip(&existing.shards) {
        let whole = Shard::open(folder, written, existing.precision, existing.width)
            .is_ok_and(|shard| Some(shard.hash()) == written.blake3);
        if whole && planned.file == written.file {
            planned.blake3.clone_from(&written.blake3);
        }
    }
}

/// Refuses to start what cannot end.
fn check_space(folder: &Path, manifest: &Manifest) -> Result<(), Error> {
    let unwritten = manifest
        .shards
        .iter()
        .filter(|shard| shard.blake3.is_none());
    require_space(folder, unwritten.map(|shard| shard.bytes).sum())
}

/// Refuses to write `needed` bytes into `folder`, which is there, if its disk has no room for them.
pub fn require_space(folder: &Path, needed: u64) -> Result<(), Error> {
    let free = free_bytes(folder).map_err(Error::Read)?;
    if needed > free {
        return Err(Error::DiskSpace {
            folder: folder.to_owned(),
            needed,
            free,
        });
    }
    Ok(())
}

/// Bytes that this user may still write to the disk of `folder`, which is there.
pub fn free_bytes(folder: &Path) -> io::Result<u64> {
    let space = rustix::fs::statvfs(folder)?;
    Ok(space.f_bavail * space.f_frsize)
}

/// Publishes a split's index: `rows` `[rows, columns]` and, if there are any, what its rows are to
/// come to.
fn write_split(folder: &Path, split: &SplitRows) -> Result<SplitEntry, Error> {
    let rows = split.rows.len() / split.columns;
    let row_bytes: Vec<u8> = split
        .rows
        .iter()
        .flat_map(|row| row.to_le_bytes())
        .collect();
    let targets = target_tensors(&split.targets, rows);
    let view = |dtype, shape, bytes| TensorView::new(dtype, shape, bytes).map_err(invalid);
    let mut tensors = vec![(
        "rows",
        view(Dtype::U32, vec![rows, split.columns], &row_bytes)?,
    )];
    for (name, dtype, shape, bytes) in &targets {
        if !bytes.is_empty() {
            tensors.push((name, view(*dtype, shape.clone(), bytes)?));
        }
    }
    let bytes = safetensors::serialize(tensors, None).map_err(invalid)?;
    let file = format!("{}.safetensors", split.name);
    publish(folder, &file, &bytes).map_err(Error::Write)?;
    Ok(SplitEntry {
        name: split.name.clone(),
        rows,
        columns: split.columns,
        tokens: split.tokens,
        file,
        bytes: bytes.len() as u64,
        blake3: hash(&bytes),
    })
}

/// What the `rows` rows of a split are to come to, as tensors: name, type, shape, bytes.
fn target_tensors(
    targets: &Targets,
    rows: usize,
) -> Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)> {
    match targets {
        Targets::None => Vec::new(),
        Targets::Classes(classes) => {
            let bytes = classes.iter().flat_map(|class| class.to_le_bytes());
            vec![(CLASSES, Dtype::I64, vec![rows], bytes.collect())]
        }
        Targets::Sets { classes, members } => {
            vec![(SETS, Dtype::U8, vec![rows, *classes], members.clone())]
        }
        Targets::Numbers(numbers) => {
            let bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
            vec![(NUMBERS, Dtype::F32, vec![rows], bytes.collect())]
        }
        Targets::Texts {
            first_scored,
            references,
            // The shards tell them.
            lengths: _,
        } => {
            let places = first_scored.iter().flat_map(|place| place.to_le_bytes());
            let places = (FIRST_SCORED, Dtype::U32, vec![rows], places.collect());
            let mut tensors = vec![places];
            if !references.is_empty() {
                let mut offsets = vec![0i64];
                let mut text = Vec::new();
                for reference in references {
                    text.extend_from_slice(reference.as_bytes());
                    offsets.push(text.len() as i64);
                }
                let bytes = offsets.iter().flat_map(|offset| offset.to_le_bytes());
                let ends = (
                    REFERENCE_OFFSETS,
                    Dtype::I64,
                    vec![rows + 1],
                    bytes.collect(),
                );
                tensors.push(ends);
                tensors.push((REFERENCES, Dtype::U8, vec![text.len()], text));
            }
            tensors
        }
        Targets::Tokens(_) => unreachable!("of a batch"),
    }
}

fn invalid(error: safetensors::SafeTensorError) -> Error {
    Error::Write(io::Error::other(error))
}
