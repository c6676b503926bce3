//! How probes learn.

use candle_core::{Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::interrupt;
use crate::progress::Progress;
use crate::study::Error;

/// How a probe learns: Adam, with a learning rate that falls to 0 by a line.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeSettings {
    /// Passes over the training examples.
    pub epochs: usize,
    /// Examples a step.
    pub batch_size: usize,
    /// Of the first step.
    pub learning_rate: f64,
    /// Of the order of the examples.
    pub seed: u64,
}

/// Fits `variables` to `examples`, of which `loss` gets the numbers of a batch; `label` stands before
/// the progress.
pub(super) fn fit(
    variables: Vec<Var>,
    examples: usize,
    settings: &ProbeSettings,
    label: &str,
    mut loss: impl FnMut(&[u32], &mut ChaCha8Rng) -> Result<Tensor, Error>,
) -> Result<(), Error> {
    let parameters = ParamsAdamW {
        lr: settings.learning_rate,
        weight_decay: 0.0,
        ..ParamsAdamW::default()
    };
    let mut optimizer = AdamW::new(variables, parameters)?;
    let mut random = ChaCha8Rng::seed_from_u64(settings.seed);
    let mut order: Vec<u32> = (0..).take(examples).collect();
    let steps = settings.epochs * examples.div_ceil(settings.batch_size);
    let mut progress = Progress::new(label, steps as u64, "steps");
    let mut step = 0;
    for _ in 0..settings.epochs {
        order.shuffle(&mut random);
        for batch in order.chunks(settings.batch_size) {
            if interrupt::requested() {
                return Err(Error::Interrupted);
            }
            let left = (steps - step) as f64 / steps as f64;
            optimizer.set_learning_rate(settings.learning_rate * left);
            optimizer.backward_step(&loss(batch, &mut random)?)?;
            progress.advance(1);
            step += 1;
        }
    }
    Ok(())
}
