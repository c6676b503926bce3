//! Where the time of a run went, for `--profile`.

use serde_json::{Map, Value, json};

use crate::trainable::{Part, Profile, peak_flops};

/// Times and rates of all steps of this process.
pub struct ProfileReport {
    parts: Vec<(Part, f64)>,
    step_seconds: f64,
    operations: u64,
    /// Floating-point operations a second of large matrix products.
    gemm_peak: f64,
}

impl ProfileReport {
    /// Measures the matrix products' peak, with as many threads as the steps had.
    pub fn new(profile: &Profile) -> Self {
        Self {
            parts: Part::ALL.map(|part| (part, profile.seconds(part))).to_vec(),
            step_seconds: profile.step_seconds(),
            operations: profile.operations(),
            gemm_peak: rayon::scope(|_| peak_flops()),
        }
    }

    /// Of the step, useful floating-point operations a second: those of the matrix products,
    /// of which none is wasted on padding or on rows that nothing reads; attention's scores,
    /// which the backward pass computes again, count once.
    fn useful_flops(&self) -> f64 {
        self.operations as f64 / self.step_seconds
    }

    /// Seconds of the steps inside matrix products.
    fn gemm(&self) -> f64 {
        let parts = self.parts.iter().filter(|(part, _)| part.is_gemm());
        parts.map(|(_, seconds)| seconds).sum()
    }

    /// Seconds of the steps that are in no part.
    fn rest(&self) -> f64 {
        let parts = self.parts.iter().filter(|(part, _)| part.is_of_a_step());
        self.step_seconds - parts.map(|(_, seconds)| seconds).sum::<f64>()
    }

    /// A table, line by line.
    pub fn lines(&self) -> Vec<String> {
        let line = |name: &str, seconds: f64| {
            let share = 100.0 * seconds / self.step_seconds;
            format!("  {name:<14} {seconds:>9.2} s {share:>6.1} %")
        };
        let mut lines = vec![format!("all steps        {:>9.2} s", self.step_seconds)];
        let of_a_step = self.parts.iter().filter(|(part, _)| part.is_of_a_step());
        lines.extend(of_a_step.map(|(part, seconds)| line(part.name(), *seconds)));
        lines.push(line("rest", self.rest()));
        let others = self.parts.iter().filter(|(part, _)| !part.is_of_a_step());
        lines.extend(others.map(|(part, seconds)| format!("{:<16} {seconds:>9.2} s", part.name())));
        lines.push(format!(
            "in matrix products: {:.1} % of the steps",
            100.0 * self.gemm() / self.step_seconds
        ));
        lines.push(format!(
            "useful work of the steps: {:.1} GFLOP/s, {:.1} % of the {:.1} that large products reach here",
            self.useful_flops() / 1e9,
            100.0 * self.useful_flops() / self.gemm_peak,
            self.gemm_peak / 1e9
        ));
        lines
    }

    /// Seconds by part, and rates.
    pub fn to_json(&self) -> Map<String, Value> {
        let parts = self.parts.iter();
        let mut object: Map<String, Value> = parts
            .map(|(part, seconds)| (format!("{}_seconds", part.name()), json!(seconds)))
            .collect();
        object.insert("step_seconds".into(), json!(self.step_seconds));
        object.insert("useful_flops".into(), json!(self.useful_flops()));
        object.insert("gemm_peak_flops".into(), json!(self.gemm_peak));
        object
    }
}
