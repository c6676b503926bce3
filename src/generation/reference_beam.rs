//! Beam search as UniXcoder's downstream code does it.
//!
//! `size` hypotheses are kept in a step, ended ones among them, by the sum of log-probabilities
//! alone. One that ended is not continued, so its place is free in the next step. The search is over
//! when the best of a step ended, in this step or an earlier one, and `size` or more ended in all; or
//! after the last step. The best that ended is written or, if none did, the best of the last step.

use super::GenerationSettings;
use super::candidates::best;
use super::search::{Continuation, Hypothesis, Outcome};

pub(super) struct ReferenceBeamSearch {
    size: usize,
    stop_tokens: Vec<u32>,
    limit: usize,
    steps: usize,
    /// Best first.
    running: Vec<Hypothesis>,
    /// How many ended.
    ended: usize,
    best_ended: Option<Hypothesis>,
    /// Whether the best of any step did.
    a_best_ended: bool,
}

impl ReferenceBeamSearch {
    pub(super) fn new(settings: &GenerationSettings, limit: usize) -> Self {
        Self {
            size: settings.beam_size,
            stop_tokens: settings.stop_tokens.clone(),
            limit,
            steps: 0,
            running: vec![Hypothesis::default()],
            ended: 0,
            best_ended: None,
            a_best_ended: false,
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.running.len()
    }

    pub(super) fn advance(&mut self, logits: &[f32]) -> Outcome {
        let scores: Vec<f64> = self.running.iter().map(|one| one.score).collect();
        let candidates = best(logits, &scores, self.size);
        self.steps += 1;
        let (mut running, mut continuations) = (Vec::new(), Vec::new());
        for (place, candidate) in candidates.into_iter().enumerate() {
            let (parent, token) = (candidate.parent, candidate.token);
            let next = self.running[parent].with(token, candidate.score);
            if !self.stop_tokens.contains(&token) {
                running.push(next);
                continuations.push(Continuation { parent, token });
                continue;
            }
            self.ended += 1;
            self.a_best_ended |= place == 0;
            let best = self.best_ended.as_ref();
            if best.is_none_or(|best| best.score < next.score) {
                self.best_ended = Some(next);
            }
        }
        self.running = running;
        let over = self.a_best_ended && self.ended >= self.size;
        if over || self.steps == self.limit || self.running.is_empty() {
            let best = self.best_ended.take();
            let best = best.or_else(|| self.running.first().cloned());
            return Outcome::Done(best.unwrap_or_default().into_generated(&self.stop_tokens));
        }
        Outcome::Running(continuations)
    }
}
