//! Where the time of a training run goes.

use std::sync::atomic::{AtomicU64, Ordering};
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
    /// Evaluation, and the checkpoints.
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
    operations: AtomicU64,
}

impl Profile {
    /// Runs `work` and adds its time to `part`.
    pub fn time<T>(&self, part: Part, work: impl FnOnce() -> T) -> T {
        let started = Instant::now();
        let result = work();
        self.add(part, started.elapsed());
        result
    }

    /// Adds `time` to `part`.
    pub fn add(&self, part: Part, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds[part as usize].fetch_add(nanoseconds, Ordering::Relaxed);
    }

    /// Counts `operations` of a matrix product.
    pub(super) fn count(&self, operations: u64) {
        self.operations.fetch_add(operations, Ordering::Relaxed);
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

    /// Forgets everything.
    pub fn reset(&self) {
        for part in &self.nanoseconds {
            part.store(0, Ordering::Relaxed);
        }
        self.operations.store(0, Ordering::Relaxed);
    }
}
