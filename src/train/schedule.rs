//! The learning rate of each step.

/// Linear warmup from 0 over `warmup_steps`, then linear decay to 0 at `total_steps`, as
/// transformers' `get_linear_schedule_with_warmup`. `step` counts from 0, so with a warmup the
/// first step's rate is 0.
pub fn learning_rate(step: usize, warmup_steps: usize, total_steps: usize, peak: f64) -> f64 {
    let factor = if step < warmup_steps {
        step as f64 / warmup_steps as f64
    } else {
        let left = total_steps.saturating_sub(step) as f64;
        left / total_steps.saturating_sub(warmup_steps).max(1) as f64
    };
    peak * factor
}

#[cfg(test)]
mod tests {
    use super::learning_rate;

    #[test]
    fn rises_to_the_peak_and_falls_to_zero() {
        let rates: Vec<f64> = (0..=10)
            .map(|step| learning_rate(step, 2, 10, 1.0))
            .collect();
        let expected = [
            0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0,
        ];
        assert_eq!(rates, expected);
        assert!((learning_rate(0, 0, 4, 2.0) - 2.0).abs() < 1e-12);
    }
}
