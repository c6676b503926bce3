//! One pass over sequences, whose hidden states are looked at as they are computed and not kept.

use std::ops::ControlFlow;

use super::{Error, TextPooling};
use crate::frozen::{self, ComputedBatch, FrozenEncoder};
use crate::interrupt;
use crate::progress::Progress;
use crate::ragged::Ragged;

/// Hands `take` each of `sequences` by its index, with its hidden states at every depth of `frozen`,
/// `[positions, width]` each: of its tokens, or with [`TextPooling::Unmasked`] of as many positions as
/// `frozen` pads to. They come in no particular order. `label` stands before the progress.
///
/// A sequence without tokens, or with a state that is not finite, is an error that counts them from 1.
pub(super) fn each_sequence(
    frozen: &mut FrozenEncoder,
    sequences: &Ragged<u32>,
    positions: TextPooling,
    label: &str,
    take: &mut (dyn FnMut(usize, &[&[f32]]) + Send),
) -> Result<(), Error> {
    let lengths: Vec<usize> = (0..sequences.len())
        .map(|index| sequences.length(index))
        .collect();
    if let Some(sequence) = lengths.iter().position(|&length| length == 0) {
        return Err(Error::NoTokens { text: sequence + 1 });
    }
    let padded: Vec<usize> = lengths
        .iter()
        .map(|&length| length.max(frozen.padded_length()))
        .collect();
    let batches = frozen.batch_size().batches(&padded);
    let mut progress = Progress::new(label, sequences.tokens() as u64, "tokens");
    let (mut beyond, mut stopped) = (None, false);
    let run = frozen.run(sequences, &batches, &mut |batch| {
        match positions {
            TextPooling::Masked => {
                ComputedBatch::iter(batch).for_each(|(index, states)| take(index, &states));
            }
            // What tokens give has been looked at; what padding gives has not.
            TextPooling::Unmasked => batch.padded().for_each(|(index, states)| {
                let mut numbers = states.iter().copied().flatten();
                if numbers.all(|number| number.is_finite()) {
                    take(index, &states);
                } else {
                    beyond.get_or_insert(index);
                }
            }),
        }
        progress.advance(batch.tokens() as u64);
        stopped = interrupt::requested();
        if stopped || beyond.is_some() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    run.map_err(|error| match error {
        frozen::Error::NotFinite { sequence } => Error::NotFinite { text: sequence + 1 },
        other => other.into(),
    })?;
    match beyond {
        Some(sequence) => Err(Error::NotFinite { text: sequence + 1 }),
        None if stopped => Err(Error::Interrupted),
        None => Ok(()),
    }
}
