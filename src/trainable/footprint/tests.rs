//! What is told from shapes against what real passes hold, to the byte.

use std::collections::HashSet;
use std::path::Path;

use candle_core::{Device, Storage, Tensor};

use super::{Footprint, PartShape};
use crate::checkpoint::{AttentionPattern, Checkpoint, Freeze};
use crate::ragged::Ragged;
use crate::trainable::{
    EncoderInput, Gradients, MixedPrecision, Ops, Parameters, Pass, Pooling, TrainableEncoder,
};

const FAMILIES: [&str; 10] = [
    "bert-tiny",
    "roberta-tiny",
    "mpnet-tiny",
    "xlm-roberta-tiny",
    "distilbert-tiny",
    "modernbert-tiny",
    "modernbert-biased-tiny",
    "llama-tiny",
    "qwen2-tiny",
    "starcoder2-tiny",
];

fn checkpoint(name: &str) -> Checkpoint {
    let goldens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens");
    Checkpoint::open(&goldens.join(name)).expect("a checkpoint")
}

/// With the attention of its family, and two thirds of each sequence scored.
fn input(checkpoint: &Checkpoint, freeze: Freeze, lengths: &[usize]) -> EncoderInput {
    let input = whole(checkpoint, freeze, lengths);
    let scored = lengths.iter().map(|length| length / 3..*length);
    let input = input.with_scored(scored.collect());
    match checkpoint.config.attention_pattern {
        AttentionPattern::Causal => input.with_prefixes(vec![0; lengths.len()]),
        _ => input,
    }
}

fn whole(checkpoint: &Checkpoint, freeze: Freeze, lengths: &[usize]) -> EncoderInput {
    let width = checkpoint.config.hidden_size;
    let mut offsets = vec![0];
    offsets.extend(lengths.iter().scan(0, |end, length| {
        *end += length;
        Some(*end)
    }));
    let tokens: usize = lengths.iter().sum();
    if freeze == Freeze::Nothing {
        let ids = (5..95).cycle().take(tokens);
        return EncoderInput::TokenIds(Ragged::from_parts(ids.collect(), offsets, 1));
    }
    let states = (0..tokens * width).map(|index| (index as f32 * 0.37).sin());
    EncoderInput::HiddenStates(Ragged::from_parts(states.collect(), offsets, width))
}

fn part(lengths: &[usize], pooling: Pooling, mixed_precision: MixedPrecision) -> PartShape {
    PartShape {
        sequences: lengths.len(),
        tokens: lengths.iter().sum(),
        longest: lengths.iter().copied().max().unwrap_or(0),
        pooling,
        scored: lengths.iter().map(|length| length - length / 3).sum(),
        mixed_precision,
        recompute: false,
    }
}

/// Its parameters, and what is told of it.
fn encoder(checkpoint: &Checkpoint, freeze: Freeze) -> (Parameters, TrainableEncoder, Footprint) {
    let mut parameters = Parameters::new(&Device::Cpu);
    let encoder = TrainableEncoder::load(checkpoint, freeze, &mut parameters).expect("loaded");
    let footprint = Footprint::new(&checkpoint.config, freeze);
    assert_eq!(footprint.parameters, parameters.count(), "{freeze}");
    (parameters, encoder, footprint)
}

#[test]
fn the_written_out_layers_hold_what_is_told() {
    let depths = [Freeze::Nothing, Freeze::Layers(0), Freeze::Layers(1)];
    for name in FAMILIES {
        let checkpoint = checkpoint(name);
        let all = Freeze::Layers(checkpoint.config.layers);
        for freeze in depths.into_iter().chain([all]) {
            let ways = [Pooling::Cls, Pooling::Mean, Pooling::Scored]
                .map(|pooling| [false, true].map(|way| (pooling, way)));
            for (pooling, recompute) in ways.into_iter().flatten() {
                let (parameters, encoder, footprint) = encoder(&checkpoint, freeze);
                let mut gradients = Gradients::new(&parameters);
                let lengths = [7, 20, 1, 12];
                let input = input(&checkpoint, freeze, &lengths);
                let packing = input.packing();
                let mut pass = Pass::training(Ops::Fused, 1, 0);
                pass.recompute = recompute;
                let pooled = encoder.pool(input, packing, pooling, &pass);
                let pooled = pooled.expect("a pass");
                let gradient = pooled.vectors.ones_like().expect("ones");
                pooled
                    .backward(&gradient, &parameters, &mut gradients)
                    .expect("a way back");
                let mut part = part(&lengths, pooling, MixedPrecision::None);
                part.recompute = recompute;
                let held = (encoder.workspace.buffers.held() * size_of::<f32>()) as u64;
                let told = footprint.fused_buffers(part);
                assert_eq!(told, held, "{name}, {freeze}, {pooling:?}, {recompute}");
            }
        }
    }
}

/// Bytes of the results that candle keeps of `vectors`: each storage once, parameters apart, as
/// transposed and cut tensors share what they are views of.
fn kept(vectors: &Tensor) -> u64 {
    let (mut seen, mut bytes) = (HashSet::new(), 0);
    let (parameters, results): (Vec<&Tensor>, Vec<&Tensor>) = vectors
        .sorted_nodes()
        .into_iter()
        .partition(|node| node.is_variable());
    for node in parameters.iter().chain(&results) {
        let (storage, _) = node.storage_and_layout();
        let Storage::Cpu(numbers) = &*storage else {
            panic!("on the CPU")
        };
        if seen.insert(std::ptr::from_ref(numbers)) && !node.is_variable() {
            bytes += (length(numbers) * node.dtype().size_in_bytes()) as u64;
        }
    }
    bytes
}

fn length(numbers: &candle_core::CpuStorage) -> usize {
    use candle_core::CpuStorage::{BF16, F16, F32};
    match numbers {
        F32(numbers) => numbers.len(),
        F16(numbers) => numbers.len(),
        BF16(numbers) => numbers.len(),
        _ => panic!("floats"),
    }
}

#[test]
fn candle_keeps_what_is_told() {
    let precisions = [
        MixedPrecision::None,
        MixedPrecision::Bf16,
        MixedPrecision::Fp16,
    ];
    for name in FAMILIES {
        let checkpoint = checkpoint(name);
        for mixed_precision in precisions {
            for (lengths, pooling) in [
                (vec![12; 3], Pooling::Cls),
                (vec![20; 2], Pooling::Mean),
                (vec![20], Pooling::Cls),
                (vec![12; 2], Pooling::Scored),
            ] {
                let freeze = Freeze::Nothing;
                let (_, encoder, footprint) = encoder(&checkpoint, freeze);
                let input = input(&checkpoint, freeze, &lengths);
                let packing = input.packing();
                let mut pass = Pass::training(Ops::Composed, 1, 0);
                pass.mixed_precision = mixed_precision;
                let pooled = encoder
                    .pool(input, packing, pooling, &pass)
                    .expect("a pass");
                let found = kept(pooled.composed().expect("candle's own"));
                let composed = footprint.composed(part(&lengths, pooling, mixed_precision));
                let told = composed.states + composed.scores;
                let what = format!("{name}, {mixed_precision:?}, {lengths:?}, {pooling:?}");
                assert_eq!(told, found, "{what}");
            }
        }
    }
}
