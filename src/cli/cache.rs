//! `telly cache`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::console;
use crate::cache::{Cache, Manifest};
use crate::error::Error;
use crate::progress::Progress;

/// Look at activation caches.
#[derive(Subcommand)]
pub(super) enum CacheCommand {
    /// Print what a cache holds and what it was made from.
    Inspect(CacheArguments),
    /// Check every file of a cache against its checksum.
    Verify(CacheArguments),
}

#[derive(Args)]
#[command(after_help = "Example:\n  telly cache inspect cache/mine")]
pub(super) struct CacheArguments {
    /// Folder of the cache.
    folder: PathBuf,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: &CacheCommand) -> Result<(), Error> {
    match command {
        CacheCommand::Inspect(arguments) => inspect(arguments),
        CacheCommand::Verify(arguments) => verify(arguments),
    }
}

fn inspect(arguments: &CacheArguments) -> Result<(), Error> {
    let manifest = Manifest::read(&arguments.folder)?;
    let written = manifest
        .shards
        .iter()
        .filter(|shard| shard.blake3.is_some())
        .count();
    let splits: Map<String, Value> = manifest
        .splits
        .iter()
        .map(|split| {
            let value =
                json!({ "rows": split.rows, "columns": split.columns, "tokens": split.tokens });
            (split.name.clone(), value)
        })
        .collect();
    let object = json!({
        "cache": arguments.folder.display().to_string(),
        "complete": manifest.complete,
        "model": manifest.model,
        "frozen_precision": manifest.fingerprint.get("frozen_precision"),
        "precision": manifest.precision,
        "width": manifest.width,
        "parity": manifest.parity,
        "unique_sequences": manifest.sequences,
        "tokens": manifest.tokens,
        "bytes": manifest.bytes,
        "shards": manifest.shards.len(),
        "shards_written": written,
        "splits": splits,
        "labels": manifest.labels,
        "fingerprint": manifest.fingerprint,
    });
    console::result(arguments.json, object.as_object().unwrap_or(&Map::new()))
}

fn verify(arguments: &CacheArguments) -> Result<(), Error> {
    let cache = Cache::open(&arguments.folder)?;
    let progress = Progress::new("verify", cache.manifest().bytes, "bytes");
    let progress = std::cell::RefCell::new(progress);
    let mut problems = cache.verify(|bytes| progress.borrow_mut().advance(bytes))?;
    drop(progress);
    let files = cache.manifest().shards.len() + cache.manifest().splits.len();
    if problems.is_empty() {
        let object = json!({ "files": files, "bytes": cache.manifest().bytes, "damaged": 0 });
        return console::result(arguments.json, object.as_object().unwrap_or(&Map::new()));
    }
    let first = problems.remove(0);
    for problem in problems {
        console::say(&format!("error: {problem}"));
    }
    Err(first.into())
}
