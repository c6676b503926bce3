//! Central finite differences against backward passes.

use candle_core::{DType, Device, Result, Tensor, Var};

use super::Ops;
use super::dropout::mix;

/// A variable of uniform numbers in [-1, 1), the same for the same `seed`.
pub(crate) fn random(shape: &[usize], seed: u64) -> Result<Var> {
    let count = shape.iter().product::<usize>() as u64;
    let numbers: Vec<f32> = (0..count)
        .map(|index| (mix(seed * 1_000_003 + index) >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        .collect();
    Var::from_vec(numbers, shape, &Device::Cpu)
}

/// Asserts that no element differs by more than `tolerance`.
pub(crate) fn assert_close(left: &Tensor, right: &Tensor, tolerance: f32) -> Result<()> {
    assert_eq!(left.shape(), right.shape());
    let difference = (left - right)?
        .abs()?
        .flatten_all()?
        .max(0)?
        .to_scalar::<f32>()?;
    assert!(
        difference <= tolerance,
        "off by {difference}, tolerance {tolerance}"
    );
    Ok(())
}

/// Checks the gradients of a fixed random weighting of `function`'s output with respect to each
/// of `variables`, for both implementations, against central differences.
pub(crate) fn check(variables: &[&Var], function: impl Fn(Ops) -> Result<Tensor>) -> Result<()> {
    for ops in [Ops::Fused, Ops::Composed] {
        let weighting = random(function(ops)?.dims(), 99)?.as_detached_tensor();
        // Summed in f64, so that the difference of two losses keeps its digits.
        let loss = || -> Result<f64> {
            let weighted =
                (function(ops)?.to_dtype(DType::F64)? * weighting.to_dtype(DType::F64)?)?;
            weighted.sum_all()?.to_scalar::<f64>()
        };
        let gradients = (function(ops)? * &weighting)?.sum_all()?.backward()?;
        for (number, variable) in variables.iter().enumerate() {
            let gradient = gradients
                .get(variable.as_tensor())
                .unwrap_or_else(|| panic!("variable {number} got no gradient from {ops:?}"))
                .flatten_all()?
                .to_vec1::<f32>()?;
            let original = variable.as_detached_tensor().copy()?;
            let numbers = original.flatten_all()?.to_vec1::<f32>()?;
            let step = 1e-2f32;
            for index in sample(numbers.len()) {
                let moved = |by: f32| -> Result<f64> {
                    let mut numbers = numbers.clone();
                    numbers[index] += by;
                    variable.set(&Tensor::from_vec(numbers, original.shape(), &Device::Cpu)?)?;
                    loss()
                };
                // Richardson's extrapolation of two central differences: error of order step⁴.
                let wide = (moved(step)? - moved(-step)?) / f64::from(2.0 * step);
                let half = step / 2.0;
                let narrow = (moved(half)? - moved(-half)?) / f64::from(2.0 * half);
                let expected = (4.0 * narrow - wide) / 3.0;
                let found = f64::from(gradient[index]);
                assert!(
                    (found - expected).abs() <= 2e-3 * (1.0 + expected.abs()),
                    "{ops:?}, variable {number}, element {index}: backward {found}, differences {expected}"
                );
            }
            variable.set(&original)?;
        }
    }
    Ok(())
}

/// Every index of a small tensor, about forty of a large one.
fn sample(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by((count / 40).max(1))
}
