//! The loss of a language model whose logits are never held whole: PyTorch's numbers, in a tenth of the
//! memory.

#![allow(clippy::cast_precision_loss, reason = "small numbers")]
#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::process::Command;

use crate::support::goldens;
use candle_core::safetensors::load;
use candle_core::{DType, Device, Tensor, Var};
use telly::trainable::{Gradients, Ops, OutputMatrix, Parameters, Pass};

/// The largest difference of two tensors, in parts of the largest number of the second.
fn difference(found: &Tensor, expected: &Tensor) -> f32 {
    let numbers = |x: &Tensor| -> Vec<f32> {
        let flat = x.flatten_all().expect("flat");
        flat.to_vec1().expect("numbers")
    };
    assert_eq!(found.dims(), expected.dims());
    let (found, expected) = (numbers(found), numbers(expected));
    let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
    let differences = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max) / largest
}

#[test]
fn pytorch_has_the_same_loss_and_gradients() {
    let file = goldens().join("language-loss.safetensors");
    let golden = load(file, &Device::Cpu).expect("the reference");
    let targets = golden["targets"].to_dtype(DType::U32).expect("ids");
    let targets: Vec<u32> = targets.to_vec1().expect("ids");
    let matrix: Vec<f32> = golden["matrix"]
        .flatten_all()
        .and_then(|matrix| matrix.to_vec1())
        .expect("numbers");
    let shape = golden["matrix"].dims();
    let mean = golden["mean"].to_vec1::<f32>().expect("a number")[0];
    for ops in [Ops::Fused, Ops::Composed] {
        let mut parameters = Parameters::new(&Device::Cpu);
        let weight = parameters.add("lm_head.weight", shape, matrix.clone());
        let weight = OutputMatrix::Trained(weight.expect("added"));
        let mut gradients = Gradients::new(&parameters);
        let pass = Pass::evaluation(ops);
        let scale = 1.0 / targets.len() as f64;
        let hidden = &golden["hidden"];
        let found = weight.gradients(hidden, &targets, scale, &pass, &mut gradients);
        let (loss, of_hidden) = found.expect("gradients");
        let found: f32 = loss
            .mean()
            .and_then(|mean| Ok(mean.to_scalar()?))
            .expect("a number");
        assert!(
            (found - mean).abs() <= 1e-5 * mean,
            "{ops:?}: {found}, {mean}"
        );
        let off = difference(&of_hidden, &golden["of_hidden"]);
        assert!(off <= 1e-5, "{ops:?}: hidden states' gradient off by {off}");
        let of_matrix = gradients.numbers(0).expect("a gradient");
        let of_matrix = Tensor::from_slice(of_matrix, shape, &Device::Cpu).expect("a tensor");
        let off = difference(&of_matrix, &golden["of_matrix"]);
        assert!(off <= 1e-5, "{ops:?}: the matrix's gradient off by {off}");
    }
}

const ROWS: usize = 2000;
const VOCABULARY: usize = 50_000;
const WIDTH: usize = 128;
/// Says to a process of its own which loss it is to compute.
const WAY: &str = "TELLY_LANGUAGE_LOSS_WAY";

/// The kernel's figure `name` of this process, in bytes.
#[cfg(target_os = "linux")]
fn memory(name: &str) -> usize {
    let status = fs_err::read_to_string("/proc/self/status").expect("this process's status");
    let figure = status.lines().find_map(|line| line.strip_prefix(name));
    let figure = figure.expect("the figure").trim_start_matches(':');
    let kilobytes: usize = figure
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kilobytes * 1024
}

/// One loss and its gradients, in a process of its own: memory once taken shows in no second figure.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "run by `a_tenth_of_the_memory` in a process of its own"]
fn one_way() {
    let way = std::env::var(WAY).expect("which way");
    let numbers = |count: usize| -> Vec<f32> {
        (0..count)
            .map(|place| (place as f32 * 0.37).sin())
            .collect()
    };
    let hidden = Tensor::from_vec(numbers(ROWS * WIDTH), (ROWS, WIDTH), &Device::Cpu);
    let hidden = hidden.expect("a tensor");
    let targets: Vec<u32> = (0..).step_by(23).take(ROWS).collect();
    let mut parameters = Parameters::new(&Device::Cpu);
    let matrix = numbers(VOCABULARY * WIDTH);
    let weight = parameters.add("lm_head.weight", &[VOCABULARY, WIDTH], matrix);
    let weight = weight.expect("added");
    let mut gradients = Gradients::new(&parameters);
    let frozen = OutputMatrix::Frozen(weight.detach());
    let trained = OutputMatrix::Trained(weight.clone());
    let scale = 1.0 / ROWS as f64;
    let mut run = |matrix: &OutputMatrix, ops: Ops| {
        let pass = Pass::evaluation(ops);
        let found = matrix.gradients(&hidden, &targets, scale, &pass, &mut gradients);
        found.expect("gradients");
    };
    let before = memory("VmHWM");
    match way.as_str() {
        "plain" => {
            let hidden = Var::from_tensor(&hidden).expect("a variable");
            let targets = Tensor::from_slice(&targets, ROWS, &Device::Cpu).expect("ids");
            let logits = hidden.matmul(&weight.detach().t().expect("turned"));
            let loss = logits.and_then(|logits| candle_nn::loss::cross_entropy(&logits, &targets));
            loss.and_then(|loss| loss.backward()).expect("gradients");
        }
        "fused" => run(&frozen, Ops::Fused),
        "fused, trained" => run(&trained, Ops::Fused),
        "composed" => run(&frozen, Ops::Composed),
        way => panic!("no way is called {way}"),
    }
    println!("bytes: {}", memory("VmHWM") - before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_tenth_of_the_memory() {
    let bytes = |way: &str| -> usize {
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args([
                "--exact",
                "language_loss::one_way",
                "--ignored",
                "--nocapture",
            ])
            .env(WAY, way)
            .output()
            .expect("a process");
        assert!(child.status.success(), "{way}: {child:?}");
        let shown = String::from_utf8_lossy(&child.stdout).into_owned();
        let bytes = shown.lines().find_map(|line| line.split_once("bytes: "));
        let bytes = bytes.expect("a figure").1.parse().expect("a number");
        println!("{way}: {:.1} MB", bytes as f64 / 1e6);
        bytes
    };
    let plain = bytes("plain");
    // The logits alone.
    assert!(plain > ROWS * VOCABULARY * 4, "{plain}");
    for way in ["fused", "fused, trained", "composed"] {
        let found = bytes(way);
        assert!(10 * found < plain, "{way}: {found} of {plain}");
    }
}
