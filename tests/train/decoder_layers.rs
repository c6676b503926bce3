//! The trainable half's layers put out what Hugging Face transformers does, of models that write
//! text: decoders, and `UniXcoder` in each of its modes, after every number of layers.
#![allow(clippy::cast_possible_truncation, reason = "goldens hold f32")]

use crate::support::{DECODERS, Golden, goldens};
use candle_core::{Device, Tensor};
use telly::checkpoint::{AttentionPattern, Checkpoint, Freeze, PrefixRule};
use telly::ragged::Ragged;
use telly::trainable::{EncoderInput, Ops, Parameters, Pass, Pooling, Reference, TrainableEncoder};

const TOLERANCE: f64 = 1e-4;

fn assert_close(found: &Tensor, expected: &[f64], what: &str) {
    let found = found
        .flatten_all()
        .and_then(|states| states.to_vec1::<f32>());
    let found = found.expect("numbers");
    assert_eq!(found.len(), expected.len(), "{what}");
    let pairs = found.iter().zip(expected);
    let largest = pairs
        .map(|(found, expected)| (f64::from(*found) - expected).abs())
        .fold(0.0, f64::max);
    assert!(largest <= TOLERANCE, "{what}: {largest}");
}

/// The prefixes of sequences of `checkpoint`'s pattern; none where all attend to all.
fn prefixes(checkpoint: &Checkpoint, ids: &Ragged<u32>) -> Option<Vec<usize>> {
    let pattern = checkpoint.config.attention_pattern;
    let prefixes = ids.iter().map(|ids| pattern.prefix_length(ids));
    (!pattern.is_bidirectional()).then(|| prefixes.collect())
}

/// Compares the states of `checkpoint` with those of `golden`: after each layer in candle's own
/// operations, and after the last of the layers above each number of frozen ones by both ways.
fn check(checkpoint: &Checkpoint, golden: &Golden, name: &str) {
    let ids = golden.sequences();
    let (layers, width) = (checkpoint.config.layers, checkpoint.config.hidden_size);
    let mut reference = Reference::new(checkpoint, &ids).expect("embedded");
    loop {
        let layer = reference.layers();
        let states = Tensor::cat(reference.states(), 0).expect("states");
        let expected = golden.floats(&format!("hidden.{layer}"));
        assert_close(&states, &expected, &format!("{name}, reference, {layer}"));
        if layer == layers {
            break;
        }
        reference.advance().expect("a layer");
    }
    let prefixes = prefixes(checkpoint, &ids);
    let last = golden.tensors.get("final").map_or_else(
        || golden.floats(&format!("hidden.{layers}")),
        |_| golden.floats("final"),
    );
    for (ops, frozen) in [Ops::Fused, Ops::Composed]
        .into_iter()
        .flat_map(|ops| (1..layers).map(move |frozen| (ops, frozen)))
    {
        let mut parameters = Parameters::new(&Device::Cpu);
        let freeze = Freeze::Layers(frozen);
        let encoder = TrainableEncoder::load(checkpoint, freeze, &mut parameters);
        let states = golden.floats(&format!("hidden.{frozen}"));
        let states = states.into_iter().map(|value| value as f32).collect();
        let states = Ragged::from_parts(states, ids.offsets().to_vec(), width);
        let input = EncoderInput::HiddenStates(states);
        let input = match &prefixes {
            Some(prefixes) => input.with_prefixes(prefixes.clone()),
            None => input,
        };
        let packing = input.packing();
        let pass = Pass::evaluation(ops);
        let encoder = encoder.expect("loaded");
        let states = encoder.pool(input, packing, Pooling::Scored, &pass);
        let what = format!("{name}, {ops:?}, {frozen} frozen");
        assert_close(&states.expect("states").vectors, &last, &what);
    }
}

#[test]
fn decoders_agree_after_every_layer() {
    for name in DECODERS {
        let checkpoint = Checkpoint::open(&goldens().join(name)).expect("a checkpoint");
        assert_eq!(
            checkpoint.config.attention_pattern,
            AttentionPattern::Causal
        );
        let golden = Golden::read(&format!("{name}.hidden.safetensors"));
        check(&checkpoint, &golden, name);
    }
}

/// Behind the last norm, of all tokens and of the last half of each sequence alone.
#[test]
fn final_states_of_decoders_agree() {
    for name in DECODERS {
        let checkpoint = Checkpoint::open(&goldens().join(name)).expect("a checkpoint");
        let golden = Golden::read(&format!("{name}.hidden.safetensors"));
        let expected = golden.floats("final");
        let ids = golden.sequences();
        let width = checkpoint.config.hidden_size;
        let mut parameters = Parameters::new(&Device::Cpu);
        let encoder = TrainableEncoder::load(&checkpoint, Freeze::Nothing, &mut parameters);
        let encoder = encoder.expect("loaded");
        for ops in [Ops::Fused, Ops::Composed] {
            for half in [false, true] {
                let input = EncoderInput::TokenIds(ids.clone());
                let input = input.with_prefixes(vec![0; ids.len()]);
                let starts = (0..ids.len()).map(|index| {
                    let length = ids.length(index);
                    if half { length / 2..length } else { 0..length }
                });
                let input = input.with_scored(starts.collect());
                let packing = input.packing();
                let rows = packing.rows_read(Pooling::Scored);
                let expected = rows
                    .iter()
                    .flat_map(|row| &expected[row * width..][..width]);
                let expected: Vec<f64> = expected.copied().collect();
                let pass = Pass::evaluation(ops);
                let states = encoder.pool(input, packing, Pooling::Scored, &pass);
                let what = format!("{name}, {ops:?}, half: {half}");
                assert_close(&states.expect("states").vectors, &expected, &what);
            }
        }
    }
}

#[test]
fn unixcoder_agrees_in_each_mode() {
    let rule = |padded_source| {
        AttentionPattern::Prefix(PrefixRule {
            separator: 2,
            occurrence: 2,
            padded_source,
        })
    };
    for (mode, pattern) in [
        ("encoder-only", AttentionPattern::Bidirectional),
        ("decoder-only", AttentionPattern::Causal),
        ("encoder-decoder", rule(None)),
        ("encoder-decoder-padded", rule(Some(24))),
    ] {
        let folder = goldens().join("unixcoder-tiny");
        let mut checkpoint = Checkpoint::open(&folder).expect("a checkpoint");
        checkpoint.config.attention_pattern = pattern;
        let golden = Golden::read(&format!("unixcoder-tiny.{mode}.hidden.safetensors"));
        if golden.tensors.contains_key("prefix_lengths") {
            let expected = golden.integers("prefix_lengths");
            let found = prefixes(&checkpoint, &golden.sequences()).expect("prefixes");
            let found: Vec<i64> = found
                .iter()
                .map(|&length| i64::try_from(length).expect("short"))
                .collect();
            assert_eq!(found, expected, "{mode}");
        }
        check(&checkpoint, &golden, mode);
    }
}
