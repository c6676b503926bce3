//! Beam search as transformers' `generate` does it (`_beam_search` of its version 5).
//!
//! In a step each running hypothesis is continued by every token. Those among the best `size`
//! continuations that end, by a stop token or because it is the last step, join the finished ones,
//! whose score is the sum of log-probabilities / (number of new tokens, the end included) ^ length
//! penalty; the best `size` of these are kept. The best `size` that do not end go on.

use super::candidates::{best, best_of};
use super::search::{Continuation, Hypothesis, Outcome};
use super::{EarlyStopping, GenerationSettings};

pub(super) struct BeamSearch {
    size: usize,
    length_penalty: f64,
    early_stopping: EarlyStopping,
    /// In ascending order: a completion has thousands.
    stop_tokens: Vec<u32>,
    limit: usize,
    /// New tokens of each running hypothesis.
    steps: usize,
    /// By sums of log-probabilities, best first.
    running: Vec<Hypothesis>,
    /// By scores with the penalty, best first.
    finished: Vec<Hypothesis>,
}

impl BeamSearch {
    pub(super) fn new(settings: &GenerationSettings, limit: usize) -> Self {
        Self {
            size: settings.beam_size,
            length_penalty: settings.length_penalty,
            early_stopping: settings.early_stopping,
            stop_tokens: sorted(&settings.stop_tokens),
            limit,
            steps: 0,
            running: vec![Hypothesis::default()],
            finished: Vec::new(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        self.running.len()
    }

    pub(super) fn advance(&mut self, logits: &[f32]) -> Outcome {
        let scores: Vec<f64> = self.running.iter().map(|one| one.score).collect();
        let candidates = best(logits, &scores, self.size);
        self.steps += 1;
        let last = self.steps == self.limit;
        let divisor = self.at_length(self.steps);
        for candidate in &candidates {
            if last || self.ends(candidate.token) {
                let score = candidate.score / divisor;
                let ended = self.running[candidate.parent].with(candidate.token, score);
                self.finished.push(ended);
            }
        }
        self.finished
            .sort_by(|one, other| other.score.total_cmp(&one.score));
        self.finished.truncate(self.size);
        let going_on = if candidates.iter().any(|one| self.ends(one.token)) {
            best_of(logits, &scores, self.size, |token| !self.ends(token))
        } else {
            candidates
        };
        let going_on = going_on.iter();
        let (running, continuations): (Vec<_>, Vec<_>) = going_on
            .map(|&candidate| {
                let parent = candidate.parent;
                let token = candidate.token;
                let next = self.running[parent].with(token, candidate.score);
                (next, Continuation { parent, token })
            })
            .unzip();
        self.running = running;
        if last || self.running.is_empty() || self.is_over() {
            let best = std::mem::take(&mut self.finished).into_iter().next();
            return Outcome::Done(best.unwrap_or_default().into_generated(&self.stop_tokens));
        }
        Outcome::Running(continuations)
    }

    fn ends(&self, token: u32) -> bool {
        self.stop_tokens.binary_search(&token).is_ok()
    }

    /// Whether nothing that is still running is waited for.
    fn is_over(&self) -> bool {
        let (Some(worst), Some(best)) = (self.finished.last(), self.running.first()) else {
            return false;
        };
        if self.finished.len() < self.size {
            return false;
        }
        let length = match self.early_stopping {
            EarlyStopping::True => return true,
            // Longer ones score higher.
            EarlyStopping::Never if self.length_penalty > 0.0 => self.limit,
            EarlyStopping::Never | EarlyStopping::False => self.steps,
        };
        best.score / self.at_length(length) <= worst.score
    }

    /// What the sum of log-probabilities of so many new tokens is divided by.
    fn at_length(&self, tokens: usize) -> f64 {
        (tokens as f64).powf(self.length_penalty)
    }
}

fn sorted(tokens: &[u32]) -> Vec<u32> {
    let mut tokens = tokens.to_vec();
    tokens.sort_unstable();
    tokens
}
