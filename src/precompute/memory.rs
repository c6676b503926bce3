//! What filling a cache takes, told from shapes.

use super::PROBE_TOKENS;
use crate::cache::Precision;
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::estimate::{CUDA_CONTEXT_BYTES, Estimate, Place, program_bytes};
use crate::frozen::{CUDA_TOKEN_BUDGET, FrozenPrecision, TOKEN_BUDGET};
use crate::trainable::{Footprint, MixedPrecision, PartShape, Pooling};

/// ONNX Runtime's library and environment, before there is a session: measured.
const LIBRARY_BYTES: u64 = 31_000_000;
/// With sessions in it, and their threads: fitted to the shapes of
/// `scripts/bench/estimate.py --set fit`.
const RUNTIME_BYTES: u64 = 65_000_000;

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
    /// Tokens of a batch; what suits the place when absent.
    pub batch_tokens: Option<usize>,
    /// Where.
    pub place: Place,
}

/// Bytes of the frozen half's weights.
struct Weights {
    /// As the graph has them.
    graph: u64,
    /// Of these, linear layers': they are kept a second time, as the kernels read them.
    packed: u64,
}

/// Bytes that filling a cache of `cache` bytes holds of its shards, of `shard_bytes` each at most: one as
/// it was computed and as it is written, and if there are more the next, which is computed meanwhile.
pub fn shards_in_memory(cache: u64, shard_bytes: u64) -> u64 {
    let copies = if cache > shard_bytes { 3 } else { 2 };
    copies * cache.min(shard_bytes)
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

    /// Peak memory of filling a cache of what `freeze` leaves frozen of a model of `config`.
    pub fn estimate(&self, config: &EncoderConfig, freeze: Freeze) -> Estimate {
        let program = program_bytes(config.vocabulary_size);
        let Freeze::Layers(depth) = freeze else {
            let ids = self.cache_bytes(config, freeze).unwrap_or(0);
            let shards = shards_in_memory(ids, self.shard_bytes);
            return Estimate::new(
                "writing the token ids",
                &[("cache shards", shards), ("program", program)],
            );
        };
        let weights = self.weights(config, depth);
        let activations = self.activations(config, depth);
        match self.place {
            Place::Cpu => self.on_cpu(config, depth, &weights, activations),
            Place::Cuda => Estimate::new(
                "in a batch",
                &[
                    ("weights", weights.graph),
                    ("activations", activations),
                    ("CUDA context", CUDA_CONTEXT_BYTES),
                ],
            ),
        }
    }

    fn on_cpu(
        &self,
        config: &EncoderConfig,
        depth: usize,
        weights: &Weights,
        activations: u64,
    ) -> Estimate {
        let program = program_bytes(config.vocabulary_size);
        let reference = Footprint::bottom(config, depth);
        let probed = reference.composed_forward(PartShape {
            sequences: 1,
            tokens: self.length,
            longest: self.length,
            pooling: Pooling::Cls,
            scored: 0,
            mixed_precision: MixedPrecision::None,
            recompute: false,
        });
        // Of both, for all sequences of the probe.
        let states = 2 * 4 * (PROBE_TOKENS.max(self.length) * config.hidden_size) as u64;
        let layer = 4 * reference.layer_parameters() as u64;
        let kept = [
            ("weights", weights.graph),
            ("packed weights", weights.packed),
            ("activations", activations),
            ("program", program + RUNTIME_BYTES),
        ];
        let cache = self.cache_bytes(config, Freeze::Layers(depth));
        let shards = shards_in_memory(cache.unwrap_or(u64::MAX), self.shard_bytes);
        let loading = [
            ("weights", weights.graph),
            // The graph's data shrinks as it is copied, a tensor at a time.
            ("largest weight", 4 * reference.words() as u64),
            ("program", program + LIBRARY_BYTES),
        ];
        // Each session packs the weights, and the first one's are kept.
        let packing = if self.threads > 1 { weights.packed } else { 0 };
        let opening = [
            ("weights", weights.graph),
            ("packed weights", weights.packed),
            ("weights packed again", packing),
            ("program", program + RUNTIME_BYTES),
        ];
        let probing = [
            // As it is computed with, and the pages of the checkpoint that it was read from.
            ("a layer of the reference", 2 * layer),
            ("activations of the reference", probed.all() + states),
        ];
        let filling = [("cache shards", shards)];
        Estimate::fullest([
            Estimate::new("loading the model", &loading),
            Estimate::new("opening the sessions", &opening),
            Estimate::new("in the parity probe", &[&kept[..], &probing].concat()),
            Estimate::new("in a shard", &[&kept[..], &filling].concat()),
        ])
    }

    fn weights(&self, config: &EncoderConfig, depth: usize) -> Weights {
        let parameters = |layers| 4 * Footprint::bottom(config, layers).parameters as u64;
        let (stored, embeddings) = (parameters(depth), parameters(0));
        let linear = stored - embeddings;
        let (graph, packed) = match self.frozen_precision {
            FrozenPrecision::Fp32 | FrozenPrecision::Tf32 => (stored, linear),
            FrozenPrecision::Fp16 | FrozenPrecision::Bf16 => (embeddings + linear / 2, linear / 2),
            // A scale for every 128 numbers.
            FrozenPrecision::Int8 => {
                let rounded = linear / 4 + linear / 128;
                (embeddings + rounded, rounded)
            }
        };
        Weights { graph, packed }
    }

    /// Bytes of the activations in all sessions: every result of a layer, as a session's arena has a
    /// place for each and keeps it for the next layer.
    fn activations(&self, config: &EncoderConfig, depth: usize) -> u64 {
        let length = self.length.max(1);
        // One sequence at least, and no more than there are.
        let budget = self.batch_tokens.unwrap_or(match self.place {
            Place::Cpu => TOKEN_BUDGET,
            Place::Cuda => CUDA_TOKEN_BUDGET,
        });
        let fitting = (budget / length).max(1);
        let sequences = self.sequences.unwrap_or(usize::MAX);
        let tokens = fitting.min(sequences) * length;
        let working = match self.place {
            Place::Cpu => self.threads.min(sequences.div_ceil(fitting)) as u64,
            Place::Cuda => 1,
        };
        let (hidden, heads) = (config.hidden_size, config.attention_heads);
        let (states, scores) = if depth == 0 {
            // Their sum and its norm.
            (2 * hidden, 0)
        } else {
            let wide = config.layer(0).feed_forward.wide.outputs();
            (8 * hidden + 2 * wide, length * heads)
        };
        let [states, scores] = [states, scores].map(|numbers| (4 * tokens * numbers) as u64);
        working * (states + scores)
    }
}
