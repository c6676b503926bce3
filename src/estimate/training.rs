//! `telly train`.

use super::{CUDA_CONTEXT_BYTES, Estimate, PROCESS_BYTES, Place, VOCABULARY_ENTRY_BYTES};
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::trainable::{Footprint, Ops, PartShape};

/// Batches at a time: the one under way, two that lie ready, and the one that is being read.
const BATCHES: usize = 4;

/// What a run is about.
#[derive(Debug, Clone, Copy)]
pub struct TrainingShape {
    /// Rows a batch.
    pub batch_size: usize,
    /// Sequences a row.
    pub columns: usize,
    /// Tokens of a sequence: the most there can be.
    pub length: usize,
    /// Rows of the training split, if they are known.
    pub rows: Option<usize>,
    /// Numbers of the head's parameters.
    pub head: usize,
    /// Whether the top layer computes first tokens only.
    pub pruned: bool,
    /// Whether there is dropout.
    pub dropout: bool,
    /// Whether the best weights are kept beside those that are trained.
    pub keeps_best: bool,
    /// Which implementation of the layers runs.
    pub ops: Ops,
    /// Where.
    pub place: Place,
    /// CPU threads.
    pub threads: usize,
    /// Rows worked on at a time; all of a batch when absent.
    pub micro_batch: Option<usize>,
}

/// What a memory budget comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// Rows worked on at a time; none if not even one fits.
    pub rows: Option<usize>,
    /// What is predicted for them, or for one row.
    pub estimate: Estimate,
}

/// Peak memory of a run over the layers that `freeze` leaves.
pub fn train(config: &EncoderConfig, freeze: Freeze, shape: &TrainingShape) -> Estimate {
    let footprint = Footprint::new(config, freeze);
    let whole = (footprint.parameters + shape.head) as u64 * 4;
    let largest = footprint.largest as u64 * 4;
    let rows = shape.rows.unwrap_or(usize::MAX).min(shape.batch_size);
    let micro = shape.micro_batch.unwrap_or(rows).clamp(1, rows.max(1));
    let part = PartShape {
        sequences: micro * shape.columns,
        length: shape.length,
        pruned: shape.pruned && shape.ops == Ops::Fused,
    };
    let hidden = footprint.hidden();
    let token = if freeze == Freeze::Nothing { 1 } else { hidden } * 4;
    let batch = (rows * shape.columns * shape.length * token) as u64;
    let copied = (part.sequences * part.length * token) as u64;
    let (activations, scores) = match shape.ops {
        Ops::Fused => {
            let mut buffers = footprint.fused(part);
            if freeze == Freeze::Nothing {
                // The embeddings are candle's: their sum, norm and dropout, and its gradients.
                buffers += 14 * (part.sequences * part.length * hidden * 4) as u64;
            }
            (buffers, footprint.fused_scores(shape.length, shape.threads))
        }
        Ops::Composed => {
            let [tokens, squares] = footprint.composed(part, shape.dropout);
            (tokens, squares)
        }
    };
    let best = if shape.keeps_best { whole } else { 0 };
    // Gradients of the embeddings that candle makes, before they are added up.
    let passing = if freeze == Freeze::Nothing {
        2 * largest
    } else {
        0
    };
    if shape.place == Place::Cuda {
        // The frozen half is not here: batches come from the cache, in fp32.
        return Estimate::new(
            "in a step",
            vec![
                ("weights", whole),
                ("gradients", whole),
                ("optimizer state", 2 * whole),
                ("best weights", best),
                ("update", 6 * largest + passing),
                ("cache batch", batch + if micro < rows { copied } else { 0 }),
                ("activations", activations),
                ("attention scores", scores),
                ("CUDA context", CUDA_CONTEXT_BYTES),
            ],
        );
    }
    let batches = shape
        .rows
        .map_or(BATCHES, |rows| rows.div_ceil(shape.batch_size.max(1)));
    let batches = batches.min(BATCHES) as u64;
    let process = PROCESS_BYTES + config.vocabulary_size as u64 * VOCABULARY_ENTRY_BYTES;
    let kept = [
        ("weights", whole),
        ("gradients", whole),
        ("optimizer state", 2 * whole),
        (
            "activations",
            if shape.ops == Ops::Fused {
                activations
            } else {
                0
            },
        ),
    ];
    let loading = vec![
        ("weights", whole),
        ("weights in the file", whole),
        ("process", process),
    ];
    let mut step = kept.to_vec();
    if shape.ops == Ops::Composed {
        step[3].1 = activations;
    }
    step.extend([
        ("embedding gradients", passing),
        ("best weights", best),
        (
            "cache batches",
            batches * batch + if micro < rows { copied } else { 0 },
        ),
        ("attention scores", scores),
        ("process", process),
    ]);
    // The optimizer's state is copied to be written, a tensor at a time turned to bytes.
    let mut checkpoint = kept.to_vec();
    checkpoint.extend([
        ("copy of the optimizer state", 2 * whole),
        ("tensor being written", 2 * largest),
        ("best weights", best),
        ("process", process),
    ]);
    Estimate::fullest([
        Estimate::new("loading the model", loading),
        Estimate::new("in a step", step),
        Estimate::new("writing a checkpoint", checkpoint),
    ])
}

/// The most rows at a time with which a run stays within `budget` bytes.
pub fn pick(config: &EncoderConfig, freeze: Freeze, shape: &TrainingShape, budget: u64) -> Pick {
    let of = |rows: usize| {
        let shape = TrainingShape {
            micro_batch: Some(rows),
            ..*shape
        };
        train(config, freeze, &shape)
    };
    let (mut fits, mut over) = (0, shape.batch_size + 1);
    while over - fits > 1 {
        let middle = usize::midpoint(fits, over);
        if of(middle).peak() <= budget {
            fits = middle;
        } else {
            over = middle;
        }
    }
    Pick {
        rows: (fits > 0).then_some(fits),
        estimate: of(fits.max(1)),
    }
}
