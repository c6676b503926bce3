//! The frozen half in int8, fp16 and bf16 puts out nearly what it does in fp32.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::ops::ControlFlow;
use std::path::Path;

use crate::support::{
    self, Classification, Golden, TINY_MODELS, WRONG_INPUT, fails, goldens, minilm, python,
    run_python,
};
use telly::checkpoint::Checkpoint;
use telly::frozen::onnx::{self, Start};
use telly::frozen::{FrozenEncoder, FrozenPrecision, ProviderChoice, Runtime, SessionOptions};

/// Hidden states `[tokens, hidden]` flat, of one padded batch of the golden's sequences.
fn hidden_states(
    checkpoint: &Checkpoint,
    freeze: usize,
    golden: &Golden,
    precision: FrozenPrecision,
) -> Vec<f32> {
    let options = SessionOptions {
        provider: ProviderChoice::Cpu,
        precision,
        ..SessionOptions::default()
    };
    let runtime = Runtime::load(None).expect("ONNX Runtime");
    let frozen = FrozenEncoder::new(&runtime, checkpoint, &[freeze], &options);
    let sequences = golden.sequences();
    let all: Vec<usize> = (0..sequences.len()).collect();
    let mut states = Vec::new();
    frozen
        .expect("a session")
        .run(&sequences, &[all], &mut |batch| {
            states.extend(batch.iter().flat_map(|(_, at_depths)| at_depths[0]));
            ControlFlow::Continue(())
        })
        .expect("hidden states");
    states
}

fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let products = a.iter().zip(b);
        products.map(|(&x, &y)| f64::from(x) * f64::from(y)).sum()
    };
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The mean cosine of a token is at least `lowest`, for each K from 0.
fn check(folder: &Path, golden: &str, precision: FrozenPrecision, lowest: f64) {
    let golden = Golden::read(golden);
    let checkpoint = Checkpoint::open(folder).expect("a checkpoint");
    let width = checkpoint.config.hidden_size;
    for freeze in 0..=checkpoint.config.layers {
        let [float, rounded] = [FrozenPrecision::Fp32, precision]
            .map(|precision| hidden_states(&checkpoint, freeze, &golden, precision));
        // The embeddings have no linear layers, and every layer has.
        assert_eq!(float == rounded, freeze == 0, "{freeze} layers");
        let tokens = float.chunks_exact(width).zip(rounded.chunks_exact(width));
        let cosines: Vec<f64> = tokens.map(|(a, b)| cosine(a, b)).collect();
        let differences = float.iter().zip(&rounded).map(|(a, b)| (a - b).abs());
        let largest = differences.fold(0.0, f32::max);
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        println!(
            "{}, {freeze} layers in {precision}: largest difference {largest:.1e}, mean cosine {mean:.6}, lowest {:.6}",
            folder.display(),
            cosines.iter().copied().fold(1.0, f64::min)
        );
        assert!(mean >= lowest, "{freeze} layers: {mean}");
    }
}

#[test]
fn tiny_models_stay_close_to_fp32() {
    for model in TINY_MODELS {
        let golden = format!("{model}.hidden.safetensors");
        check(
            &goldens().join(model),
            &golden,
            FrozenPrecision::Int8,
            0.999,
        );
        check(
            &goldens().join(model),
            &golden,
            FrozenPrecision::Fp16,
            0.99999,
        );
    }
}

#[test]
fn minilm_stays_close_to_fp32() {
    let golden = "minilm-l6.hidden.safetensors";
    check(&minilm(), golden, FrozenPrecision::Int8, 0.998);
    check(&minilm(), golden, FrozenPrecision::Fp16, 0.99999);
}

/// ONNX Runtime has no bfloat16 on the CPU. The graphs pass ONNX's checker, and its reference
/// evaluator, which has, finds them close to transformers.
#[test]
fn bf16_graphs_are_right_by_the_reference_of_onnx() {
    let Some(python) = python() else { return };
    for model in TINY_MODELS {
        let checkpoint = Checkpoint::open(&goldens().join(model)).expect("a checkpoint");
        let folder = tempfile::tempdir().expect("a folder");
        let precisions = [
            FrozenPrecision::Fp32,
            FrozenPrecision::Fp16,
            FrozenPrecision::Bf16,
        ];
        let graphs = precisions.map(|precision| {
            let data = format!("{precision}.data");
            let depth = [checkpoint.config.layers];
            let written = onnx::write(&checkpoint, Start::TokenIds, &depth, precision, &data);
            let written = written.expect("written");
            fs_err::write(folder.path().join(data), written.data).expect("written");
            let graph = folder.path().join(format!("{precision}.onnx"));
            fs_err::write(&graph, written.graph).expect("written");
            graph
        });
        run_python(&python, "check_onnx.py", &[folder.path()]);
        let golden = goldens().join(format!("{model}.hidden.safetensors"));
        let [fp32, fp16, bf16] = &graphs;
        let printed = run_python(&python, "run_graphs.py", &[&golden, fp32, fp16, bf16]);
        println!("{model}\n{printed}");
        let figures = printed.lines().map(|line| {
            let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
            ["largest", "cosine"].map(|name| line[name].as_f64().expect("a number"))
        });
        let figures: Vec<[f64; 2]> = figures.collect();
        let [[exact, _], [half, half_cosine], [brain, brain_cosine]] = figures[..] else {
            panic!("{printed}");
        };
        assert!(exact < 1e-4 && half_cosine > 0.99999 && brain_cosine > 0.999);
        assert!(exact < half && half < brain);
    }
}

/// The graph of tf32 is that of fp32: what multiplies it is another matter.
#[test]
fn tf32_has_the_graph_of_fp32() {
    let checkpoint = Checkpoint::open(&goldens().join("bert-tiny")).expect("a checkpoint");
    let [fp32, tf32] = [FrozenPrecision::Fp32, FrozenPrecision::Tf32].map(|precision| {
        let written = onnx::write(&checkpoint, Start::TokenIds, &[2], precision, "data");
        written.expect("written")
    });
    assert!(fp32.graph == tf32.graph && fp32.data == tf32.data);
}

#[test]
fn cuda_is_refused() {
    let work = Classification::new();
    let mut command = work.precompute(&goldens().join("bert-tiny"), &work.path("train.jsonl"), "1");
    command.args(["--frozen-precision", "int8"]);
    let arguments: Vec<_> = command
        .get_args()
        .map(|argument| {
            if argument == "cpu" {
                "cuda".into()
            } else {
                argument.to_owned()
            }
        })
        .collect();
    let words = ["int8", "CPU only", "--provider cpu"];
    fails(support::telly(&arguments), WRONG_INPUT, &words);
    assert!(!work.path("cache").exists());
}
