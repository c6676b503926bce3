//! Half types in training: weights stay fp32, losses stay close to fp32's, and the loss is scaled
//! in fp16 as PyTorch's `GradScaler` does.

use std::path::{Path, PathBuf};

use crate::support::{
    TINY_MODELS, WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, train,
    write_classification,
};
use candle_core::{Device, Tensor};
use half::f16;
use serde_json::Value;
use telly::checkpoint::{Checkpoint, Freeze};
use telly::ragged::Ragged;
use telly::targets::Targets;
use telly::task::{Batch, HeadSettings, Model, Objective};
use telly::train::{Error, TrainSettings, Trainer};
use telly::trainable::{EncoderInput, LossScaler, MixedPrecision, Pooling};

#[test]
fn scales_as_in_pytorch() {
    let text = fs_err::read_to_string(goldens().join("loss-scaler.json")).expect("a golden");
    let golden: Value = serde_json::from_str(&text).expect("JSON");
    let cases = golden["cases"].as_array().expect("cases");
    assert_eq!(cases.len(), 5);
    for case in cases {
        let interval = case["interval"].as_u64().expect("steps");
        let mut scaler = LossScaler::growing_after(u32::try_from(interval).expect("steps"));
        let infinite: Vec<usize> = serde_json::from_value(case["infinite"].clone()).expect("steps");
        let runs: Vec<(f64, usize)> =
            serde_json::from_value(case["scales"].clone()).expect("scales");
        let expected = runs
            .into_iter()
            .flat_map(|(scale, count)| vec![scale; count]);
        for (step, expected) in expected.enumerate() {
            let found = scaler.scale();
            assert!(
                (found - expected).abs() <= 0.0,
                "{case}, step {step}: {found}"
            );
            scaler.update(!infinite.contains(&step));
        }
        assert_eq!(scaler.skipped(), infinite.len());
    }
    let usual = LossScaler::default();
    assert_eq!(usual, LossScaler::growing_after(2000));
}

fn losses(run: &Path) -> Vec<f64> {
    let text = fs_err::read_to_string(run.join("metrics.jsonl")).expect("a log");
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

fn cached(space: &Workspace, model: &str) -> PathBuf {
    let data = space.path("train.jsonl");
    write_classification(&data, 64);
    let cache = space.path("cache");
    telly_json(&precompute(
        "classify",
        &goldens().join(model),
        &data,
        "1",
        &cache,
    ));
    cache
}

/// In every family; the weights are numbers that no half type has.
#[test]
fn close_to_fp32_with_fp32_weights() {
    for model in TINY_MODELS {
        let space = Workspace::new();
        let cache = cached(&space, model);
        let run = |precision: &str| {
            let run = space.path(precision);
            let flags = "--epochs 3 --batch-size 8 --lr 1e-3 --log-every 1 --ops composed";
            let flags = format!("{flags} --mixed-precision {precision}");
            let summary = telly_json(&train(&cache, &run, &flags));
            assert_eq!(summary["steps"], 24);
            let bytes = fs_err::read(run.join("model.safetensors")).expect("weights");
            let tensors = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
            for (name, tensor) in tensors.tensors() {
                assert_eq!(tensor.dtype(), safetensors::Dtype::F32, "{name}");
                let numbers = tensor
                    .data()
                    .chunks_exact(4)
                    .map(|bytes| f32::from_le_bytes(bytes.try_into().expect("four bytes")));
                let odd = numbers
                    .filter(|&number| f16::from_f32(number).to_f32().to_bits() != number.to_bits());
                assert!(odd.count() > 0, "{name} has numbers of fp16 alone");
            }
            losses(&run)
        };
        let exact = run("none");
        for (precision, tolerance) in [("bf16", 5e-2), ("fp16", 1e-2)] {
            let found = run(precision);
            assert_eq!(found.len(), exact.len());
            let apart = found.iter().zip(&exact).map(|(a, b)| (a - b).abs());
            let worst = apart.fold(0.0, f64::max);
            assert!(worst < tolerance, "{model}, {precision}: {worst} from fp32");
            assert!(worst > 0.0, "{model}, {precision} was fp32");
        }
    }
}

#[test]
fn fused_operations_have_none() {
    let space = Workspace::new();
    let cache = cached(&space, "bert-tiny");
    let run = space.path("run");
    let flags = "--ops fused --mixed-precision fp16";
    let words = ["`--ops fused` computes in fp32", "`--ops composed`"];
    fails(telly(&train(&cache, &run, flags)), WRONG_INPUT, &words);
    assert!(!run.exists());
}

/// A step whose gradients are infinite changes nothing but the scale, and when no scale helps
/// training ends.
#[test]
fn steps_that_overflow_are_skipped() {
    let checkpoint = Checkpoint::open(&goldens().join("bert-tiny")).expect("a checkpoint");
    let head = HeadSettings::Linear {
        classes: 2,
        objective: Objective::SingleLabel,
    };
    let (freeze, device) = (Freeze::Layers(2), Device::Cpu);
    let model = Model::new(&checkpoint, freeze, &head, Pooling::Cls, 1, &device);
    let settings = TrainSettings {
        mixed_precision: MixedPrecision::Fp16,
        warmup: 0.0,
        ..TrainSettings::default()
    };
    let mut trainer = Trainer::new(model.expect("a model"), settings, 100).expect("a trainer");
    let batch = |largest: f32| {
        let width = checkpoint.config.hidden_size;
        let values = (0..8 * width).map(|place| if place == 0 { largest } else { 0.5 });
        let offsets = vec![0, 4, 8];
        Batch {
            input: EncoderInput::HiddenStates(Ragged::from_parts(values.collect(), offsets, width)),
            places: vec![0, 1],
            columns: 1,
            targets: Targets::Classes(vec![0, 1]),
        }
    };
    let weights = |trainer: &Trainer| -> Vec<Vec<f32>> {
        let flat = |tensor: Tensor| tensor.flatten_all()?.to_vec1();
        let parameters = trainer.model.parameters.iter();
        let numbers = parameters.map(|one| flat(one.variable.as_detached_tensor()));
        numbers.collect::<Result<_, _>>().expect("numbers")
    };
    let before = weights(&trainer);
    // Beyond fp16's 65504.
    let report = trainer.step(batch(1e9)).expect("a step");
    assert!(report.skipped);
    assert_eq!(report.loss_scale, Some(65_536.0));
    assert_eq!(weights(&trainer), before);
    let report = trainer.step(batch(0.25)).expect("a step");
    assert!(!report.skipped && report.gradient_norm.is_finite());
    assert_eq!(report.loss_scale, Some(32_768.0));
    assert_ne!(weights(&trainer), before);
    let before = weights(&trainer);
    let error = (0..40).find_map(|_| trainer.step(batch(1e9)).err());
    assert!(matches!(error, Some(Error::LossScale { .. })), "{error:?}");
    assert_eq!(weights(&trainer), before);
}
