//! What training takes, told from shapes: the one reckoning behind `telly estimate` and
//! `--memory-budget`.

use crate::estimate::{CUDA_CONTEXT_BYTES, Estimate, Place, program_bytes};
use crate::trainable::{
    BATCHES_AHEAD, BATCHES_AHEAD_ON_CARD, Footprint, MixedPrecision, Ops, PartLimit, PartShape,
    Pooling,
};

/// Tokens evaluated at a time: more are no faster, and evaluation is not to take more memory than
/// training does.
pub(super) const EVALUATED_TOKENS: usize = 1024;

/// What glibc's allocator holds of buffers under a MiB that were given back to it; it gives larger ones back
/// to the system (`give_large_buffers_back`). Measured: 6 to 39 MB in eleven of the twelve shapes of
/// `scripts/bench/estimate.py --set fit`, 14 on average.
const SMALL_BUFFERS_BYTES: u64 = 16_000_000;
/// How many quarters of what the written-out layers take at once is held where lengths vary: a buffer
/// may be longer than what it is used for. 4.8, 5.4 and 7.3 were measured (`--set varied`).
const HELD_QUARTERS: u64 = 5;
/// Where the matrix products lay out their operands, in all threads: with `MALLOC_MMAP_THRESHOLD_` set,
/// training all-MiniLM-L6-v2's top two layers on 32 texts of 64 tokens took so much more than the other
/// terms say.
const PACKING_BYTES: u64 = 16_000_000;

/// What a run is about.
#[derive(Debug, Clone)]
pub struct TrainingShape {
    /// What is trained, without the head.
    pub footprint: Footprint,
    /// Numbers of the head's parameters.
    pub head: usize,
    /// Numbers of a matrix of the head's that is not trained.
    pub frozen_head: usize,
    /// How long sequences are.
    pub lengths: Lengths,
    /// Rows a batch.
    pub batch_size: usize,
    /// Sequences a row.
    pub columns: usize,
    /// Rows of the training split, if they are known.
    pub rows: Option<usize>,
    /// One vector a sequence.
    pub pooling: Pooling,
    /// What matrix products compute in.
    pub mixed_precision: MixedPrecision,
    /// Whether of each layer but the top one its input alone is kept.
    pub recompute: bool,
    /// Whether the best weights are kept beside those that are trained.
    pub keeps_best: bool,
    /// Further copies of what is trained in the same memory, which share each batch.
    pub replicas: usize,
    /// Which implementation of the layers runs.
    pub ops: Ops,
    /// Where.
    pub place: Place,
    /// CPU threads.
    pub threads: usize,
}

/// How long sequences are.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lengths {
    /// Tokens of the longest.
    pub longest: usize,
    /// Of all on average.
    pub mean: f64,
}

/// What a memory budget comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pick {
    /// What is worked on at a time. A single sequence may be longer.
    pub limit: PartLimit,
    /// What is told of it.
    pub estimate: Estimate,
    /// Whether that is within the budget.
    pub fits: bool,
}

impl Lengths {
    /// All of `length` tokens.
    pub fn all(length: usize) -> Self {
        Self {
            longest: length,
            mean: length as f64,
        }
    }

    /// Those of `lengths`.
    pub(super) fn of(lengths: impl Iterator<Item = usize>) -> Self {
        let (mut count, mut sum, mut longest) = (0, 0, 0);
        for length in lengths {
            count += 1;
            sum += length;
            longest = longest.max(length);
        }
        Self {
            longest,
            mean: sum as f64 / f64::from(count.max(1)),
        }
    }

    fn vary(self) -> bool {
        self.mean < self.longest as f64
    }
}

impl TrainingShape {
    /// Sequences of a batch.
    fn sequences(&self) -> usize {
        let rows = self.rows.unwrap_or(usize::MAX).min(self.batch_size);
        rows * self.columns
    }

    /// Tokens of a batch. Several lie in memory at once, which together have the mean.
    fn tokens(&self) -> usize {
        self.tokens_of(self.sequences())
    }

    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "lengths are neither negative nor as large"
    )]
    fn tokens_of(&self, sequences: usize) -> usize {
        (sequences as f64 * self.lengths.mean).ceil() as usize
    }

    /// The largest part of a batch within `limit`.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "lengths are neither negative nor as large"
    )]
    fn part(&self, limit: PartLimit) -> PartShape {
        let tokens = self.tokens().min(limit.tokens);
        let fitting = (tokens as f64 / self.lengths.mean.max(1.0)) as usize;
        let sequences = fitting.min(limit.sequences).min(self.sequences()).max(1);
        let longest = self.lengths.longest;
        // One sequence is not divided, and there are none beside it then.
        let tokens = tokens.min(self.tokens_of(sequences)).max(longest);
        PartShape {
            sequences,
            tokens,
            longest,
            pooling: self.pooling,
            scored: tokens,
            mixed_precision: self.mixed_precision,
            recompute: self.recompute,
        }
    }

    /// Peak memory with no more than `limit` worked on at a time.
    pub fn estimate(&self, limit: PartLimit) -> Estimate {
        self.of_part(self.part(limit))
    }

    /// Peak memory of everything but what is worked on.
    pub(super) fn without_a_part(&self) -> Estimate {
        self.of_part(PartShape {
            sequences: 0,
            tokens: 0,
            longest: 0,
            scored: 0,
            ..self.part(PartLimit::NONE)
        })
    }

    /// The most that can be worked on at a time within `budget` bytes.
    pub fn within(&self, budget: u64) -> Pick {
        let tokens = |tokens| PartLimit {
            tokens,
            ..PartLimit::NONE
        };
        let peak = |limit| self.estimate(limit).peak();
        let limit = if peak(PartLimit::NONE) <= budget {
            PartLimit::NONE
        } else {
            let (mut fits, mut over) = (0, self.tokens());
            while over - fits > 1 {
                let middle = usize::midpoint(fits, over);
                if peak(tokens(middle)) <= budget {
                    fits = middle;
                } else {
                    over = middle;
                }
            }
            tokens(fits)
        };
        let estimate = self.estimate(limit);
        Pick {
            fits: estimate.peak() <= budget,
            limit,
            estimate,
        }
    }

    /// Sequences of this length in a part of `limit`.
    pub fn sequences_at_a_time(&self, limit: PartLimit) -> usize {
        self.part(limit).sequences
    }

    fn of_part(&self, part: PartShape) -> Estimate {
        match self.place {
            Place::Cpu => self.on_cpu(part),
            Place::Cuda => self.on_cuda(part),
        }
    }

    /// Bytes of the parameters.
    fn parameters(&self) -> u64 {
        (self.footprint.parameters + self.head) as u64 * 4
    }

    /// Bytes of what the head holds and does not train.
    fn frozen_head(&self) -> u64 {
        4 * self.frozen_head as u64
    }

    /// Bytes that a card holds before the first step.
    pub(super) fn loaded_on_card(&self) -> u64 {
        self.parameters() + self.frozen_head() + CUDA_CONTEXT_BYTES
    }

    /// Bytes of the gradients that candle makes before they are added up: of all parameters, or of a
    /// layer at a time.
    fn gradients_in_candle(&self) -> u64 {
        if self.recompute {
            4 * self.footprint.layer_parameters() as u64
        } else {
            self.parameters()
        }
    }

    /// Bytes of the best weights that are kept.
    fn best(&self) -> u64 {
        if self.keeps_best {
            self.parameters()
        } else {
            0
        }
    }

    /// Bytes of what goes into the layers for `tokens`.
    fn input(&self, tokens: usize) -> u64 {
        let numbers = if self.footprint.words() > 0 {
            1
        } else {
            self.footprint.hidden()
        };
        (4 * tokens * numbers) as u64
    }

    /// What is evaluated at a time.
    fn evaluated(&self) -> PartShape {
        let longest = self.lengths.longest.max(1);
        let sequences = (EVALUATED_TOKENS / longest).max(1);
        PartShape {
            sequences,
            tokens: sequences * longest,
            longest,
            pooling: self.pooling,
            scored: sequences * longest,
            mixed_precision: MixedPrecision::None,
            recompute: false,
        }
    }

    /// What candle's operations hold in training on `part` or, if that is more, in an evaluation:
    /// what grows with tokens, and attention's scores.
    fn composed(&self, part: PartShape) -> [u64; 2] {
        let trained = self.footprint.composed(part);
        let evaluated = self.footprint.evaluated();
        let evaluated = evaluated.composed_forward(self.evaluated());
        let fullest = if self.keeps_best && evaluated.all() > trained.all() {
            evaluated
        } else {
            trained
        };
        [fullest.all() - fullest.scores, fullest.scores]
    }

    fn is_divided(&self, part: PartShape) -> bool {
        part.tokens < self.tokens()
    }

    fn on_cpu(&self, part: PartShape) -> Estimate {
        let (parameters, copies) = (self.parameters(), 1 + self.replicas as u64);
        let batches = self
            .rows
            .map_or(usize::MAX, |rows| rows.div_ceil(self.batch_size.max(1)));
        // The one that is worked on, those that lie ready, and the one that is being read.
        let batches = batches.min(BATCHES_AHEAD + 2) as u64;
        let of_part = if self.is_divided(part) {
            self.input(part.tokens)
        } else {
            0
        };
        let [activations, scores, passing, given_back] = match self.ops {
            Ops::Fused => {
                let evaluated = if self.keeps_best {
                    self.footprint.fused_forward(self.evaluated())
                } else {
                    0
                };
                let taken = self.footprint.fused(part).max(evaluated);
                let scores = self.footprint.fused_scores(part.longest, self.threads);
                // The table of words gets its gradient in candle.
                let words = 4 * self.footprint.words() as u64;
                let quarters = if self.lengths.vary() {
                    HELD_QUARTERS
                } else {
                    4
                };
                let holes = taken * quarters / 4 - taken;
                [taken, scores, words, holes + taken.min(SMALL_BUFFERS_BYTES)]
            }
            Ops::Composed => {
                let [states, scores] = self.composed(part);
                // All gradients once more until they are added up, and the largest again meanwhile.
                let largest = self.footprint.words().max(self.footprint.widest) as u64;
                let gradients = self.gradients_in_candle() + 4 * largest;
                // Every result is of its own: there are as many holes as there is memory in use.
                [states, scores, gradients, states + scores]
            }
        };
        Estimate::new(
            "in a step",
            &[
                ("weights", copies * parameters),
                ("gradients", copies * parameters),
                ("optimizer state", 2 * parameters),
                ("best weights", self.best()),
                ("frozen output matrix", self.frozen_head()),
                ("activations", activations),
                ("attention scores", scores),
                ("given back to the allocator", given_back),
                ("operands of matrix products", PACKING_BYTES),
                ("gradients in candle", passing),
                ("batches", batches * self.input(self.tokens()) + of_part),
                ("program", program_bytes(self.footprint.vocabulary)),
            ],
        )
    }

    /// What the card holds: the batch that is worked on, whole, and those that were brought ahead; the
    /// frozen half is not there at all.
    fn on_cuda(&self, part: PartShape) -> Estimate {
        let parameters = self.parameters();
        let [states, scores] = self.composed(part);
        let largest = 4 * self.footprint.words().max(self.footprint.widest) as u64;
        // candle's gradients are kept as they are, but those of further parts are added to them.
        let again = if self.is_divided(part) {
            self.gradients_in_candle()
        } else {
            0
        };
        // One more is being brought.
        let batches = (BATCHES_AHEAD_ON_CARD + 2) as u64;
        let kept = [
            ("weights", parameters),
            ("gradients", parameters),
            ("optimizer state", 2 * parameters),
            ("best weights", self.best()),
            ("frozen output matrix", self.frozen_head()),
        ];
        let step = [
            ("gradients of a part", again + 2 * largest),
            ("activations", states),
            ("attention scores", scores),
            ("batches", batches * self.input(self.tokens())),
            ("CUDA context", CUDA_CONTEXT_BYTES),
        ];
        // A mean, the square's, and what they are made of.
        let update = [
            ("update of the largest parameter", 6 * largest),
            ("CUDA context", CUDA_CONTEXT_BYTES),
        ];
        Estimate::fullest([
            Estimate::new("in a step", &[&kept[..], &step].concat()),
            Estimate::new("in an update", &[&kept[..], &update].concat()),
        ])
    }
}
