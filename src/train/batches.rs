//! Reading batches ahead of the step.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};

use super::activations::StagedActivations;
use super::{Activations, EpochOrder, Error};
use crate::cache::{Cache, Split};
use crate::task::Batch;
use crate::trainable::Stage;

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
    Ok(Batch {
        input: activations.input(&sequences)?,
        places,
        columns: split.columns,
        targets: split.targets.of_rows(rows),
    })
}

/// Calls `work` with the batches of `rows`, which another thread reads ahead from `cache` and
/// `stage` brings to the device. They are what is left of `order` from `place` on.
pub(super) fn with_batches<T>(
    (cache, stage): (&Cache, &dyn Stage),
    split: &Split,
    rows: &[Vec<usize>],
    (order, place): (&EpochOrder, usize),
    work: impl FnOnce(Receiver<Result<Batch, Error>>) -> T,
) -> T {
    std::thread::scope(|scope| {
        let (sender, receiver) = sync_channel(stage.ahead());
        scope.spawn(move || {
            // Of a window in whose middle a run goes on, everything is still to be asked for.
            let ahead = order.read_ahead.iter();
            let mut ahead = ahead.filter(|read| read.places.end > place).peekable();
            let mut reached = place;
            for (number, this) in rows.iter().enumerate() {
                reached += this.len();
                while let Some(read) = ahead.next_if(|read| read.places.start < reached) {
                    cache.will_need(&read.sequences);
                }
                // In an exact order nothing else is asked for.
                if let Some(next) = rows.get(number + 1).filter(|_| order.read_ahead.is_empty()) {
                    cache.will_need_each(&split.sequences_of(next));
                }
                let batch = read_batch(&mut StagedActivations { cache, stage }, split, this);
                // The receiver is gone when training was interrupted or failed.
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        work(receiver)
    })
}
