//! Beam search as transformers' `generate` does it (`_beam_search` of its version 5).
//!
//! In a step each running hypothesis is continued by every token, and the best `(1 + stop tokens) ·
//! size` continuations are looked at. Those among the first `size` of them that end, by a stop token
//! or because it is the last step, join the finished ones, whose score is the sum of
//! log-probabilities / (number of new tokens, the end included) ^ length penalty; the best `size` of
//! these are kept. The best `size` that do not end go on.

use super::candidates::best;
use super::search::{Continuation, Hypothesis, Outcome};
use super::{EarlyStopping, GenerationSettings};

pub(super) struct BeamSearch {
    size: usize,
    length_penalty: f64,
    early_stopping: EarlyStopping,
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
            stop_tokens: settings.stop_tokens.clone(),
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
        let looked_at = (1 + self.stop_tokens.len()).max(2) * self.size;
        let candidates = best(logits, &scores, looked_at);
        self.steps += 1;
        let last = self.steps == self.limit;
        let divisor = self.at_length(self.steps);
        for candidate in candidates.iter().take(self.size) {
            if last || self.stop_tokens.contains(&candidate.token) {
                let score = candidate.score / divisor;
                let ended = self.running[candidate.parent].with(candidate.token, score);
                self.finished.push(ended);
            }
        }
        self.finished
            .sort_by(|one, other| other.score.total_cmp(&one.score));
        self.finished.truncate(self.size);
        let going_on = candidates
            .iter()
            .filter(|candidate| !self.stop_tokens.contains(&candidate.token))
            .take(self.size);
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
