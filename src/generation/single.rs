//! One hypothesis: the most probable token each time, or one that is drawn.

use super::GenerationSettings;
use super::candidates::log_sum;
use super::sampling::Sampler;
use super::search::{Continuation, Hypothesis, Outcome};

pub(super) struct SingleSearch {
    stop_tokens: Vec<u32>,
    limit: usize,
    written: Hypothesis,
    /// Draws tokens; the most probable is taken when absent.
    sampler: Option<Box<Sampler>>,
}

impl SingleSearch {
    pub(super) fn new(settings: &GenerationSettings, prompt: usize, limit: usize) -> Self {
        let sampling = settings.sampling.as_ref();
        Self {
            stop_tokens: settings.stop_tokens.clone(),
            limit,
            written: Hypothesis::default(),
            sampler: sampling.map(|sampling| Box::new(Sampler::new(sampling, prompt))),
        }
    }

    pub(super) fn advance(&mut self, logits: &[f32]) -> Outcome {
        let token = match &mut self.sampler {
            Some(sampler) => sampler.draw(logits),
            None => most_probable(logits),
        };
        let logit = logits.get(token as usize).copied().unwrap_or_default();
        self.written.score += f64::from(logit) - log_sum(logits);
        self.written.ids.push(token);
        if self.written.ids.len() == self.limit || self.stop_tokens.contains(&token) {
            let written = std::mem::take(&mut self.written);
            return Outcome::Done(written.into_generated(&self.stop_tokens));
        }
        Outcome::Running(vec![Continuation { parent: 0, token }])
    }
}

/// The first of the largest `logits`.
fn most_probable(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (token, &logit) in (0u32..).zip(logits) {
        if logit > best.1 {
            best = (token, logit);
        }
    }
    best.0
}
