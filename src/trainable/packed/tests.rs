//! The written-out functions against the same in candle's primitives and, through those of a
//! whole layer, against finite differences.

use candle_core::{Device, Result, Tensor, Var};

use super::activation::{self, with_activation};
use super::gated::Layout;
use super::matrix::Target;
use super::rotary::{Direction, Turn};
use super::rows::{Rows, Runs};
use super::{Profile, attention, bias, gated, layer_norm, pooling};
use crate::checkpoint::{BlockActivation, NormKind, RotaryPositions, RotaryScaling, Rotation};
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

const ACTIVATIONS: [BlockActivation; 3] = [
    BlockActivation::Gelu,
    BlockActivation::GeluTanh,
    BlockActivation::Silu,
];

fn activate(activation: BlockActivation, x: &Tensor) -> Result<Tensor> {
    match activation {
        BlockActivation::Gelu => x.gelu_erf(),
        BlockActivation::GeluTanh => x.gelu(),
        BlockActivation::Silu => x.silu(),
    }
}

#[test]
fn activations_agree() -> Result<()> {
    for (count, kind) in [1, 99]
        .into_iter()
        .flat_map(|n| ACTIVATIONS.map(|a| (n, a)))
    {
        let x = Var::from_tensor(&(random(&[count], 1)?.as_tensor() * 4.0)?)?;
        let weighting = random(&[count], 2)?;
        let y = activate(kind, &x)?;
        let mut output = vec![0.0; count];
        let input = numbers(&x)?;
        with_activation!(kind, A => activation::forward::<A>(&input, &mut output));
        assert_close(&output, &y, 1e-6, "activation")?;
        let (mut input, mut gradient) = (numbers(&x)?, numbers(&weighting)?);
        with_activation!(kind, A => activation::backward::<A>(&mut input, &mut gradient));
        assert_eq!(input, output, "the activation is computed again");
        let expected = composed_gradients(&y, &weighting, &[&x])?;
        // candle's constants of the tanh's slope have six digits.
        let tolerance = if kind == BlockActivation::GeluTanh {
            1e-5
        } else {
            2e-6
        };
        assert_close(&gradient, &expected[0], tolerance, "its gradient")?;
    }
    Ok(())
}

/// Far from 0 no number overflows: the function is 0 or the identity there, its slope 0 or 1.
#[test]
fn activations_are_finite_everywhere() {
    for kind in ACTIVATIONS {
        for (x, expected, slope) in [(-1e4f32, 0.0f32, 0.0f32), (1e4, 1e4, 1.0)] {
            let (mut input, mut gradient) = ([x], [1.0f32]);
            with_activation!(kind, A => activation::backward::<A>(&mut input, &mut gradient));
            assert!(
                (input[0] - expected).abs() < 1e-3,
                "{kind:?}({x}): {}",
                input[0]
            );
            assert!(
                (gradient[0] - slope).abs() < 1e-3,
                "{kind:?}'({x}): {}",
                gradient[0]
            );
        }
    }
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
                kind: NormKind::Layer,
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
                kind: NormKind::Layer,
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
fn norms_in_front_of_a_block_agree() -> Result<()> {
    let kinds = [NormKind::Layer, NormKind::RootMeanSquare];
    for (kind, (tokens, width)) in kinds
        .into_iter()
        .flat_map(|k| [(k, (1, 13)), (k, (130, 37))])
    {
        let (x, weight) = (random(&[tokens, width], 1)?, random(&[width], 3)?);
        let weighting = random(&[tokens, width], 5)?;
        let y = match kind {
            NormKind::Layer => ops::layer_norm(&x, &weight, None, 1e-5)?,
            NormKind::RootMeanSquare => ops::rms_norm(&x, &weight, None, 1e-5)?,
        };
        let expected = composed_gradients(&y, &weighting, &[&x, &weight])?;
        let weights = numbers(&weight)?;
        let affine = layer_norm::Affine {
            kind,
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
            kind,
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
            for (kind, layout) in ACTIVATIONS
                .into_iter()
                .flat_map(|kind| [(kind, Layout::SideBySide), (kind, Layout::Stacked)])
            {
                gated_agrees(kind, layout, [tokens, half], settings)?;
            }
        }
    }
    Ok(())
}

fn gated_agrees(
    kind: BlockActivation,
    layout: Layout,
    [tokens, half]: [usize; 2],
    settings: Option<Dropout>,
) -> Result<()> {
    let (wide, weighting) = (
        random(&[tokens * 2 * half], 1)?,
        random(&[tokens, half], 2)?,
    );
    let (a, b) = match layout {
        Layout::SideBySide => {
            let wide = wide.reshape((tokens, 2 * half))?;
            (wide.narrow(1, 0, half)?, wide.narrow(1, half, half)?)
        }
        Layout::Stacked => {
            let wide = wide.reshape((2, tokens, half))?;
            (wide.get(0)?, wide.get(1)?)
        }
    };
    let y = ops::dropout(&(activate(kind, &a)? * b)?, settings, 3)?;
    let dropout = settings.map(|dropout| layer_norm::RowDropout {
        dropout,
        rows: Rows::All,
        first_token: 3,
    });
    let (mut input, mut gradient) = (numbers(&wide)?, numbers(&weighting)?);
    let mut output = vec![0.0; tokens * half];
    with_activation!(kind, A => {
        gated::forward::<A>(&input, (layout, half), dropout, &mut output);
    });
    assert_close(&output, &y, 1e-6, "gated")?;
    with_activation!(kind, A => {
        gated::backward::<A>(&mut input, (layout, half), dropout, &mut gradient);
    });
    assert_close(&gradient, &y, 1e-6, "gated again")?;
    let expected = composed_gradients(&y, &weighting, &[&wide])?;
    assert_close(&input, &expected[0], 3e-6, "of the wide states")
}

/// Forward, and the gradient by turning back; vectors made longer too, as `YaRN` does.
#[test]
fn turning_agrees() -> Result<()> {
    let (packing, width) = (packing(), 24);
    let scaling = RotaryScaling::Yarn {
        factor: 4.0,
        fast: 32.0,
        slow: 1.0,
        truncate: true,
        attention_factor: 1.5,
        original_positions: 16,
    };
    for scaling in [RotaryScaling::None, scaling] {
        let theta = 100.0;
        let rotation = Rotation::new(&RotaryPositions { theta, scaling }, 8);
        let x = random(&[packing.tokens(), width], 1)?;
        let y = ops::turn(&x, &packing, &rotation)?;
        let weighting = random(y.dims(), 2)?;
        let expected = composed_gradients(&y, &weighting, &[&x])?;
        let turn = Turn::new(&rotation, packing.longest());
        let positions = Rows::All.positions(&packing);
        let (mut output, mut gradient) = (numbers(&x)?, numbers(&weighting)?);
        turn.apply(&mut output, &positions, Direction::Forward);
        assert_close(&output, &y, 1e-6, "turned")?;
        turn.apply(&mut gradient, &positions, Direction::Back);
        assert_close(&gradient, &expected[0], 1e-6, "of x")?;
    }
    Ok(())
}

#[test]
fn rows_that_are_read_know_their_places() {
    let packing = packing().with_scored(vec![0..1, 3..5, 1..1, 30..33]);
    let runs = Runs::new(&packing, Pooling::Scored).expect("not all");
    assert_eq!(runs.rows, [0, 4, 5, 38, 39, 40]);
    let positions = Rows::Some(&runs).positions(&packing);
    assert_eq!(positions, [0, 3, 4, 30, 31, 32]);
    assert!(Runs::new(&packing, Pooling::Mean).is_none());
    let first = Runs::new(&packing, Pooling::Cls).expect("not all");
    assert_eq!(first.rows, [0, 1, 6, 8]);
}

#[test]
fn attention_agrees() -> Result<()> {
    attention_within(None, [3, 3], &packing())
}

/// Windows that reach over nothing but a token itself, over neighbours, over more than the
/// shorter sequences, and over everything; the longest sequence takes several blocks of queries.
#[test]
fn attention_within_a_window_agrees() -> Result<()> {
    let packing = Packing::new(&LONG);
    for window in [0, 1, 4, 20, 99] {
        attention_within(Some(window), [3, 3], &packing)?;
    }
    Ok(())
}

/// The last takes several blocks of queries.
const LONG: [usize; 6] = [0, 1, 6, 8, 45, 145];

/// Up to itself, and with prefixes of every kind: none, a part, all.
#[test]
fn attention_to_earlier_tokens_agrees() -> Result<()> {
    let causal = Packing::new(&LONG).with_prefixes(vec![0; 5]);
    attention_within(None, [3, 3], &causal)?;
    let prefixed = Packing::new(&LONG).with_prefixes(vec![1, 0, 2, 20, 70]);
    attention_within(None, [3, 3], &prefixed)?;
    attention_within(Some(9), [3, 3], &prefixed)
}

/// One head of keys and values for all heads of queries, and for some.
#[test]
fn attention_by_groups_of_heads_agrees() -> Result<()> {
    let packing = Packing::new(&LONG);
    attention_within(None, [4, 2], &packing)?;
    attention_within(Some(9), [4, 1], &packing)?;
    attention_within(None, [4, 2], &packing.with_prefixes(vec![0, 3, 0, 20, 70]))
}

/// All tokens asking, the first of each sequence alone, and some of each or none, with the same
/// dropout.
fn attention_within(window: Option<usize>, heads: [usize; 2], packing: &Packing) -> Result<()> {
    let [width, shared] = heads.map(|heads| 4 * heads);
    let tokens = packing.tokens();
    let read = (0..packing.sequences()).map(|index| {
        let length = packing.length(index);
        length / 3..length - length / 4
    });
    let packing = &packing.clone().with_scored(read.collect());
    for dropout in [None, Some(Dropout::new(0.3, 7))] {
        let q = random(&[tokens, width], 1)?;
        let (k, v) = (random(&[tokens, shared], 2)?, random(&[tokens, shared], 3)?);
        let inputs = [q.as_tensor(), k.as_tensor(), v.as_tensor()];
        let scores = ops::Scores {
            window,
            dropout,
            ..ops::Scores::default()
        };
        let buckets = Buckets::new(packing, &Device::Cpu)?;
        let all = ops::attention(inputs, (packing, &buckets), heads, scores)?;
        for pooling in [Pooling::Mean, Pooling::Cls, Pooling::Scored] {
            let runs = Runs::new(packing, pooling);
            let rows = runs.as_ref().map_or(Rows::All, Rows::Some);
            let read = |x: &Tensor| match pooling {
                Pooling::Mean => Ok(x.clone()),
                _ => ops::pool(x, packing, pooling),
            };
            let y = read(&all)?;
            let weighting = random(y.dims(), 4)?;
            let expected = composed_gradients(&y, &weighting, &[&q, &k, &v])?;

            let profile = Profile::default();
            let shape = attention::Shape {
                packing,
                rows,
                heads: heads[0],
                key_value_heads: heads[1],
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
