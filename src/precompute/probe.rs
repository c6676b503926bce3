//! The parity probe: whether the frozen half, as it will run, puts out what the checkpoint says.

use std::collections::HashMap;
use std::ops::ControlFlow;

use super::{Error, Records, States};
use crate::cache::Parity;
use crate::checkpoint::Checkpoint;
use crate::error;
use crate::frozen::FrozenPrecision;
use crate::ragged::Ragged;
use crate::trainable::Reference;

/// Tokens that the probe runs through both at most, unless the one sequence it takes is longer.
pub const PROBE_TOKENS: usize = 1024;
/// Sequences that it takes at most.
pub const PROBE_SEQUENCES: usize = 64;
/// In fp32 no number may be further off than this, in parts of its token's root mean square where that
/// is above 1: rounding adds up to some 1e-5 in practice.
pub const FP32_MAX_ABSOLUTE_ERROR: f64 = 1e-3;
/// In every other precision, and in what is derived from rounded states, tokens must point this much
/// the same way on average.
pub const INT8_MEAN_COSINE: f64 = 0.999;

/// Compares a sample of what `states` puts out at each depth with the same layers of `checkpoint`
/// in fp32 in candle, on the CPU. None without tokens.
///
/// `sequences` are all that `states` knows, and `records` names the one whose states are not
/// finite. The same sequences give the same sample. The layers are in memory one at a time.
pub fn probe(
    states: &mut dyn States,
    checkpoint: &Checkpoint,
    sequences: &Ragged<u32>,
    records: Records,
) -> Result<Option<Vec<Parity>>, error::Error> {
    let chosen = sample(sequences);
    if chosen.is_empty() {
        return Ok(None);
    }
    let mut found: HashMap<usize, Vec<Vec<f32>>> = HashMap::new();
    let lengths: Vec<usize> = chosen
        .iter()
        .map(|&index| sequences.length(index))
        .collect();
    let mut batches = states.batch_size().batches(&lengths);
    for member in batches.iter_mut().flatten() {
        *member = chosen[*member];
    }
    let run = states.run(&batches, &mut |batch| {
        found.extend(batch.iter().map(|(index, states)| {
            let states = states.iter().map(|states| states.to_vec());
            (index, states.collect())
        }));
        ControlFlow::Continue(())
    });
    run.map_err(|error| records.name(error))?;
    let depths = states.depths();
    let deepest = depths.iter().copied().max().unwrap_or(0);
    let width = checkpoint.config.hidden_size;
    let mut comparisons: Vec<_> = depths.iter().map(|_| Comparison::new(width)).collect();
    let mut reference = Reference::new(checkpoint, &sequences.gather(&chosen))?;
    loop {
        for (place, &depth) in depths.iter().enumerate() {
            if depth != reference.layers() {
                continue;
            }
            for (index, expected) in chosen.iter().zip(reference.states()) {
                let expected = expected.flatten_all();
                let expected = expected.and_then(|states| states.to_vec1());
                let expected = expected.map_err(crate::trainable::Error::from)?;
                let found = found.get(index).map_or(&[][..], |found| &found[place]);
                comparisons[place].add(found, &expected);
            }
        }
        if reference.layers() == deepest {
            break;
        }
        reference.advance()?;
    }
    let comparisons = comparisons.into_iter();
    let parities = comparisons.map(|comparison| comparison.finish(chosen.len()));
    Ok(Some(parities.collect()))
}

/// Refuses a `parity` that is past the bound for `precision`.
pub fn check_parity(parity: &Parity, precision: FrozenPrecision) -> Result<(), Error> {
    let (measure, found, bound, within) = match precision {
        FrozenPrecision::Fp32 => {
            let found = parity.max_scaled_error.unwrap_or(parity.max_absolute_error);
            let bound = FP32_MAX_ABSOLUTE_ERROR;
            (
                "max absolute error",
                found,
                format!("at most {bound}"),
                found <= bound,
            )
        }
        FrozenPrecision::Tf32
        | FrozenPrecision::Fp16
        | FrozenPrecision::Bf16
        | FrozenPrecision::Int8 => {
            let (found, bound) = (parity.mean_cosine, INT8_MEAN_COSINE);
            (
                "mean cosine",
                found,
                format!("at least {bound}"),
                found >= bound,
            )
        }
    };
    if within {
        return Ok(());
    }
    Err(Error::Parity {
        precision,
        tokens: parity.tokens,
        measure,
        found,
        expected: bound,
    })
}

/// Refuses a `parity` of what was derived and is not exact, when it is past the bound for int8.
pub fn check_derived_parity(parity: &Parity) -> Result<(), Error> {
    if parity.mean_cosine >= INT8_MEAN_COSINE {
        return Ok(());
    }
    Err(Error::DerivedParity {
        tokens: parity.tokens,
        mean_cosine: parity.mean_cosine,
    })
}

/// Sequences spread evenly over the lengths that there are, from the shortest to the longest, as
/// many as fit.
fn sample(sequences: &Ragged<u32>) -> Vec<usize> {
    let all = 0..sequences.len();
    let mut order: Vec<usize> = all.filter(|&index| sequences.length(index) > 0).collect();
    order.sort_by_key(|&index| sequences.length(index));
    let Some(last) = order.len().checked_sub(1) else {
        return Vec::new();
    };
    let spread = |count: usize| -> Vec<usize> {
        match count {
            // The middle one speaks for all.
            1 => vec![order[last / 2]],
            _ => (0..count)
                .map(|place| order[place * last / (count - 1)])
                .collect(),
        }
    };
    let fits = |chosen: &Vec<usize>| {
        let lengths = chosen.iter().map(|&index| sequences.length(index));
        lengths.sum::<usize>() <= PROBE_TOKENS
    };
    let counts = (2..=PROBE_SEQUENCES.min(order.len())).rev();
    counts.map(spread).find(fits).unwrap_or_else(|| spread(1))
}

/// How far hidden states are apart, as they come in.
struct Comparison {
    width: usize,
    tokens: usize,
    largest_error: f64,
    largest_scaled_error: f64,
    errors: f64,
    cosines: f64,
    lowest_cosine: f64,
}

impl Comparison {
    fn new(width: usize) -> Self {
        Self {
            width,
            tokens: 0,
            largest_error: 0.0,
            largest_scaled_error: 0.0,
            errors: 0.0,
            cosines: 0.0,
            lowest_cosine: f64::INFINITY,
        }
    }

    /// Compares two `[tokens, width]`, flat.
    fn add(&mut self, found: &[f32], expected: &[f32]) {
        let tokens = found.chunks_exact(self.width);
        for (found, expected) in tokens.zip(expected.chunks_exact(self.width)) {
            let (mut product, mut found_square, mut expected_square) = (0.0, 0.0, 0.0);
            let mut largest = 0.0f64;
            for (&found, &expected) in found.iter().zip(expected) {
                let (found, expected) = (f64::from(found), f64::from(expected));
                let error = (found - expected).abs();
                keep_larger(&mut largest, error);
                self.errors += error;
                product += found * expected;
                found_square += found * found;
                expected_square += expected * expected;
            }
            let scale = (expected_square / self.width as f64).sqrt().max(1.0);
            keep_larger(&mut self.largest_error, largest);
            keep_larger(&mut self.largest_scaled_error, largest / scale);
            let norms = (found_square * expected_square).sqrt();
            // Nothing points nowhere; two of them agree. A NaN passes neither test and stays one.
            let cosine = if found_square + expected_square <= 0.0 {
                1.0
            } else if norms <= 0.0 {
                0.0
            } else {
                product / norms
            };
            self.tokens += 1;
            self.cosines += cosine;
            self.lowest_cosine = self.lowest_cosine.min(cosine);
        }
    }

    fn finish(self, sequences: usize) -> Parity {
        let tokens = self.tokens as f64;
        Parity {
            sequences,
            tokens: self.tokens,
            max_absolute_error: self.largest_error,
            max_scaled_error: Some(self.largest_scaled_error),
            mean_absolute_error: self.errors / (tokens * self.width as f64),
            mean_cosine: self.cosines / tokens,
            min_cosine: self.lowest_cosine,
        }
    }
}

/// `largest` becomes `number` if that is larger, or no number: unlike max, this lets no NaN slip
/// through.
fn keep_larger(largest: &mut f64, number: f64) {
    if number > *largest || number.is_nan() {
        *largest = number;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Explain;

    fn of_lengths(lengths: &[usize]) -> Ragged<u32> {
        let mut sequences = Ragged::new(1);
        for &length in lengths {
            sequences.push(&vec![1; length]);
        }
        sequences
    }

    #[test]
    fn the_sample_is_spread_over_the_lengths() {
        assert_eq!(sample(&of_lengths(&[7, 3, 5])), [1, 2, 0]);
        let lengths: Vec<usize> = (1..=512).collect();
        let chosen = sample(&of_lengths(&lengths));
        let chosen: Vec<usize> = chosen.iter().map(|&index| lengths[index]).collect();
        assert_eq!((chosen.first(), chosen.last()), (Some(&1), Some(&512)));
        assert!(chosen.len() >= 3 && chosen.iter().sum::<usize>() <= PROBE_TOKENS);
        assert_eq!(sample(&of_lengths(&[4; 1000])).len(), PROBE_SEQUENCES);
        assert_eq!(sample(&of_lengths(&[2000, 3000, 1500])), [0]);
        assert!(sample(&of_lengths(&[0, 0])).is_empty());
    }

    fn compare(found: &[f32], expected: &[f32]) -> Parity {
        let mut comparison = Comparison::new(2);
        comparison.add(found, expected);
        comparison.finish(1)
    }

    #[test]
    fn errors_and_cosines_are_by_token() {
        let parity = compare(&[1.0, 0.0, 3.0, 4.0], &[0.0, 1.0, 3.0, 4.0]);
        assert_eq!((parity.tokens, parity.max_absolute_error), (2, 1.0));
        assert!((parity.mean_absolute_error - 0.5).abs() < 1e-12);
        assert!((parity.mean_cosine - 0.5).abs() < 1e-12);
        assert!(parity.min_cosine.abs() < 1e-12);
    }

    /// Of numbers in the thousands the last places are as large as all of others.
    #[test]
    fn large_numbers_are_compared_by_their_size() {
        let parity = compare(&[4000.0, 0.02], &[4000.0, 0.0]);
        assert!((parity.max_absolute_error - 0.02).abs() < 1e-7);
        assert!(check_parity(&parity, FrozenPrecision::Fp32).is_ok());
        let parity = compare(&[4000.0, 20.0], &[4000.0, 0.0]);
        assert!(check_parity(&parity, FrozenPrecision::Fp32).is_err());
    }

    #[test]
    fn what_is_past_a_bound_is_refused() {
        let off = |error: f32| compare(&[1.0, 1.0 + error], &[1.0, 1.0]);
        let [float, int8] = [FrozenPrecision::Fp32, FrozenPrecision::Int8];
        assert!(check_parity(&off(5e-4), float).is_ok());
        assert!(check_parity(&off(2e-3), float).is_err());
        assert!(check_parity(&off(2e-3), int8).is_ok());
        assert!(check_parity(&off(1.0), int8).is_err());
        for rounded in [
            FrozenPrecision::Tf32,
            FrozenPrecision::Fp16,
            FrozenPrecision::Bf16,
        ] {
            assert!(check_parity(&off(2e-3), rounded).is_ok());
            let error = check_parity(&off(1.0), rounded).expect_err("past the bound");
            let hint = error.hint().expect("a hint");
            assert!(
                hint.contains(&format!("--frozen-precision {rounded}")),
                "{hint}"
            );
        }
        assert!(check_parity(&off(f32::NAN), float).is_err());
        assert!(check_parity(&off(f32::NAN), int8).is_err());
        assert!(check_derived_parity(&off(2e-3)).is_ok());
        assert!(check_derived_parity(&off(1.0)).is_err());
        assert!(check_derived_parity(&off(f32::NAN)).is_err());
    }
}
