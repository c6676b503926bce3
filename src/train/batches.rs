//! The order in which rows are seen.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// The batches of one epoch: all `rows` in an order drawn from `seed` and `epoch`, the last
/// batch shorter if it must be.
pub fn epoch_batches(rows: usize, batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    order.shuffle(&mut random);
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::epoch_batches;

    #[test]
    fn every_row_once_in_an_order_of_the_seed_and_the_epoch() {
        let batches = epoch_batches(10, 4, 1, 0);
        assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
        let mut rows = batches.concat();
        rows.sort_unstable();
        assert_eq!(rows, (0..10).collect::<Vec<_>>());
        assert_eq!(batches, epoch_batches(10, 4, 1, 0));
        assert_ne!(batches, epoch_batches(10, 4, 1, 1));
        assert_ne!(batches, epoch_batches(10, 4, 2, 0));
    }
}
