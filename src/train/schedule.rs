//! The learning rate of each step.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// `--schedule`: what the learning rate does after its warmup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// Falls to 0 on a straight line, as transformers' `get_linear_schedule_with_warmup`.
    #[default]
    Linear,
    /// Falls to 0 on half a cosine, as transformers' `get_cosine_schedule_with_warmup`.
    Cosine,
    /// Stays at the peak, as transformers' `get_constant_schedule_with_warmup`.
    Constant,
}

impl Schedule {
    /// The learning rate of `step`, counted from 0, out of `total_steps`: it rises from 0 to
    /// `peak` over `warmup_steps`, so with a warmup the first step's rate is 0.
    pub fn learning_rate(
        self,
        step: usize,
        warmup_steps: usize,
        total_steps: usize,
        peak: f64,
    ) -> f64 {
        if step < warmup_steps {
            return peak * (step as f64 / warmup_steps as f64);
        }
        let falling = total_steps.saturating_sub(warmup_steps).max(1) as f64;
        let factor = match self {
            Self::Linear => total_steps.saturating_sub(step) as f64 / falling,
            Self::Cosine => {
                let progress = (step - warmup_steps) as f64 / falling;
                (0.5 * (1.0 + (PI * progress).cos())).max(0.0)
            }
            Self::Constant => 1.0,
        };
        peak * factor
    }
}

#[cfg(test)]
mod tests {
    use super::Schedule;

    #[test]
    fn rises_to_the_peak_and_falls_to_zero() {
        let rates = |schedule: Schedule| -> Vec<f64> {
            (0..=10)
                .map(|step| schedule.learning_rate(step, 2, 10, 1.0))
                .collect()
        };
        let linear = [
            0.0, 0.5, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125, 0.0,
        ];
        assert_eq!(rates(Schedule::Linear), linear);
        let cosine = rates(Schedule::Cosine);
        assert_eq!(cosine[..3], linear[..3]);
        assert!((cosine[6] - 0.5).abs() < 1e-15 && cosine[10] == 0.0);
        assert!(cosine[2..].is_sorted_by(|a, b| a > b));
        assert_eq!(rates(Schedule::Constant)[2..], [1.0; 9]);
        assert!((Schedule::Linear.learning_rate(0, 0, 4, 2.0) - 2.0).abs() < 1e-12);
    }
}
