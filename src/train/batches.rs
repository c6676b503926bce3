//! Reading batches ahead of the step.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, sync_channel};

use super::activations::StagedActivations;
use super::{Activations, EpochOrder, Error};
use crate::cache::{Cache, Split};
use crate::checkpoint::AttentionPattern;
use crate::targets::Targets;
use crate::task::Batch;
use crate::trainable::Stage;

/// Reads the rows of `split` numbered `rows`: a sequence that occurs in several of them is read,
/// and will be computed, once, unless its tokens are scored.
pub fn read_batch(
    activations: &mut dyn Activations,
    split: &Split,
    rows: &[usize],
) -> Result<Batch, Error> {
    if let Targets::Texts { first_scored, .. } = &split.targets {
        return read_scored(activations, split, rows, first_scored);
    }
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

/// Reads rows whose tokens are scored from their `first_scored` on: each is predicted from the state
/// of the token before it.
fn read_scored(
    activations: &mut dyn Activations,
    split: &Split,
    rows: &[usize],
    first_scored: &[u32],
) -> Result<Batch, Error> {
    let sequences = split.sequences_of(rows);
    let ids = activations.token_ids(&sequences);
    let (mut scored, mut tokens) = (Vec::new(), Vec::new());
    for (&row, ids) in rows.iter().zip(ids.iter()) {
        let first = first_scored[row] as usize;
        scored.push(first - 1..ids.len() - 1);
        tokens.extend_from_slice(&ids[first..]);
    }
    Ok(Batch {
        input: activations.input(&sequences)?.with_scored(scored),
        places: (0..sequences.len()).collect(),
        columns: 1,
        targets: Targets::Tokens(tokens),
    })
}

/// Calls `work` with the batches of `rows`, which another thread reads ahead from `cache` and
/// `stage` brings to the device. They are what is left of `order` from `place` on.
pub(super) fn with_batches<T>(
    (cache, pattern, stage): (&Cache, AttentionPattern, &dyn Stage),
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
                let mut activations = StagedActivations {
                    cache,
                    pattern,
                    stage,
                };
                let batch = read_batch(&mut activations, split, this);
                // The receiver is gone when training was interrupted or failed.
                if sender.send(batch).is_err() {
                    return;
                }
            }
        });
        work(receiver)
    })
}
