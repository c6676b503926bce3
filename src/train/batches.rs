//! The order in which rows are seen, and reading them ahead of the step.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::{Activations, CachedActivations, Error};
use crate::cache::{Cache, Split};
use crate::task::Batch;

/// Batches that lie ready while a step is computed.
const AHEAD: usize = 2;

/// The batches of one epoch: all `rows` in an order drawn from `seed` and `epoch`, the last
/// batch shorter if it must be.
pub fn epoch_batches(rows: usize, batch_size: usize, seed: u64, epoch: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows).collect();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    order.shuffle(&mut random);
    order.chunks(batch_size).map(<[usize]>::to_vec).collect()
}

/// Reads the rows of `split` numbered `rows`: a sequence that occurs in several of them is read,
/// and will be computed, once.
pub fn read_batch(
    activations: &mut dyn Activations,
    split: &Split,
    rows: &[usize],
) -> Result<Batch, Error> {
    let mut sequences = Vec::new();
    let mut places = Vec::new();
    let mut known = HashMap::new();
    for column in 0..split.columns {
        for &row in rows {
            let sequence = split.sequence(row, column);
            let place = *known.entry(sequence).or_insert(sequences.len());
            if place == sequences.len() {
                sequences.push(sequence);
            }
            places.push(place);
        }
    }
    let labels = rows
        .iter()
        .filter_map(|&row| split.labels.get(row).copied());
    Ok(Batch {
        input: activations.input(&sequences)?,
        places,
        labels: labels.collect(),
    })
}

/// Calls `work` with the batches of `rows`, which another thread reads ahead from `cache`.
pub(super) fn with_batches<T>(
    cache: &Cache,
    split: &Split,
    rows: &[Vec<usize>],
    work: impl FnOnce(Receiver<Result<Batch, Error>>) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(AHEAD);
        scope.spawn(move || {
            for rows in rows {
                let batch = read_batch(&mut CachedActivations(cache), split, rows);
                // The receiver is gone when training was interrupted or failed.
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        work(receiver)
    })
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
