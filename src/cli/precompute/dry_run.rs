//! `telly precompute --dry-run`, and the verdict that a real run begins with.

use std::path::Path;

use bytesize::ByteSize;
use serde_json::{Map, Value, json};

use crate::cache::{self, free_bytes};
use crate::cli::console;
use crate::error::Error;
use crate::frozen::FrozenEncoder;
use crate::precompute::{
    Plan, Verdict, existing_ancestor, frozen_rate, read_rate, split_estimates,
};

/// Caches of fewer tokens are filled in seconds: a real run does not time anything first.
const WORTH_TIMING_TOKENS: usize = 1 << 18;

/// Prints sizes, times a few batches of `frozen` and the disk of `folder`, and says from how many
/// epochs on the cache is worth it. Nothing is left behind.
pub(super) fn report(
    plan: &Plan,
    frozen: Option<&mut FrozenEncoder>,
    folder: &Path,
    json: bool,
) -> Result<(), Error> {
    let disk = existing_ancestor(folder);
    let free = free_bytes(disk).map_err(cache::Error::Read)?;
    let (layout, bytes) = (plan.layout(), plan.bytes());
    let all: usize = plan.splits.iter().map(|split| split.tokens).sum();
    let splits = split_estimates(plan).into_iter().map(|split| {
        let object = json!({
            "new_sequences": split.new_sequences,
            "new_tokens": split.new_tokens,
            "bytes": split.bytes,
        });
        (split.name, object)
    });
    let mut object = json!({
        "sequences": plan.all_sequences(),
        "unique_sequences": layout.sequences,
        "tokens": layout.tokens,
        "deduplication": all as f64 / layout.tokens.max(1) as f64,
        "bytes": bytes,
        "shard_bytes": layout.shard_bytes,
        "splits": splits.collect::<Map<_, _>>(),
        "free_bytes": free,
        "cache": folder.display().to_string(),
    });
    if bytes > free {
        console::say(&format!(
            "it does not fit: {} are free, the cache needs {}",
            ByteSize(free),
            ByteSize(bytes)
        ));
    }
    if let Some(frozen) = frozen
        && let Some(timed) = Timed::measure(plan, frozen, disk)?
    {
        if let (Value::Object(object), Value::Object(timed)) = (&mut object, timed.to_json()) {
            object.extend(timed);
        }
        console::say(&advice(&timed.verdict));
    }
    console::result(json, object.as_object().unwrap_or(&Map::new()))
}

/// Says from how many epochs on the cache is worth it, before it is filled; nothing of caches that
/// are filled before one has read it.
pub(super) fn say_verdict(plan: &Plan, frozen: &mut FrozenEncoder, folder: &Path) {
    if plan.layout().tokens < WORTH_TIMING_TOKENS {
        return;
    }
    // What fails here, as a disk with little room, need not fail the run.
    if let Ok(Some(timed)) = Timed::measure(plan, frozen, existing_ancestor(folder)) {
        console::say(&advice(&timed.verdict));
    }
}

/// The frozen half and the disk, timed.
struct Timed {
    provider: String,
    tokens_per_second: f64,
    bytes_per_second: f64,
    verdict: Verdict,
}

impl Timed {
    /// On a few batches, and in the folder `disk`; none without tokens.
    fn measure(
        plan: &Plan,
        frozen: &mut FrozenEncoder,
        disk: &Path,
    ) -> Result<Option<Self>, Error> {
        let Some(tokens_per_second) = frozen_rate(frozen, &plan.sequences)? else {
            return Ok(None);
        };
        let bytes_per_second = read_rate(disk).map_err(cache::Error::Write)?;
        Ok(Some(Self {
            provider: frozen.provider().to_string(),
            tokens_per_second,
            bytes_per_second,
            verdict: Verdict::new(plan, tokens_per_second, bytes_per_second),
        }))
    }

    fn to_json(&self) -> Value {
        json!({
            "provider": self.provider,
            "tokens_per_second": self.tokens_per_second,
            "read_bytes_per_second": self.bytes_per_second,
            "precompute_seconds": self.verdict.precompute_seconds,
            "recompute_seconds_per_epoch": self.verdict.recompute_seconds,
            "read_seconds_per_epoch": self.verdict.read_seconds,
            "break_even_epochs": self.verdict.break_even_epochs(),
        })
    }
}

/// The verdict in a sentence.
fn advice(verdict: &Verdict) -> String {
    let Verdict {
        precompute_seconds,
        recompute_seconds,
        read_seconds,
    } = verdict;
    let times = format!(
        "the frozen half takes {precompute_seconds:.1} s once with a cache, {recompute_seconds:.1} s an epoch without; reading takes {read_seconds:.1} s an epoch"
    );
    match verdict.break_even_epochs() {
        Some(1) => format!("{times}: the cache is worth it from the first epoch"),
        Some(epochs) => {
            format!("{times}: the cache is worth it from {epochs} epochs on, over all runs from it")
        }
        None => format!(
            "{times}: this disk is too slow for a cache; choose another for `--cache`, or a smaller `--precision`"
        ),
    }
}
