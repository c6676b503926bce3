//! Where the time of a training run goes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Matrix products of the linear layers, forward and backward.
    Gemm,
    /// Attention's inner products and softmax.
    Attention,
    /// Everything else in the layers: normalisation, activation, dropout, biases, pooling.
    Elementwise,
    /// The head and the loss.
    Head,
    /// Clipping and the update.
    Optimizer,
    /// Waiting for the next batch.
    DataWait,
    /// Evaluation, whatever it is made of.
    Evaluation,
}

impl Part {
    /// All, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::Gemm,
        Self::Attention,
        Self::Elementwise,
        Self::Head,
        Self::Optimizer,
        Self::DataWait,
        Self::Evaluation,
    ];

    /// Whether it is a part of a training step.
    pub fn is_of_a_step(self) -> bool {
        self != Self::Evaluation
    }

    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "gemm",
            Self::Attention => "attention",
            Self::Elementwise => "elementwise",
            Self::Head => "head",
            Self::Optimizer => "optimizer",
            Self::DataWait => "data_wait",
            Self::Evaluation => "evaluation",
        }
    }
}

/// Time by kind of work, and the floating-point operations of the matrix products.
#[derive(Default)]
pub struct Profile {
    nanoseconds: [AtomicU64; Part::ALL.len()],
    steps: AtomicU64,
    operations: AtomicU64,
    apart: AtomicBool,
}

impl Profile {
    /// Runs `work` and adds its time to `part`.
    pub fn time<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.add(part, started.elapsed());
        result
    }

    /// As [`time`](Self::time), of work that is no part of a step: what it is made of is not
    /// written down.
    pub fn time_apart<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        self.apart.store(true, Ordering::Relaxed);
        let result = work();
        self.apart.store(false, Ordering::Relaxed);
        self.add(part, started.elapsed());
        result
    }

    fn add(&self, part: Part, time: Duration) {
        if self.apart.load(Ordering::Relaxed) {
            return;
        }
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds[part as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Adds the `time` of a whole step, waiting for its batch included.
    pub fn add_step(&self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.steps.fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Seconds of all steps so far.
    pub fn step_seconds(&self) -> f64 {
        Duration::from_nanos(self.steps.load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Counts `operations` of a matrix product.
    pub(super) fn count(&self, operations: u64) {
        if !self.apart.load(Ordering::Relaxed) {
            self.operations.fetch_add(operations, Ordering::Relaxed);
        }
    }

    /// Seconds spent on `part` so far.
    pub fn seconds(&self, part: Part) -> f64 {
        Duration::from_nanos(self.nanoseconds[part as usize].load(Ordering::Relaxed)).as_secs_f64()
    }

    /// Floating-point operations of the linear layers' matrix products so far, a multiplication
    /// and an addition counted as two.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }
}
