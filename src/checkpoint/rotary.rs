//! Rotary positions (Su et al., 2021): queries and keys are turned by an angle that grows with
//! their position, so that a score depends on how far apart two tokens are.

/// By what angle each pair of numbers of a head is turned from one position to the next. A pair is
/// a number of the head's first half and the one at the same place in its second half.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rotation {
    /// `[head size / 2]`, in radians.
    pub(crate) steps: Vec<f32>,
}

impl Rotation {
    /// Of heads of `head_size` numbers, with wavelengths from 2π to nearly 2π · `base`:
    /// `base^(-2i / head size)` of pair `i`, rounded where PyTorch rounds.
    #[allow(
        clippy::cast_possible_truncation,
        reason = "f32 is what is computed in"
    )]
    pub(crate) fn new(base: f64, head_size: usize) -> Self {
        let steps = (0..head_size / 2).map(|pair| {
            let exponent = (2 * pair) as f32 / head_size as f32;
            1.0 / base.powf(f64::from(exponent)) as f32
        });
        Self {
            steps: steps.collect(),
        }
    }

    /// Cosine and sine of every pair's angle at the positions `0..length`, both
    /// `[length, head size / 2]`.
    pub(crate) fn tables(&self, length: usize) -> [Vec<f32>; 2] {
        let angles = (0..length).flat_map(|position| {
            // Rounded to f32 before the cosine, as PyTorch does.
            self.steps.iter().map(move |step| position as f32 * step)
        });
        angles
            .map(|angle| (angle.cos(), angle.sin()))
            .unzip()
            .into()
    }
}

#[cfg(test)]
mod tests {
    use super::Rotation;

    #[test]
    fn wavelengths_grow_with_the_pair() {
        let rotation = Rotation::new(10_000.0, 8);
        assert_eq!(rotation.steps, [1.0, 0.1, 0.01, 0.001]);
        let [cosines, sines] = rotation.tables(3);
        assert_eq!((cosines.len(), sines.len()), (12, 12));
        assert_eq!((cosines[0], sines[0]), (1.0, 0.0));
        assert!((cosines[9] - 0.2f32.cos()).abs() < 1e-7);
    }
}
