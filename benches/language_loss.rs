//! How long a language model's loss and its gradients take.
//!
//! `cargo bench --bench language_loss -- ROWS VOCABULARY WIDTH`: medians of each way, one after the
//! other in every repeat. With `on-request` behind it, each line of the standard input names a way, and
//! is answered with its seconds: `scripts/bench/language_loss.py` puts PyTorch between them.

#![allow(clippy::print_stdout)]

use std::io::BufRead;
use std::time::Instant;

use candle_core::{Device, Tensor};
use telly::trainable::{Error, Gradients, Ops, OutputMatrix, Parameters, Pass};

const REPEATS: usize = 5;
const WAYS: [&str; 5] = [
    "frozen",
    "trained",
    "evaluation",
    "composed frozen",
    "composed trained",
];

struct Bench {
    hidden: Tensor,
    targets: Vec<u32>,
    frozen: OutputMatrix,
    trained: OutputMatrix,
    gradients: Gradients,
}

impl Bench {
    fn new([rows, vocabulary, width]: [usize; 3]) -> Result<Self, Error> {
        let numbers = |count: usize, size: f32| -> Vec<f32> {
            let numbers = (0..count).map(|place| (place as f32 * 0.37).sin() * size);
            numbers.collect()
        };
        let mut parameters = Parameters::new(&Device::Cpu);
        let matrix = numbers(vocabulary * width, 0.05);
        let weight = parameters.add("lm_head.weight", &[vocabulary, width], matrix)?;
        let hidden = numbers(rows * width, 1.5);
        let targets = (0..rows).map(|row| row * 7919 % vocabulary);
        Ok(Self {
            hidden: Tensor::from_vec(hidden, (rows, width), &Device::Cpu)?,
            targets: targets
                .map(|target| u32::try_from(target).expect("a token"))
                .collect(),
            frozen: OutputMatrix::Frozen(weight.detach()),
            trained: OutputMatrix::Trained(weight),
            gradients: Gradients::new(&parameters),
        })
    }

    /// Seconds of `way`.
    fn time(&mut self, way: &str) -> Result<f64, Error> {
        let ops = if way.starts_with("composed") {
            Ops::Composed
        } else {
            Ops::Fused
        };
        let pass = Pass::evaluation(ops);
        let (hidden, targets) = (&self.hidden, &self.targets);
        let scale = 1.0 / targets.len() as f64;
        self.gradients.clear();
        let started = Instant::now();
        if way == "evaluation" {
            self.frozen.loss(hidden, targets, &pass)?;
        } else {
            let matrix = if way.ends_with("trained") {
                &self.trained
            } else {
                &self.frozen
            };
            matrix.gradients(hidden, targets, scale, &pass, &mut self.gradients)?;
        }
        Ok(started.elapsed().as_secs_f64())
    }
}

fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut sizes = arguments
        .iter()
        .filter_map(|argument| argument.parse().ok());
    let mut size = |usual: usize| sizes.next().unwrap_or(usual);
    let shape = [size(256), size(4096), size(576)];
    let mut bench = Bench::new(shape)?;
    if arguments.iter().any(|argument| argument == "on-request") {
        for way in std::io::stdin().lock().lines().map_while(Result::ok) {
            println!("{}", bench.time(way.trim())?);
        }
        return Ok(());
    }
    let mut seconds = WAYS.map(|_| Vec::new());
    for _ in 0..REPEATS {
        for (seconds, way) in seconds.iter_mut().zip(WAYS) {
            seconds.push(bench.time(way)?);
        }
    }
    println!("{shape:?}: rows, vocabulary, width");
    for (mut seconds, way) in seconds.into_iter().zip(WAYS) {
        seconds.sort_by(f64::total_cmp);
        println!("{way}: {:.3} s", seconds[REPEATS / 2]);
    }
    Ok(())
}
