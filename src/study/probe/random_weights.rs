//! The control: a model of the same shape that has learnt nothing.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use crate::checkpoint::Checkpoint;

/// Puts fresh weights in the place of all that `checkpoint`'s encoder has, as its family's pre-training
/// begins: matrices normal with `initializer_range`, biases 0, the weights of norms 1.
pub fn randomize(checkpoint: &mut Checkpoint, seed: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    for (name, shape) in checkpoint.config.tensors() {
        let count = shape.iter().product();
        let values = match shape.as_slice() {
            [_] if name.ends_with("bias") => vec![0.0; count],
            [_] => vec![1.0; count],
            _ => checkpoint.config.fresh_weights(&mut random, count),
        };
        checkpoint.weights.replace(&name, &shape, values);
    }
}
