//! `telly precompute`.

use super::{CUDA_CONTEXT_BYTES, Estimate, PROCESS_BYTES, Place, VOCABULARY_ENTRY_BYTES};
use crate::cache::Precision;
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::frozen::{FrozenPrecision, TOKEN_BUDGET};
use crate::trainable::Footprint;

// Fitted to 28 measured runs (`scripts/bench/estimate.py`'s shapes among them), as ONNX Runtime's
// arena and the allocator do not tell; in tenths where they multiply.

/// ONNX Runtime's library and its environment.
const RUNTIME_BYTES: u64 = 32_600_000;
/// The arena of a session over the states of a batch, once many batches have run.
const ARENA_STATES: u64 = 46;
/// The same over the probe's few batches.
const FIRST_STATES: u64 = 14;
/// What candle keeps of the probe's reference over what its operations put out.
const REFERENCE: u64 = 12;
/// Copies of a shard: being filled, being written, and what the allocator keeps of them.
const SHARDS: u64 = 35;

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
    let length = shape.length.max(1);
    // One sequence at least, and no more than there are.
    let fitting = (TOKEN_BUDGET / length).max(1);
    let sequences = shape.sequences.unwrap_or(usize::MAX);
    let tokens = fitting.min(sequences) * length;
    let working = shape.threads.min(sequences.div_ceil(fitting)) as u64;
    let (hidden, heads) = (config.hidden_size, config.attention_heads);
    let wide = config.layer(0).feed_forward.wide.outputs;
    // Of one session's batch: the states between operators, and the scores.
    let (states, scores) = match depth {
        // The embeddings alone: their sum and its norm.
        0 => (2 * hidden, 0),
        _ => (8 * hidden + 2 * wide, length * heads),
    };
    let [states, scores] = [states, scores].map(|numbers| (4 * tokens * numbers) as u64);
    let shard = shape.cache_bytes(config, freeze).unwrap_or(u64::MAX);
    let shard = shard.min(shape.shard_bytes);
    if shape.place == Place::Cuda {
        return Estimate::new(
            "in a batch",
            vec![
                ("weights", weights),
                (
                    "activations",
                    working * (states * ARENA_STATES / 10 + scores),
                ),
                ("CUDA context", CUDA_CONTEXT_BYTES),
            ],
        );
    }
    let packed = if depth == 0 {
        0
    } else {
        weights.saturating_sub(embeddings)
    };
    let reference = depth * (length * (28 * hidden + 3 * wide) + 5 * length * length * heads);
    let reference = 4 * reference as u64 * REFERENCE / 10;
    let process = process + RUNTIME_BYTES;
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
                (
                    "activations",
                    working * (states * FIRST_STATES / 10 + scores),
                ),
                ("activations of the reference", reference),
                ("process", process),
            ],
        ),
        Estimate::new(
            "in a shard",
            vec![
                ("weights in the file", frozen),
                ("weights", weights),
                ("packed weights", packed),
                ("what the probe leaves", linear),
                (
                    "activations",
                    working * (states * ARENA_STATES / 10 + scores),
                ),
                ("cache shards", shard * SHARDS / 10),
                ("process", process),
            ],
        ),
    ])
}
