//! How fast a cache is read, beside a plain copy of the same bytes, and what its checksums cost.
//!
//! `cargo bench --bench cache -- CACHE [CACHE...]`: caches that `telly precompute` has made. Every
//! repeat does each kind of reading once, one after the other; medians are shown, of the file's
//! bytes a second. Warm: the files are in the kernel's page cache, what is compared is the work.
//! Cold: the kernel was asked to forget them, and they come from the disk (on Linux alone).
//!
//! - copy: every file read from its beginning to its end into memory of its size;
//! - in order, shuffled: the hidden states as training gets them, in f32, 32 sequences at a time;
//! - checksums: what `telly cache verify` does, and `telly precompute` once a shard.

#![allow(clippy::print_stdout, clippy::print_stderr)]
#![allow(
    clippy::unnecessary_wraps,
    reason = "each way of reading is timed alike"
)]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use telly::cache::{Cache, verify};
use telly::error::Error;

const REPEATS: usize = 7;
/// Sequences read at a time.
const BATCH: usize = 32;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1);
    let folders: Vec<PathBuf> = arguments
        .filter(|argument| argument != "--bench")
        .map(PathBuf::from)
        .collect();
    if folders.is_empty() {
        println!("no cache given: cargo bench --bench cache -- CACHE [CACHE...]");
        return ExitCode::SUCCESS;
    }
    println!("| cache | MB | | copy, MB/s | in order | shuffled | in order / copy | checksums |");
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for folder in &folders {
        if let Err(error) = measure(folder) {
            eprintln!("error: {}: {error}", folder.display());
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn measure(folder: &Path) -> Result<(), Error> {
    let cache = Cache::open(folder)?;
    let manifest = cache.manifest();
    let in_order: Vec<usize> = (0..manifest.sequences).collect();
    let mut shuffled = in_order.clone();
    shuffled.shuffle(&mut ChaCha8Rng::seed_from_u64(1));
    let files = manifest.shards.iter();
    let files: Vec<PathBuf> = files.map(|shard| folder.join(&shard.file)).collect();

    copy(&files)?;
    for kept in ["warm", "cold"] {
        let prepare = || {
            if kept == "cold" {
                forget(&files)
            } else {
                Ok(())
            }
        };
        let mut seconds = [const { Vec::new() }; 4];
        for _ in 0..REPEATS {
            prepare()?;
            seconds[0].push(timed(|| copy(&files))?);
            prepare()?;
            seconds[1].push(timed(|| read(&cache, &in_order))?);
            prepare()?;
            seconds[2].push(timed(|| read(&cache, &shuffled))?);
            prepare()?;
            seconds[3].push(timed(|| Ok(verify(folder, |_| ()).map(drop)?))?);
        }
        let megabytes = manifest.bytes as f64 / 1e6;
        let [copied, ordered, random, hashed] = seconds.map(|seconds| megabytes / median(seconds));
        println!(
            "| {} | {megabytes:.0} | {kept} | {copied:.0} | {ordered:.0} | {random:.0} | {:.2} | {hashed:.0} |",
            folder.display(),
            ordered / copied,
        );
    }
    Ok(())
}

/// Has the kernel drop the files' pages; those that are mapped by this process stay.
fn forget(files: &[PathBuf]) -> Result<(), Error> {
    for file in files {
        let file = fs_err::File::open(file).map_err(telly::cache::Error::Read)?;
        #[cfg(target_os = "linux")]
        rustix::fs::fadvise(file.file(), 0, None, rustix::fs::Advice::DontNeed)
            .map_err(|error| telly::cache::Error::Read(error.into()))?;
        drop(file);
    }
    Ok(())
}

/// Reads every file from its beginning to its end into memory of its size.
fn copy(files: &[PathBuf]) -> Result<(), Error> {
    for file in files {
        black_box(fs_err::read(file).map_err(telly::cache::Error::Read)?);
    }
    Ok(())
}

/// The hidden states of `sequences`, a batch at a time, as training gets them.
fn read(cache: &Cache, sequences: &[usize]) -> Result<(), Error> {
    let mut batches = sequences.chunks(BATCH).peekable();
    while let Some(batch) = batches.next() {
        if let Some(next) = batches.peek() {
            cache.will_need_each(next);
        }
        black_box(cache.hidden_states(batch));
    }
    Ok(())
}

fn timed(work: impl FnOnce() -> Result<(), Error>) -> Result<f64, Error> {
    let started = Instant::now();
    work()?;
    Ok(started.elapsed().as_secs_f64())
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}
