//! Where the time of a training run goes.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Matrix products of the linear layers, forward and backward.
    Gemm,
    /// Attention's matrix products.
    AttentionGemm,
    /// The rest of attention: softmax and dropout.
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
    pub const ALL: [Self; 8] = [
        Self::Gemm,
        Self::AttentionGemm,
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

    /// Whether it is matrix products.
    pub fn is_gemm(self) -> bool {
        matches!(self, Self::Gemm | Self::AttentionGemm)
    }

    /// As shown.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemm => "gemm",
            Self::AttentionGemm => "attention_gemm",
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
    /// Of all threads, in the attention that is under way.
    attention_gemm: AtomicU64,
    in_detail: AtomicBool,
    apart: AtomicBool,
}

impl Profile {
    /// From now on attention's products are timed too. Those of short sequences take little
    /// longer than reading the clock, so that it is not done unless asked for.
    pub fn go_into_detail(&self) {
        self.in_detail.store(true, Ordering::Relaxed);
    }

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

    /// Runs `attention`, which times its products by [`product`](Self::product) on each of its
    /// threads: they take of its time what an average thread gives them.
    pub(super) fn time_attention<T>(&self, attention: impl FnOnce() -> T) -> T {
        self.attention_gemm.store(0, Ordering::Relaxed);
        let started = Instant::now();
        let result = attention();
        let all = started.elapsed();
        let products = self.attention_gemm.load(Ordering::Relaxed);
        let products = Duration::from_nanos(products / rayon::current_num_threads() as u64);
        self.add(Part::AttentionGemm, products);
        self.add(Part::Attention, all.saturating_sub(products));
        result
    }

    /// Does one of attention's products on the calling thread, and times it if asked to.
    #[inline]
    pub(super) fn product(&self, product: impl FnOnce()) {
        if !self.in_detail.load(Ordering::Relaxed) {
            return product();
        }
        let started = Instant::now();
        product();
        self.attention_gemm
            .fetch_add(nanoseconds(started.elapsed()), Ordering::Relaxed);
    }

    fn add(&self, part: Part, time: Duration) {
        if self.apart.load(Ordering::Relaxed) {
            return;
        }
        self.nanoseconds[part as usize].fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// Adds the `time` of a whole step, waiting for its batch included.
    pub fn add_step(&self, time: Duration) {
        self.steps.fetch_add(nanoseconds(time), Ordering::Relaxed);
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

    /// Floating-point operations of the matrix products so far, a multiplication and an addition
    /// counted as two; products that are done a second time are not counted again.
    pub fn operations(&self) -> u64 {
        self.operations.load(Ordering::Relaxed)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
