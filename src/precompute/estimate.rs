//! What a cache will take and whether it is worth it, told before it is filled.

use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

use super::Plan;
use crate::error::Error;
use crate::frozen::FrozenEncoder;
use crate::ragged::Ragged;

/// Batches that are timed for each that runs at a time, after one that is not.
const TIMED_BATCHES: usize = 3;
/// Written and read again to time the disk.
const DISK_SAMPLE_BYTES: usize = 64 << 20;

/// What one split adds to the caches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitEstimate {
    /// `train`, `valid` or `test`.
    pub name: String,
    /// Sequences that no split before it has.
    pub new_sequences: usize,
    /// Their tokens.
    pub new_tokens: usize,
    /// Bytes of their states, token ids and offsets in all caches; the shards' headers are left out.
    pub bytes: u64,
}

/// What each split of `plan` adds, in order.
pub fn split_estimates(plan: &Plan) -> Vec<SplitEstimate> {
    let manifest = plan.layout();
    let states = manifest
        .precision
        .map_or(0, |precision| precision.token_bytes(manifest.width));
    let mut known = 0;
    let splits = plan.splits.iter().map(|split| {
        // Sequences are numbered in order of first appearance.
        let end = split
            .rows
            .iter()
            .max()
            .map_or(0, |&last| last as usize + 1)
            .max(known);
        let new_tokens = (known..end).map(|index| plan.sequences.length(index)).sum();
        let new_sequences = end - known;
        known = end;
        let bytes = new_tokens * (size_of::<u32>() + states) + new_sequences * size_of::<i64>();
        SplitEstimate {
            name: split.name.clone(),
            new_sequences,
            new_tokens,
            bytes: (plan.manifests.len() * bytes) as u64,
        }
    });
    splits.collect()
}

/// Tokens a second of `frozen`, timed on a few batches of `sequences` spread over their lengths;
/// none without tokens.
pub fn frozen_rate(
    frozen: &mut FrozenEncoder,
    sequences: &Ragged<u32>,
) -> Result<Option<f64>, Error> {
    let lengths: Vec<usize> = (0..sequences.len())
        .map(|index| sequences.length(index))
        .collect();
    let batches = frozen.batch_size().batches(&lengths);
    let Some(middle) = batches.get(batches.len() / 2) else {
        return Ok(None);
    };
    let workers = frozen.batches_at_a_time();
    let mut run =
        |batches: &[Vec<usize>]| frozen.run(sequences, batches, &mut |_| ControlFlow::Continue(()));
    // The first run of a session lays out its memory.
    run(&vec![middle.clone(); workers])?;
    let parts = TIMED_BATCHES * workers;
    let timed =
        (0..parts).map(|part| batches[(2 * part + 1) * batches.len() / (2 * parts)].clone());
    let timed: Vec<Vec<usize>> = timed.collect();
    let tokens: usize = timed.iter().flatten().map(|&index| lengths[index]).sum();
    let started = Instant::now();
    run(&timed)?;
    let seconds = started.elapsed().as_secs_f64();
    Ok((tokens > 0).then(|| tokens as f64 / seconds))
}

/// Bytes a second that the disk of `folder`, which need not exist yet, reads: of a temporary file
/// that the kernel was asked to forget. It is gone afterwards.
pub fn read_rate(folder: &Path) -> io::Result<f64> {
    let mut file = tempfile::tempfile_in(existing_ancestor(folder))?;
    let chunk: Vec<u8> = (0..1u32 << 18)
        .flat_map(|number| number.wrapping_mul(0x9E37_79B9).to_le_bytes())
        .collect();
    for _ in 0..DISK_SAMPLE_BYTES / chunk.len() {
        file.write_all(&chunk)?;
    }
    file.sync_all()?;
    forget(&file)?;
    io::Seek::rewind(&mut file)?;
    let mut buffer = vec![0; chunk.len()];
    let started = Instant::now();
    for _ in 0..DISK_SAMPLE_BYTES / chunk.len() {
        file.read_exact(&mut buffer)?;
    }
    Ok(DISK_SAMPLE_BYTES as f64 / started.elapsed().as_secs_f64())
}

/// `folder`, or the nearest folder above it that is there.
pub fn existing_ancestor(folder: &Path) -> &Path {
    let found = folder.ancestors().find(|folder| folder.is_dir());
    // A relative path's last ancestor is the empty one.
    found.unwrap_or(Path::new("."))
}

/// Asks the kernel to drop the file's pages, so that reading goes to the disk.
#[cfg(target_os = "linux")]
fn forget(file: &File) -> io::Result<()> {
    Ok(rustix::fs::fadvise(
        file,
        0,
        None,
        rustix::fs::Advice::DontNeed,
    )?)
}

#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
fn forget(_: &File) -> io::Result<()> {
    Ok(())
}

/// Seconds with and without a cache.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Verdict {
    /// Filling the cache, or the caches of all depths, once.
    pub precompute_seconds: f64,
    /// The frozen half over the training split, as every epoch would take without a cache.
    pub recompute_seconds: f64,
    /// Reading the training split's activations in every epoch.
    pub read_seconds: f64,
}

impl Verdict {
    /// For `plan` at so many tokens of the frozen half and bytes of the disk a second.
    pub fn new(plan: &Plan, tokens_per_second: f64, bytes_per_second: f64) -> Self {
        let training = plan.splits.first().map_or(0, |split| split.tokens);
        let manifest = plan.layout();
        let token = manifest
            .precision
            .map_or(0, |precision| precision.token_bytes(manifest.width));
        Self {
            precompute_seconds: manifest.tokens as f64 / tokens_per_second,
            recompute_seconds: training as f64 / tokens_per_second,
            read_seconds: (training * token) as f64 / bytes_per_second,
        }
    }

    /// The fewest epochs for which filling and reading the cache takes no longer than recomputing
    /// in every epoch; none if reading is no faster.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "at least 1"
    )]
    pub fn break_even_epochs(&self) -> Option<u64> {
        let saved = self.recompute_seconds - self.read_seconds;
        (saved > 0.0).then(|| (self.precompute_seconds / saved).ceil().max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaking_even_takes_whole_epochs() {
        let verdict = |precompute_seconds, recompute_seconds, read_seconds| {
            let verdict = Verdict {
                precompute_seconds,
                recompute_seconds,
                read_seconds,
            };
            verdict.break_even_epochs()
        };
        assert_eq!(verdict(100.0, 90.0, 1.0), Some(2));
        assert_eq!(verdict(50.0, 90.0, 1.0), Some(1));
        assert_eq!(verdict(100.0, 2.0, 1.0), Some(100));
        assert_eq!(verdict(100.0, 1.0, 1.0), None);
    }

    #[test]
    fn a_disk_is_timed_where_the_folder_is_to_be() {
        let folder = tempfile::tempdir().expect("a folder");
        let rate = read_rate(&folder.path().join("not/there")).expect("timed");
        assert!(rate > 0.0);
        let left = fs_err::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 0);
    }
}
