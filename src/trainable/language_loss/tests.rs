#![allow(clippy::cast_possible_truncation, reason = "small numbers")]

use candle_core::{Device, Tensor};

use super::{LanguageLoss, OutputMatrix};
use crate::trainable::{Gradients, MixedPrecision, Ops, Parameters, Pass, Weight};

/// Hidden states `[rows, width]`, a matrix `[vocabulary, width]` and targets.
struct Case {
    rows: usize,
    vocabulary: usize,
    width: usize,
    hidden: Vec<f32>,
    matrix: Vec<f32>,
    targets: Vec<u32>,
}

/// What a case comes to in f64, for the sum of the loss.
struct Plain {
    loss: f64,
    of_hidden: Vec<f64>,
    of_matrix: Vec<f64>,
}

impl Case {
    /// Numbers between -1 and 1 times `size`.
    fn new(rows: usize, vocabulary: usize, width: usize, size: f32) -> Self {
        let mut state = 1u32;
        let mut numbers = |count: usize| -> Vec<f32> {
            let numbers = (0..count).map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 8) as f32 / (1 << 23) as f32 - 1.0
            });
            numbers.collect()
        };
        let hidden = numbers(rows * width).iter().map(|x| x * size).collect();
        let matrix = numbers(vocabulary * width);
        let targets = (0..rows).map(|row| (row * 7919 % vocabulary) as u32);
        Self {
            rows,
            vocabulary,
            width,
            hidden,
            matrix,
            targets: targets.collect(),
        }
    }

    /// Logits that rise along the vocabulary, from 0 to `most`, or fall in every second row.
    fn rising(rows: usize, vocabulary: usize, most: f32) -> Self {
        let mut case = Self::new(rows, vocabulary, 2, 1.0);
        for (row, hidden) in case.hidden.chunks_exact_mut(2).enumerate() {
            let sign = if row % 2 == 0 { 1.0 } else { -1.0 };
            hidden.copy_from_slice(&[sign, 0.1]);
        }
        for (token, row) in case.matrix.chunks_exact_mut(2).enumerate() {
            row[0] = most * token as f32 / vocabulary as f32;
        }
        // The first, the last, and ones between.
        (case.targets[0], case.targets[1]) = (vocabulary as u32 - 1, vocabulary as u32 - 1);
        case
    }

    fn plain(&self) -> Plain {
        let width = self.width;
        let mut plain = Plain {
            loss: 0.0,
            of_hidden: vec![0.0; self.hidden.len()],
            of_matrix: vec![0.0; self.matrix.len()],
        };
        for (row, &target) in self.targets.iter().enumerate() {
            let state = &self.hidden[row * width..][..width];
            let logits = self.matrix.chunks_exact(width).map(|token| {
                let products = token.iter().zip(state);
                products.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
            });
            let logits: Vec<f64> = logits.collect();
            let target = target as usize;
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = logits.iter().map(|logit| (logit - largest).exp()).sum();
            plain.loss += sum.ln() + largest - logits[target];
            for (token, logit) in logits.iter().enumerate() {
                let own = if token == target { 1.0 } else { 0.0 };
                let of_logit = (logit - largest).exp() / sum - own;
                for (column, number) in state.iter().enumerate() {
                    plain.of_hidden[row * width + column] +=
                        of_logit * f64::from(self.matrix[token * width + column]);
                    plain.of_matrix[token * width + column] += of_logit * f64::from(*number);
                }
            }
        }
        plain
    }

    fn hidden(&self) -> Tensor {
        Tensor::from_slice(&self.hidden, (self.rows, self.width), &Device::Cpu).expect("a tensor")
    }

    fn frozen(&self) -> OutputMatrix {
        let shape = (self.vocabulary, self.width);
        let matrix = Tensor::from_slice(&self.matrix, shape, &Device::Cpu);
        OutputMatrix::Frozen(matrix.expect("a tensor"))
    }

    fn trained(&self) -> (Parameters, Weight) {
        let mut parameters = Parameters::new(&Device::Cpu);
        let shape = [self.vocabulary, self.width];
        let weight = parameters.add("lm_head.weight", &shape, self.matrix.clone());
        (parameters, weight.expect("added"))
    }

    /// The loss and both gradients, of the mean.
    fn run(&self, pass: &Pass) -> (LanguageLoss, Vec<f32>, Vec<f32>) {
        let (parameters, weight) = self.trained();
        let mut gradients = Gradients::new(&parameters);
        let matrix = OutputMatrix::Trained(weight);
        let scale = 1.0 / self.rows.max(1) as f64;
        let found = matrix.gradients(&self.hidden(), &self.targets, scale, pass, &mut gradients);
        let (loss, of_hidden) = found.expect("gradients");
        let of_matrix = gradients.numbers(0).expect("a gradient").to_vec();
        (loss, numbers(&of_hidden), of_matrix)
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    let flat = tensor.flatten_all().expect("flat");
    flat.to_vec1().expect("numbers")
}

/// The largest difference of `found` from `expected · scale`, in parts of the largest expected.
fn difference(found: &[f32], expected: &[f64], scale: f64) -> f64 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    let differences = found.iter().zip(expected);
    let differences =
        differences.map(|(found, expected)| (f64::from(*found) - expected * scale).abs());
    differences.fold(0.0, f64::max) / (largest * scale).max(1e-12)
}

const BOTH: [Ops; 2] = [Ops::Fused, Ops::Composed];

/// One token; less than a tile, a tile, and some; several blocks of rows, and several tiles a piece.
fn cases() -> Vec<Case> {
    vec![
        Case::new(1, 1, 3, 1.0),
        Case::new(3, 5, 4, 1.0),
        Case::new(17, 1023, 16, 3.0),
        Case::new(257, 1024, 8, 1.0),
        Case::new(300, 2500, 12, 2.0),
        Case::new(300, 40_000, 4, 4.0),
        Case::rising(40, 2500, 250.0),
        // Of a larger logit f32 rounds off more than what is asked for here.
        Case::rising(300, 40_000, 150.0),
    ]
}

#[test]
fn loss_and_gradients_are_the_plain_ones() {
    for case in cases() {
        let plain = case.plain();
        for ops in BOTH {
            let name = format!("{} rows, {} tokens, {ops:?}", case.rows, case.vocabulary);
            let pass = Pass::evaluation(ops);
            let (loss, of_hidden, of_matrix) = case.run(&pass);
            let sum = loss.sum().expect("a sum");
            let off = (sum - plain.loss).abs();
            assert!(
                off <= 1e-5 * plain.loss.max(1e-3),
                "{name}: {sum}, {}",
                plain.loss
            );
            assert_eq!(loss.rows(), case.rows);
            let scale = 1.0 / case.rows as f64;
            let off = difference(&of_hidden, &plain.of_hidden, scale);
            assert!(off <= 1e-5, "{name}: hidden states' gradient off by {off}");
            let off = difference(&of_matrix, &plain.of_matrix, scale);
            assert!(off <= 1e-5, "{name}: the matrix's gradient off by {off}");

            let frozen = case.frozen();
            let alone = frozen.loss(&case.hidden(), &case.targets, &pass);
            let alone = alone.expect("a loss");
            let off = (alone.sum().expect("a sum") - plain.loss).abs();
            assert!(off <= 1e-5 * plain.loss.max(1e-3), "{name}: the loss alone");
            let mut none = Gradients::new(&Parameters::new(&Device::Cpu));
            let found = frozen.gradients(&case.hidden(), &case.targets, scale, &pass, &mut none);
            let off = difference(
                &numbers(&found.expect("gradients").1),
                &plain.of_hidden,
                scale,
            );
            assert!(off <= 1e-5, "{name}: frozen, off by {off}");
        }
    }
}

#[test]
fn the_gradient_is_the_slope() {
    let case = Case::new(5, 1100, 3, 1.0);
    for ops in BOTH {
        let pass = Pass::evaluation(ops);
        let (_, of_hidden, _) = case.run(&pass);
        for (place, slope) in of_hidden.iter().enumerate() {
            let [above, below] = [1.0, -1.0].map(|sign| {
                let mut hidden = case.hidden.clone();
                hidden[place] += sign * 1e-2;
                let hidden = Tensor::from_vec(hidden, (case.rows, case.width), &Device::Cpu);
                let hidden = hidden.expect("a tensor");
                let loss = case.frozen().loss(&hidden, &case.targets, &pass);
                loss.and_then(|loss| loss.sum()).expect("a loss") / case.rows as f64
            });
            let expected = (above - below) / 2e-2;
            let off = (f64::from(*slope) - expected).abs();
            assert!(off < 2e-4, "{ops:?}, {place}: {slope}, {expected}");
        }
    }
}

#[test]
fn the_matrix_gets_its_gradient_added() {
    let case = Case::new(20, 1100, 4, 1.0);
    for ops in BOTH {
        let pass = Pass::evaluation(ops);
        let (_, _, once) = case.run(&pass);
        let (parameters, weight) = case.trained();
        let mut gradients = Gradients::new(&parameters);
        let matrix = OutputMatrix::Trained(weight);
        for _ in 0..2 {
            let scale = 1.0 / case.rows as f64;
            let hidden = case.hidden();
            let found = matrix.gradients(&hidden, &case.targets, scale, &pass, &mut gradients);
            found.expect("gradients");
        }
        let twice = gradients.numbers(0).expect("a gradient");
        for (twice, once) in twice.iter().zip(&once) {
            assert!(
                (twice - 2.0 * once).abs() <= 1e-6,
                "{ops:?}: {twice}, {once}"
            );
        }
    }
}

#[test]
fn threads_change_nothing() {
    let case = Case::new(300, 20_000, 8, 2.0);
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let pool = pool.expect("threads");
        let (loss, of_hidden, of_matrix) = pool.install(|| case.run(&Pass::evaluation(Ops::Fused)));
        (loss.sum().expect("a sum").to_bits(), of_hidden, of_matrix)
    };
    assert!(run(1) == run(3));
}

#[test]
fn halves_come_close() {
    let case = Case::new(20, 1100, 8, 1.0);
    let plain = case.plain();
    let mut pass = Pass::evaluation(Ops::Composed);
    pass.mixed_precision = MixedPrecision::Bf16;
    let (loss, of_hidden, of_matrix) = case.run(&pass);
    assert!((loss.sum().expect("a sum") / plain.loss - 1.0).abs() < 1e-2);
    let scale = 1.0 / case.rows as f64;
    assert!(difference(&of_hidden, &plain.of_hidden, scale) < 2e-2);
    assert!(difference(&of_matrix, &plain.of_matrix, scale) < 2e-2);
}

#[test]
fn no_rows_have_no_loss() {
    let case = Case::new(0, 1100, 4, 1.0);
    for ops in BOTH {
        let pass = Pass::evaluation(ops);
        let (loss, of_hidden, of_matrix) = case.run(&pass);
        assert_eq!(loss.sum().expect("a sum").to_bits(), 0.0f64.to_bits());
        assert!(of_hidden.is_empty());
        assert!(of_matrix.iter().all(|number| *number == 0.0));
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let case = Case::new(3, 50, 4, 1.0);
    let pass = Pass::evaluation(Ops::Fused);
    let message = |targets: &[u32]| {
        let error = case.frozen().loss(&case.hidden(), targets, &pass);
        let error = error.expect_err("does not fit");
        let source = std::error::Error::source(&error).expect("a cause");
        source.to_string()
    };
    assert!(message(&[1, 50, 2]).contains("target 50 of row 1 is outside of the vocabulary of 50"));
    assert!(message(&[1, 2]).contains("expected [2, 4]"));
}
