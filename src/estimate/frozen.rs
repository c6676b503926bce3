//! `telly precompute`.

use super::{CUDA_CONTEXT_BYTES, Estimate, PROCESS_BYTES, Place, VOCABULARY_ENTRY_BYTES};
use crate::cache::Precision;
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::frozen::{FrozenPrecision, TOKEN_BUDGET};
use crate::precompute::PROBE_TOKENS;
use crate::trainable::{Footprint, PartShape};

/// What a frozen pass is about.
#[derive(Debug, Clone, Copy)]
pub struct FrozenShape {
    /// Tokens of a sequence: the most there can be.
    pub length: usize,
    /// Sequences in all, if they are known.
    pub sequences: Option<usize>,
    /// How the cache stores them.
    pub precision: Precision,
    /// What the linear layers compute in.
    pub frozen_precision: FrozenPrecision,
    /// Most bytes of a shard.
    pub shard_bytes: u64,
    /// Batches that run at a time.
    pub threads: usize,
    /// Where.
    pub place: Place,
}

impl FrozenShape {
    /// Bytes of the cache on disk, if the number of sequences is known: states, ids and offsets;
    /// equal sequences, which are stored once, are not known of.
    pub fn cache_bytes(&self, config: &EncoderConfig, freeze: Freeze) -> Option<u64> {
        let states = match freeze {
            Freeze::Nothing => 0,
            Freeze::Layers(_) => self.precision.token_bytes(config.hidden_size),
        };
        let sequence = self.length * (states + size_of::<u32>()) + size_of::<i64>();
        self.sequences
            .map(|sequences| (sequences * sequence) as u64)
    }
}

/// Peak memory of filling a cache of what `freeze` leaves frozen.
pub fn precompute(config: &EncoderConfig, freeze: Freeze, shape: &FrozenShape) -> Estimate {
    let process = PROCESS_BYTES + config.vocabulary_size as u64 * VOCABULARY_ENTRY_BYTES;
    let Freeze::Layers(depth) = freeze else {
        return Estimate::new("writing the token ids", vec![("process", process)]);
    };
    let all = Footprint::new(config, Freeze::Nothing);
    let above = Footprint::new(config, freeze);
    let frozen = 4 * (all.parameters - above.parameters) as u64;
    let embeddings =
        4 * (all.parameters - Footprint::new(config, Freeze::Layers(0)).parameters) as u64;
    let linear = frozen.saturating_sub(embeddings);
    let weights = match shape.frozen_precision {
        FrozenPrecision::Fp32 => frozen,
        // A scale for every 128 numbers.
        FrozenPrecision::Int8 => embeddings + linear / 4 + linear / 128,
    };
    let length = shape.length as u64;
    let tokens = length.max(TOKEN_BUDGET as u64 / length.max(1) * length);
    let (hidden, heads) = (config.hidden_size as u64, config.attention_heads as u64);
    let wide = config.layer(0).feed_forward.wide.outputs as u64;
    // Of one session: states, projections, the wide states, and the scores of its batch.
    let arena = 4 * tokens * (8 * hidden + 2 * wide) + 4 * 3 * tokens * length * heads;
    let shard = shape.cache_bytes(config, freeze).unwrap_or(u64::MAX);
    let shard = shard.min(shape.shard_bytes);
    if shape.place == Place::Cuda {
        return Estimate::new(
            "in a batch",
            vec![
                ("weights", weights),
                ("activations", arena),
                ("CUDA context", CUDA_CONTEXT_BYTES),
            ],
        );
    }
    let packed = if depth == 0 {
        0
    } else {
        weights.saturating_sub(embeddings)
    };
    let arenas = shape.threads as u64 * arena;
    let sample = PartShape {
        sequences: 1,
        length: shape.length.min(PROBE_TOKENS),
        pruned: false,
    };
    let _ = above;
    let below = all.composed(sample, false);
    let below: u64 = below.iter().sum::<u64>() * depth as u64 / config.layers.max(1) as u64;
    Estimate::fullest([
        Estimate::new(
            "loading the model",
            vec![
                ("weights in the file", frozen),
                ("weights as a graph", weights),
                ("weights", weights),
                ("process", process),
            ],
        ),
        Estimate::new(
            "in the parity probe",
            vec![
                ("weights in the file", frozen),
                ("weights", weights),
                ("packed weights", packed),
                ("weights of the reference", frozen),
                ("activations", arenas),
                ("activations of the reference", below),
                ("process", process),
            ],
        ),
        Estimate::new(
            "in a shard",
            vec![
                ("weights in the file", frozen),
                ("weights", weights),
                ("packed weights", packed),
                ("activations", arenas),
                ("cache shards", 3 * shard),
                ("process", process),
            ],
        ),
    ])
}
