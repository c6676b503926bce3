//! Continuations of hypotheses, best first.

/// A hypothesis and a token behind it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Candidate {
    /// Which of the hypotheses.
    pub(super) parent: usize,
    pub(super) token: u32,
    /// Its sum of log-probabilities.
    pub(super) score: f64,
}

/// `ln Σ exp(logits)`: what a logit is above its token's log-probability.
pub(super) fn log_sum(logits: &[f32]) -> f64 {
    let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits
        .iter()
        .map(|logit| f64::from((logit - largest).exp()))
        .sum();
    f64::from(largest) + sum.ln()
}

/// The best `count` continuations by one token of hypotheses with `scores`, whose `logits` are
/// `[hypotheses, vocabulary]`. Of equal ones the first.
pub(super) fn best(logits: &[f32], scores: &[f64], count: usize) -> Vec<Candidate> {
    best_of(logits, scores, count, |_| true)
}

/// As [`best`], by the tokens that `may_be` lets through alone.
pub(super) fn best_of(
    logits: &[f32],
    scores: &[f64],
    count: usize,
    may_be: impl Fn(u32) -> bool,
) -> Vec<Candidate> {
    let vocabulary = logits.len() / scores.len().max(1);
    let mut best: Vec<Candidate> = Vec::with_capacity(count + 1);
    for (parent, (logits, score)) in logits.chunks(vocabulary.max(1)).zip(scores).enumerate() {
        let start = score - log_sum(logits);
        for (token, logit) in (0u32..).zip(logits) {
            let score = start + f64::from(*logit);
            let full = best.len() == count;
            if full && best.last().is_none_or(|last| last.score >= score) || !may_be(token) {
                continue;
            }
            let place = best.partition_point(|other| other.score >= score);
            let candidate = Candidate {
                parent,
                token,
                score,
            };
            best.insert(place, candidate);
            best.truncate(count);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_of_all_hypotheses_come_first() {
        let logits = [0.0, 2.0, 1.0, 1.0, 1.0, 1.0];
        let found = best(&logits, &[-1.0, -0.2], 4);
        let tokens = found.iter().map(|one| (one.parent, one.token));
        // ln 3 is 1.0986; of the first, ln(1 + e + e^2) is 2.4076.
        let expected = [(1, 0), (1, 1), (1, 2), (0, 1)];
        assert_eq!(tokens.collect::<Vec<_>>(), expected);
        assert!((found[0].score - (-0.2 - 3.0_f64.ln())).abs() < 1e-7);
        assert!((found[3].score - (-1.0 + 2.0 - 2.407_606)).abs() < 1e-6);
    }

    #[test]
    fn large_logits_do_not_overflow() {
        assert!((log_sum(&[1000.0, 1000.0]) - 1000.0 - 2.0_f64.ln()).abs() < 1e-9);
    }
}
