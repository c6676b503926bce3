//! Gradients of the layers of models that write text: fused against composed, with dropout on, and
//! both against finite differences.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "small numbers"
)]

use crate::support::goldens;
use candle_core::{Device, Tensor};
use telly::checkpoint::{AttentionPattern, Checkpoint, Freeze, PrefixRule};
use telly::ragged::Ragged;
use telly::trainable::{
    EncoderInput, Gradients, Ops, Parameters, Pass, Pooled, Pooling, TrainableEncoder,
};

const MODELS: [&str; 5] = [
    "llama-tiny",
    "llama-scaled-tiny",
    "qwen2-tiny",
    "starcoder2-tiny",
    "unixcoder-tiny",
];
const SEPARATOR: u32 = 2;

/// Up to 43 tokens: two blocks of queries. Of the last, no token is scored.
fn sequences() -> Ragged<u32> {
    let mut ids = Ragged::new(1);
    for length in [1u32, 9, 43, 20, 7] {
        let places = 0..length;
        let ids_of = places.map(|place| match place {
            // Where a source ends.
            2 | 6 => SEPARATOR,
            _ => 20 + (length * 31 + place * 7) % 300,
        });
        ids.push(&ids_of.collect::<Vec<u32>>());
    }
    ids
}

struct Case {
    checkpoint: Checkpoint,
    freeze: Freeze,
    parameters: Parameters,
    encoder: TrainableEncoder,
}

impl Case {
    /// `UniXcoder` reads a source of 7 tokens as if it had 12.
    fn new(name: &str, freeze: Freeze) -> Self {
        let mut checkpoint = Checkpoint::open(&goldens().join(name)).expect("a checkpoint");
        if name == "unixcoder-tiny" {
            checkpoint.config.attention_pattern = AttentionPattern::Prefix(PrefixRule {
                separator: SEPARATOR,
                occurrence: 2,
                padded_source: Some(12),
            });
        }
        let mut parameters = Parameters::new(&Device::Cpu);
        let encoder = TrainableEncoder::load(&checkpoint, freeze, &mut parameters);
        Self {
            checkpoint,
            freeze,
            encoder: encoder.expect("loaded"),
            parameters,
        }
    }

    fn input(&self) -> EncoderInput {
        let ids = sequences();
        let pattern = self.checkpoint.config.attention_pattern;
        let prefixes = ids.iter().map(|ids| pattern.prefix_length(ids)).collect();
        let scored = (0..ids.len()).map(|index| {
            let length = ids.length(index);
            if index + 1 == ids.len() {
                3..3
            } else {
                length / 3..length
            }
        });
        let scored = scored.collect();
        let input = match self.freeze {
            Freeze::Nothing => EncoderInput::TokenIds(ids),
            Freeze::Layers(_) => {
                let width = self.checkpoint.config.hidden_size;
                let values = (0..ids.tokens() * width).map(|i| (i as f32 * 0.37).sin());
                let offsets = ids.offsets().to_vec();
                EncoderInput::HiddenStates(Ragged::from_parts(values.collect(), offsets, width))
            }
        };
        input.with_prefixes(prefixes).with_scored(scored)
    }

    /// Σ (vectors · weights), those weights, and the way back.
    fn sum(&self, pooling: Pooling, pass: &Pass) -> (f64, Tensor, Pooled<'_>) {
        let input = self.input();
        let packing = input.packing();
        let pooled = self.encoder.pool(input, packing, pooling, pass);
        let pooled = pooled.expect("a pass");
        let vectors = pooled.vectors.flatten_all();
        let vectors = vectors.and_then(|vectors| vectors.to_vec1::<f32>());
        let vectors = vectors.expect("numbers");
        let weights = (0..vectors.len()).map(|index| (index as f32 * 0.61).cos() * 0.2);
        let weights: Vec<f32> = weights.collect();
        let pairs = vectors.iter().zip(&weights);
        let sum = pairs.map(|(v, w)| f64::from(*v) * f64::from(*w)).sum();
        let weights = Tensor::from_vec(weights, pooled.vectors.shape(), &Device::Cpu);
        (sum, weights.expect("weights"), pooled)
    }

    /// Σ (vectors · weights), and its gradients.
    fn gradients(&self, pooling: Pooling, pass: &Pass) -> (f64, Gradients) {
        let (sum, weights, pooled) = self.sum(pooling, pass);
        let mut gradients = Gradients::new(&self.parameters);
        pooled
            .backward(&weights, &self.parameters, &mut gradients)
            .expect("a way back");
        (sum, gradients)
    }
}

/// Every parameter's, of states that are scored and of means, at both ends of the model; computed
/// again on the way back too, and with all rows of the last layer.
#[test]
fn fused_and_composed_agree() {
    for name in MODELS {
        for freeze in [Freeze::Nothing, Freeze::Layers(2), Freeze::Layers(3)] {
            let case = Case::new(name, freeze);
            for pooling in [Pooling::Scored, Pooling::Mean, Pooling::Cls] {
                let (expected_sum, expected) =
                    case.gradients(pooling, &Pass::training(Ops::Composed, 1, 0));
                for (recompute, all_rows) in [(false, false), (true, false), (false, true)] {
                    let mut pass = Pass::training(Ops::Fused, 1, 0);
                    (pass.recompute, pass.all_rows) = (recompute, all_rows);
                    let (sum, found) = case.gradients(pooling, &pass);
                    let what =
                        format!("{name}, freeze {freeze}, {pooling:?}, {recompute}, {all_rows}");
                    assert!(
                        (sum - expected_sum).abs() < 1e-4 * (1.0 + sum.abs()),
                        "{what}"
                    );
                    for (index, parameter) in case.parameters.iter().enumerate() {
                        let numbers = |gradients: &Gradients| {
                            let numbers = gradients.numbers(index);
                            numbers
                                .unwrap_or_else(|| panic!("{what}: {} has none", parameter.name))
                                .to_vec()
                        };
                        let (found, expected) = (numbers(&found), numbers(&expected));
                        let largest = expected.iter().fold(0f32, |a, b| a.max(b.abs()));
                        for (found, expected) in found.iter().zip(&expected) {
                            assert!(
                                (found - expected).abs() <= 2e-5 * (1.0 + largest),
                                "{what}, {}: {found}, composed {expected}",
                                parameter.name
                            );
                        }
                    }
                }
            }
        }
    }
}

/// Of the element that moves the sum most, and of one in the middle, of every parameter.
#[test]
fn finite_differences_agree() {
    for name in MODELS {
        let case = Case::new(name, Freeze::Nothing);
        for ops in [Ops::Fused, Ops::Composed] {
            let pass = Pass::training(ops, 1, 0);
            let (_, gradients) = case.gradients(Pooling::Scored, &pass);
            for (index, parameter) in case.parameters.iter().enumerate() {
                let found = gradients.numbers(index).expect("a gradient");
                let original = parameter.variable.as_detached_tensor().copy();
                let original = original.expect("a copy");
                let largest = (0..found.len())
                    .max_by(|&a, &b| found[a].abs().total_cmp(&found[b].abs()))
                    .expect("not empty");
                for element in [largest, found.len() / 2] {
                    let moved = |by: f32| {
                        let numbers = original.flatten_all().and_then(|t| t.to_vec1::<f32>());
                        let mut numbers = numbers.expect("numbers");
                        numbers[element] += by;
                        let numbers = Tensor::from_vec(numbers, original.shape(), &Device::Cpu);
                        let set = parameter.variable.set(&numbers.expect("a tensor"));
                        set.expect("set");
                        case.sum(Pooling::Scored, &pass.without_way_back()).0
                    };
                    // Richardson's extrapolation of two central differences: error of order step⁴.
                    let step = 1e-2f32;
                    let wide = (moved(step) - moved(-step)) / f64::from(2.0 * step);
                    let narrow = (moved(step / 2.0) - moved(-step / 2.0)) / f64::from(step);
                    let expected = (4.0 * narrow - wide) / 3.0;
                    let found = f64::from(found[element]);
                    assert!(
                        (found - expected).abs() <= 5e-3 * (1.0 + expected.abs()),
                        "{name}, {ops:?}, {}[{element}]: {found}, by differences {expected}",
                        parameter.name
                    );
                }
                parameter.variable.set(&original).expect("set");
            }
        }
    }
}
