//! What will be computed when a cache is made from one of fewer layers.

use serde_json::Value;

use super::Plan;
use super::plan::{absolute, runtime_name, to_value};
use crate::cache::{Cache, Manifest, Precision, SHARD_BYTES, SplitRows, Writer};
use crate::checkpoint::{Checkpoint, Freeze};
use crate::error::Error;
use crate::frozen::{FrozenLayers, FrozenPrecision, Provider, Runtime, graph_hash};

/// The fingerprint's field that says what an inexact cache was made from.
const DERIVED_FROM: &str = "derived_from";

impl Plan {
    /// Lays out the cache of `checkpoint` that `layers` makes from `source`, stored in `precision`. A
    /// shard takes `shard_bytes` at most; without, as those of `source`.
    ///
    /// Where the result has the bytes of a cache made from nothing, its fingerprint is that cache's.
    /// Otherwise `derived_from` says what it was made from.
    pub fn derived(
        source: &Cache,
        checkpoint: &Checkpoint,
        runtime: &Runtime,
        layers: &FrozenLayers,
        precision: Precision,
        shard_bytes: Option<usize>,
    ) -> Result<Self, Error> {
        let depth = layers.depths()[0];
        let all: Vec<usize> = (0..source.manifest().sequences).collect();
        let sequences = source.token_ids(&all);
        let mut manifest = source.manifest().clone();
        let graph = graph_hash(checkpoint, depth, layers.precision())?;
        let fingerprint = &mut manifest.fingerprint;
        fingerprint.set("freeze", to_value(&Freeze::Layers(depth)));
        fingerprint.set("graph", graph);
        fingerprint.set("runtime", runtime_name(runtime));
        fingerprint.set("provider", layers.provider().to_string());
        fingerprint.set("frozen_precision", layers.precision().to_string());
        fingerprint.set("precision", to_value(&precision));
        if let Some(origin) = inexact_origin(source, runtime, layers) {
            fingerprint.set(DERIVED_FROM, origin);
        }
        manifest.complete = false;
        manifest.model = absolute(&checkpoint.folder);
        manifest.parity = None;
        let splits = take_splits(source)?;
        manifest.splits.clear();
        if manifest.precision == Some(precision) && shard_bytes.is_none() {
            for shard in &mut manifest.shards {
                shard.blake3 = None;
            }
        } else {
            manifest.precision = Some(precision);
            let shard_bytes = shard_bytes.or_else(|| shard_bytes_of(source));
            let shard_bytes = shard_bytes.unwrap_or(SHARD_BYTES);
            Writer::plan_shards(&mut manifest, &sequences, shard_bytes)?;
        }
        Ok(Self {
            sequences,
            splits,
            manifests: vec![manifest],
        })
    }

    /// Whether it holds something else than a cache made from nothing would.
    pub fn is_inexact(&self) -> bool {
        is_inexact(self.layout())
    }
}

/// Whether the cache was derived, and may hold something else than one made from nothing.
pub fn is_inexact(manifest: &Manifest) -> bool {
    !manifest.fingerprint.get(DERIVED_FROM).is_null()
}

/// What `source` was made from, unless what `layers` make from it has the bits of what is made from
/// nothing: then it holds all 32 bits, and the same runtime went through the layers below in fp32 on
/// the CPU, where the bits do not depend on how sequences were batched. In int8 they may.
fn inexact_origin(source: &Cache, runtime: &Runtime, layers: &FrozenLayers) -> Option<Value> {
    let manifest = source.manifest();
    let field = |name: &str| manifest.fingerprint.get(name);
    let exact = manifest.precision == Some(Precision::Fp32)
        && field(DERIVED_FROM).is_null()
        && layers.precision() == FrozenPrecision::Fp32
        && layers.provider() == Provider::Cpu
        && *field("provider") == Provider::Cpu.to_string()
        && *field("runtime") == runtime_name(runtime);
    let fields = ["freeze", "precision", "runtime", "provider", DERIVED_FROM];
    let fields = fields.into_iter().filter(|name| !field(name).is_null());
    let origin = fields.map(|name| (name.to_owned(), field(name).clone()));
    (!exact).then(|| Value::Object(origin.collect()))
}

/// The most bytes of a shard of `source`, if it says so.
fn shard_bytes_of(source: &Cache) -> Option<usize> {
    usize::try_from(source.manifest().shard_bytes?).ok()
}

/// The splits of `source`, whose sequences keep their numbers.
fn take_splits(source: &Cache) -> Result<Vec<SplitRows>, Error> {
    let mut splits = Vec::new();
    for entry in &source.manifest().splits {
        let Some(split) = source.split(&entry.name)? else {
            continue;
        };
        let rows = split.rows.iter().map(|&row| {
            u32::try_from(row).unwrap_or_else(|_| unreachable!("they were stored as u32"))
        });
        splits.push(SplitRows {
            name: entry.name.clone(),
            columns: split.columns,
            rows: rows.collect(),
            targets: split.targets,
            tokens: entry.tokens,
        });
    }
    Ok(splits)
}
