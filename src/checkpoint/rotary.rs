//! Rotary positions (Su et al., 2021): queries and keys are turned by an angle that grows with
//! their position, so that a score depends on how far apart two tokens are.

/// How a model turns its queries and keys.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RotaryPositions {
    /// Base of the wavelengths.
    pub theta: f64,
    /// What became of the wavelengths for longer sequences.
    pub scaling: RotaryScaling,
}

impl RotaryPositions {
    /// With the wavelengths of `theta` as they are.
    pub fn unscaled(theta: f64) -> Self {
        Self {
            theta,
            scaling: RotaryScaling::None,
        }
    }
}

/// How wavelengths were stretched for sequences longer than those that the model was made with:
/// `rope_type` in `config.json`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RotaryScaling {
    /// Not at all.
    None,
    /// All of them, by the factor (Chen et al., 2023).
    Linear {
        /// By how much.
        factor: f64,
    },
    /// Long ones by the factor, short ones not, those between in part: Llama 3.1.
    Llama3 {
        /// By how much.
        factor: f64,
        /// Wavelengths from the original positions divided by this on are long.
        low_frequency_factor: f64,
        /// Those up to the original positions divided by this are short.
        high_frequency_factor: f64,
        /// Positions that the model was first made for.
        original_positions: usize,
    },
    /// As in `YaRN` (Peng et al., 2023): by how often a wavelength fits into the original positions,
    /// and all of the turned vectors are made longer.
    Yarn {
        /// By how much.
        factor: f64,
        /// A wavelength that fits as often or more stays.
        fast: f64,
        /// One that fits as often or less is stretched by the whole factor.
        slow: f64,
        /// Whether the pairs between which that changes are whole.
        truncate: bool,
        /// What cosines and sines are multiplied by.
        attention_factor: f64,
        /// Positions that the model was first made for.
        original_positions: usize,
    },
}

/// By what angle each pair of numbers of a head is turned from one position to the next. A pair is
/// a number of the head's first half and the one at the same place in its second half.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotation {
    /// `[head size / 2]`, in radians.
    pub(crate) steps: Vec<f32>,
    /// What cosines and sines are multiplied by.
    pub(crate) scale: f32,
}

#[allow(
    clippy::cast_possible_truncation,
    reason = "f32 is what is computed in"
)]
impl Rotation {
    /// Of heads of `head_size` numbers, with wavelengths from 2π to nearly 2π · theta:
    /// `theta^(-2i / head size)` of pair `i`, rounded where PyTorch rounds, then scaled.
    pub(crate) fn new(rotary: &RotaryPositions, head_size: usize) -> Self {
        let theta = rotary.theta;
        let steps = (0..head_size / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / head_size as f32;
            1.0 / theta.powf(f64::from(exponent)) as f32
        });
        let mut steps: Vec<f32> = steps.collect();
        let mut scale = 1.0;
        match rotary.scaling {
            RotaryScaling::None => {}
            RotaryScaling::Linear { factor } => {
                for step in &mut steps {
                    *step /= factor as f32;
                }
            }
            RotaryScaling::Llama3 {
                factor,
                low_frequency_factor: low,
                high_frequency_factor: high,
                original_positions,
            } => {
                let original = original_positions as f64;
                for step in &mut steps {
                    let wavelength = std::f64::consts::TAU / f64::from(*step);
                    let stretched = f64::from(*step) / factor;
                    if wavelength > original / low {
                        *step = stretched as f32;
                    } else if wavelength >= original / high {
                        let share = (original / wavelength - low) / (high - low);
                        *step = ((1.0 - share) * stretched + share * f64::from(*step)) as f32;
                    }
                }
            }
            RotaryScaling::Yarn {
                factor,
                fast,
                slow,
                truncate,
                attention_factor,
                original_positions,
            } => {
                scale = attention_factor as f32;
                // The pair whose wavelength fits `turns` times into the original positions.
                let pair = |turns: f64| {
                    let fits = original_positions as f64 / (turns * std::f64::consts::TAU);
                    head_size as f64 * fits.ln() / (2.0 * theta.ln())
                };
                let (mut first, mut last) = (pair(fast), pair(slow));
                if truncate {
                    (first, last) = (first.floor(), last.ceil());
                }
                let first = first.max(0.0);
                let mut last = last.min(head_size as f64 - 1.0);
                if (first - last).abs() < f64::EPSILON {
                    // As transformers does, against a division by zero.
                    last += 0.001;
                }
                for (index, step) in steps.iter_mut().enumerate() {
                    let stretched = ((index as f64 - first) / (last - first)).clamp(0.0, 1.0);
                    let kept = f64::from(*step);
                    *step = (kept / factor * stretched + kept * (1.0 - stretched)) as f32;
                }
            }
        }
        Self { steps, scale }
    }

    /// Cosine and sine of every pair's angle at the positions `0..length`, both
    /// `[length, head size / 2]`, times the scale.
    pub(crate) fn tables(&self, length: usize) -> [Vec<f32>; 2] {
        let angles = (0..length).flat_map(|position| {
            // Rounded to f32 before the cosine, as PyTorch does.
            self.steps.iter().map(move |step| position as f32 * step)
        });
        angles
            .map(|angle| (angle.cos() * self.scale, angle.sin() * self.scale))
            .unzip()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::{RotaryPositions, Rotation};

    #[test]
    fn wavelengths_grow_with_the_pair() {
        let rotation = Rotation::new(&RotaryPositions::unscaled(10_000.0), 8);
        assert_eq!(rotation.steps, [1.0, 0.1, 0.01, 0.001]);
        let [cosines, sines] = rotation.tables(3);
        assert_eq!((cosines.len(), sines.len()), (12, 12));
        assert_eq!((cosines[0], sines[0]), (1.0, 0.0));
        assert!((cosines[9] - 0.2f32.cos()).abs() < 1e-7);
    }
}
