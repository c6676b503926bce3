//! Tokens drawn at random.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Sampling;

/// Draws one prompt's tokens.
pub(super) struct Sampler {
    sampling: Sampling,
    random: ChaCha8Rng,
}

impl Sampler {
    /// Each prompt has a stream of random numbers of its own, by its number.
    pub(super) fn new(sampling: &Sampling, prompt: usize) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(sampling.seed);
        random.set_stream(prompt as u64);
        Self {
            sampling: sampling.clone(),
            random,
        }
    }

    /// A token, each as probable as its logit / temperature says, of those that top-k and top-p leave.
    pub(super) fn draw(&mut self, logits: &[f32]) -> u32 {
        let weights = self.weights(logits);
        let sum: f64 = weights.iter().map(|(_, weight)| weight).sum();
        let mut rest = self.random.random::<f64>() * sum;
        let mut drawn = 0;
        for (token, weight) in weights {
            drawn = token;
            rest -= weight;
            if rest < 0.0 {
                break;
            }
        }
        drawn
    }

    /// The tokens that are drawn from, most probable first, with their probabilities times a number.
    fn weights(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let Sampling {
            temperature,
            top_k,
            top_p,
            ..
        } = self.sampling;
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weight = |logit: f32| ((f64::from(logit) - f64::from(largest)) / temperature).exp();
        let weights = (0u32..).zip(logits.iter().map(|&logit| weight(logit)));
        let mut weights: Vec<(u32, f64)> = weights.collect();
        // Of equal ones the first.
        let order = |(one, more): &(u32, f64), (other, less): &(u32, f64)| {
            less.total_cmp(more).then(one.cmp(other))
        };
        if let Some(count) = top_k.filter(|&count| count < weights.len()) {
            weights.select_nth_unstable_by(count, order);
            weights.truncate(count);
        }
        weights.sort_unstable_by(order);
        if let Some(share) = top_p {
            let enough = share * weights.iter().map(|(_, weight)| weight).sum::<f64>();
            let mut before = 0.0;
            let kept = weights.iter().take_while(|(_, weight)| {
                let keeps = before < enough;
                before += weight;
                keeps
            });
            let kept = kept.count();
            weights.truncate(kept);
        }
        weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(sampling: &Sampling) -> Vec<u32> {
        // Probabilities 0.5, 0.25, 0.15, 0.1.
        let logits = [0.15, 0.5, 0.1, 0.25].map(f32::ln);
        let weights = Sampler::new(sampling, 0).weights(&logits);
        weights.into_iter().map(|(token, _)| token).collect()
    }

    #[test]
    fn top_k_and_top_p_leave_the_most_probable() {
        let all = Sampling::default();
        assert_eq!(tokens(&all), [1, 3, 0, 2]);
        let top_k = Some(2);
        assert_eq!(
            tokens(&Sampling {
                top_k,
                ..all.clone()
            }),
            [1, 3]
        );
        let top_p = |top_p| Sampling {
            top_p: Some(top_p),
            ..all.clone()
        };
        assert_eq!(tokens(&top_p(0.4)), [1]);
        assert_eq!(tokens(&top_p(0.7)), [1, 3]);
        assert_eq!(tokens(&top_p(0.8)), [1, 3, 0]);
        assert_eq!(tokens(&top_p(1.0)), [1, 3, 0, 2]);
    }

    #[test]
    fn a_small_temperature_draws_the_most_probable() {
        let sampling = Sampling {
            temperature: 1e-300,
            ..Sampling::default()
        };
        assert_eq!(Sampler::new(&sampling, 3).draw(&[1.0, 3.0, 2.0]), 1);
    }
}
