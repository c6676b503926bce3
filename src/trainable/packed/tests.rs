//! The written-out functions against the same in candle's primitives and, through those of a
//! whole layer, against finite differences.

use candle_core::{Device, Result, Tensor, Var};

use super::matrix::Target;
use super::rotary::{Direction, Turn};
use super::rows::Rows;
use super::{Profile, attention, bias, gated, gelu, layer_norm, pooling};
use crate::checkpoint::Rotation;
use crate::trainable::buckets::Buckets;
use crate::trainable::dropout::mix;
use crate::trainable::{Dropout, Packing, Pooling, ops};

/// Uniform numbers in [-1, 1), the same for the same `seed`.
fn random(shape: &[usize], seed: u64) -> Result<Var> {
    let count = shape.iter().product::<usize>() as u64;
    let numbers: Vec<f32> = (0..count)
        .map(|index| (mix(seed * 1_000_003 + index) >> 40) as f32 / (1u64 << 23) as f32 - 1.0)
        .collect();
    Var::from_vec(numbers, shape, &Device::Cpu)
}

fn numbers(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor.flatten_all()?.to_vec1()
}

fn assert_close(found: &[f32], expected: &Tensor, tolerance: f32, what: &str) -> Result<()> {
    let expected = numbers(expected)?;
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
        assert!(
            (found - expected).abs() <= tolerance * (1.0 + expected.abs()),
            "{what}[{index}]: {found}, composed {expected}"
        );
    }
    Ok(())
}

/// Gradients of Σ (y · weighting) with respect to `variables`, by candle.
fn composed_gradients(y: &Tensor, weighting: &Tensor, variables: &[&Var]) -> Result<Vec<Tensor>> {
    let store = (y * weighting)?.sum_all()?.backward()?;
    let gradients = variables.iter().map(|variable| {
        let gradient = store.get(variable.as_tensor());
        gradient.expect("a gradient").clone()
    });
    Ok(gradients.collect())
}

/// Sequences of odd lengths: one token, several, and more than a vector register holds.
fn packing() -> Packing {
    Packing::new(&[0, 1, 6, 8, 45])
}

#[test]
fn gelu_agrees() -> Result<()> {
    for count in [1, 99] {
        let x = Var::from_tensor(&(random(&[count], 1)?.as_tensor() * 4.0)?)?;
        let weighting = random(&[count], 2)?;
        let y = x.gelu_erf()?;
        let mut output = vec![0.0; count];
        gelu::forward(&numbers(&x)?, &mut output);
        assert_close(&output, &y, 1e-6, "gelu")?;
        let (mut input, mut gradient) = (numbers(&x)?, numbers(&weighting)?);
        gelu::backward(&mut input, &mut gradient);
        assert_eq!(input, output, "the activation is computed again");
        let expected = composed_gradients(&y, &weighting, &[&x])?;
        assert_close(&gradient, &expected[0], 2e-6, "gelu's gradient")?;
    }
    Ok(())
}

#[test]
fn layer_norm_with_dropout_and_residual_agrees() -> Result<()> {
    for (tokens, width) in [(1, 13), (5, 16), (130, 37)] {
        for settings in [None, Some(Dropout::new(0.3, 42))] {
            let (x, residual) = (random(&[tokens, width], 1)?, random(&[tokens, width], 2)?);
            let (weight, bias) = (random(&[width], 3)?, random(&[width], 4)?);
            let weighting = random(&[tokens, width], 5)?;
            let first_token = 3;
            let z = (ops::dropout(&x, settings, first_token)? + residual.as_tensor())?;
            let y = ops::layer_norm(&z, &weight, Some(&bias), 1e-5)?;
            let expected = composed_gradients(&y, &weighting, &[&x, &residual, &weight, &bias])?;

            let dropout = settings.map(|dropout| layer_norm::RowDropout {
                dropout,
                rows: Rows::All,
                first_token,
            });
            let (weights, biases) = (numbers(&weight)?, numbers(&bias)?);
            let affine = layer_norm::Affine {
                weight: &weights,
                bias: Some(&biases),
            };
            let mut rows = numbers(&x)?;
            let (mut scales, mut output) = (vec![0.0; tokens], vec![0.0; tokens * width]);
            layer_norm::forward(
                &mut rows,
                &numbers(&residual)?,
                affine,
                1e-5,
                dropout,
                &mut scales,
                &mut output,
            );
            assert_close(&output, &y, 1e-5, "y")?;
            let mut again = vec![0.0; output.len()];
            layer_norm::scale_and_shift(&rows, affine, &mut again);
            assert_eq!(again, output);
            let mut gradient = numbers(&weighting)?;
            let mut of_x = vec![0.0; gradient.len()];
            let normalised = layer_norm::Normalised {
                rows: &rows,
                scales: &scales,
            };
            let partial =
                layer_norm::backward(&mut gradient, normalised, &weights, dropout, &mut of_x);
            let [of_weight, of_bias] = partial.map(|partial| {
                let mut sums = vec![f32::NAN; width];
                bias::add_up(&partial, &mut sums, Target::Replace);
                sums
            });
            assert_close(&of_x, &expected[0], 1e-5, "of x")?;
            assert_close(&gradient, &expected[1], 1e-5, "of the residual")?;
            assert_close(&of_weight, &expected[2], 1e-5, "of the weight")?;
            assert_close(&of_bias, &expected[3], 1e-5, "of the bias")?;
        }
    }
    Ok(())
}

/// Without a bias, the rows kept apart, and the gradient added to another.
#[test]
fn layer_norm_in_front_of_a_block_agrees() -> Result<()> {
    for (tokens, width) in [(1, 13), (130, 37)] {
        let (x, weight) = (random(&[tokens, width], 1)?, random(&[width], 3)?);
        let weighting = random(&[tokens, width], 5)?;
        let y = ops::layer_norm(&x, &weight, None, 1e-5)?;
        let expected = composed_gradients(&y, &weighting, &[&x, &weight])?;
        let weights = numbers(&weight)?;
        let affine = layer_norm::Affine {
            weight: &weights,
            bias: None,
        };
        let (mut rows, mut scales) = (vec![0.0; tokens * width], vec![0.0; tokens]);
        let mut output = rows.clone();
        let input = numbers(&x)?;
        layer_norm::forward_apart(&input, affine, 1e-5, &mut rows, &mut scales, &mut output);
        assert_close(&output, &y, 1e-5, "y")?;
        let normalised = layer_norm::Normalised {
            rows: &rows,
            scales: &scales,
        };
        let (mut gradient, mut sum) = (numbers(&weighting)?, vec![1.0; rows.len()]);
        let [of_weight, _] =
            layer_norm::backward_added(&mut gradient, normalised, &weights, &mut sum);
        let mut sums = vec![f32::NAN; width];
        bias::add_up(&of_weight, &mut sums, Target::Replace);
        assert_close(&sum, &(&expected[0] + 1.0)?, 1e-5, "of x")?;
        assert_close(&sums, &expected[1], 1e-5, "of the weight")?;
    }
    Ok(())
}

#[test]
fn gated_activation_agrees() -> Result<()> {
    for (tokens, half) in [(1, 13), (700, 37)] {
        for settings in [None, Some(Dropout::new(0.3, 42))] {
            let (wide, weighting) = (random(&[tokens, 2 * half], 1)?, random(&[tokens, half], 2)?);
            let (a, b) = (wide.narrow(1, 0, half)?, wide.narrow(1, half, half)?);
            let y = ops::dropout(&(a.gelu_erf()? * b)?, settings, 3)?;
            let dropout = settings.map(|dropout| layer_norm::RowDropout {
                dropout,
                rows: Rows::All,
                first_token: 3,
            });
            let (mut input, mut gradient) = (numbers(&wide)?, numbers(&weighting)?);
            let mut output = vec![0.0; tokens * half];
            gated::forward(&input, half, dropout, &mut output);
            assert_close(&output, &y, 1e-6, "gated")?;
            gated::backward(&mut input, half, dropout, &mut gradient);
            assert_close(&gradient, &y, 1e-6, "gated again")?;
            let expected = composed_gradients(&y, &weighting, &[&wide])?;
            assert_close(&input, &expected[0], 2e-6, "of the wide states")?;
        }
    }
    Ok(())
}

/// Forward, and the gradient by turning back.
#[test]
fn turning_agrees() -> Result<()> {
    let (packing, heads, width) = (packing(), 3, 24);
    let rotation = Rotation::new(100.0, width / heads);
    let x = random(&[packing.tokens(), width], 1)?;
    let y = ops::turn(&x, &packing, heads, &rotation)?;
    let weighting = random(y.dims(), 2)?;
    let expected = composed_gradients(&y, &weighting, &[&x])?;
    let turn = Turn::new(&rotation, packing.longest(), width);
    let positions = Rows::All.positions(&packing);
    let (mut output, mut gradient) = (numbers(&x)?, numbers(&weighting)?);
    turn.apply(&mut output, &positions, Direction::Forward);
    assert_close(&output, &y, 1e-6, "turned")?;
    turn.apply(&mut gradient, &positions, Direction::Back);
    assert_close(&gradient, &expected[0], 1e-6, "of x")?;
    // The last token of each sequence alone.
    let last: Vec<usize> = packing.offsets[1..].iter().map(|end| end - 1).collect();
    let positions = Rows::Some(&last).positions(&packing);
    assert_eq!(positions, [0, 4, 1, 36]);
    Ok(())
}

#[test]
fn attention_agrees() -> Result<()> {
    attention_within(None, &packing())
}

/// Windows that reach over nothing but a token itself, over neighbours, over more than the
/// shorter sequences, and over everything; the longest sequence takes several blocks of queries.
#[test]
fn attention_within_a_window_agrees() -> Result<()> {
    let packing = Packing::new(&[0, 1, 6, 8, 45, 145]);
    for window in [0, 1, 4, 20, 99] {
        attention_within(Some(window), &packing)?;
    }
    Ok(())
}

/// All tokens asking, and the first of each sequence alone, with the same dropout.
fn attention_within(window: Option<usize>, packing: &Packing) -> Result<()> {
    let (heads, width) = (3, 12);
    let tokens = packing.tokens();
    let first_tokens = &packing.offsets[..packing.sequences()];
    #[allow(clippy::cast_possible_truncation)]
    let first_rows = Tensor::from_iter(first_tokens.iter().map(|&row| row as u32), &Device::Cpu)?;
    for dropout in [None, Some(Dropout::new(0.3, 7))] {
        let [q, k, v] = [1, 2, 3].map(|seed| random(&[tokens, width], seed));
        let (q, k, v) = (q?, k?, v?);
        let inputs = [q.as_tensor(), k.as_tensor(), v.as_tensor()];
        let scores = ops::Scores {
            window,
            dropout,
            ..ops::Scores::default()
        };
        let buckets = Buckets::new(packing, &Device::Cpu)?;
        let all = ops::attention(inputs, (packing, &buckets), heads, scores)?;
        for rows in [Rows::All, Rows::Some(first_tokens)] {
            let read = |x: &Tensor| match rows {
                Rows::All => Ok(x.clone()),
                Rows::Some(_) => x.index_select(&first_rows, 0),
            };
            let y = read(&all)?;
            let weighting = random(y.dims(), 4)?;
            let expected = composed_gradients(&y, &weighting, &[&q, &k, &v])?;

            let profile = Profile::default();
            let shape = attention::Shape {
                packing,
                rows,
                heads,
                window,
                bias: None,
                dropout,
                profile: &profile,
            };
            let mut queries = numbers(&read(&q)?)?;
            let (mut keys, mut values) = (numbers(&k)?, numbers(&v)?);
            let mut context = vec![0.0; queries.len()];
            let matrices = [&*queries, &*keys, &*values];
            attention::forward(shape, matrices, width, &mut context);
            assert_close(&context, &y, 1e-5, "context")?;
            let matrices = [&mut *queries, &mut *keys, &mut *values];
            attention::backward(shape, matrices, width, &numbers(&weighting)?);
            assert_close(&queries, &read(&expected[0])?, 1e-5, "of the queries")?;
            assert_close(&keys, &expected[1], 1e-5, "of the keys")?;
            assert_close(&values, &expected[2], 1e-5, "of the values")?;
        }
    }
    Ok(())
}

#[test]
fn mean_pooling_agrees() -> Result<()> {
    let (packing, width) = (packing(), 5);
    let x = random(&[packing.tokens(), width], 1)?;
    let y = ops::pool(&x, &packing, Pooling::Mean)?;
    let weighting = random(y.dims(), 2)?;
    let mut output = vec![0.0; packing.sequences() * width];
    pooling::mean(&numbers(&x)?, &packing.offsets, width, &mut output);
    assert_close(&output, &y, 1e-6, "mean")?;
    let mut gradient = vec![0.0; packing.tokens() * width];
    pooling::mean_backward(
        &numbers(&weighting)?,
        &packing.offsets,
        width,
        &mut gradient,
    );
    let expected = composed_gradients(&y, &weighting, &[&x])?;
    assert_close(&gradient, &expected[0], 1e-6, "of x")
}

#[test]
fn column_sums_agree() -> Result<()> {
    for rows in [1, 64, 200] {
        let x = random(&[rows, 7], 1)?;
        let mut sums = vec![1.0; 7];
        bias::column_sums(&numbers(&x)?, &mut sums, Target::Replace);
        assert_close(&sums, &x.sum(0)?, 1e-5, "sums")?;
        bias::column_sums(&numbers(&x)?, &mut sums, Target::Add);
        assert_close(&sums, &(x.sum(0)? * 2.0)?, 1e-5, "added to")?;
    }
    Ok(())
}
