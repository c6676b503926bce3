//! Running the frozen half, shard by shard.

use std::sync::mpsc::sync_channel;

use super::Records;
use crate::cache::{EncodedStates, Precision, Previous, Writer};
use crate::error::Error;
use crate::frozen::{FrozenEncoder, TOKEN_BUDGET, by_token_budget};
use crate::interrupt;
use crate::progress::Progress;
use crate::ragged::Ragged;

/// Computes and publishes every shard that `writer` still lacks. `frozen` is absent when nothing
/// is frozen and the cache holds token ids alone. `records` names the one whose states cannot be
/// stored. What is known from before the data changed is copied. Returns the tokens that were
/// computed.
pub fn fill(
    writer: &mut Writer,
    sequences: &Ragged<u32>,
    records: Records,
    mut frozen: Option<&mut FrozenEncoder>,
) -> Result<usize, Error> {
    let missing = writer.missing();
    let tokens = missing.iter().flat_map(|(_, range)| range.clone());
    let tokens: usize = tokens.map(|index| sequences.length(index)).sum();
    let mut progress = Progress::new("precompute", tokens as u64, "tokens");
    let precision = writer.precision();
    let previous = writer.take_previous();
    let mut computed_tokens = 0;
    std::thread::scope(|scope| {
        // A shard is written while the next is computed.
        let (sender, receiver) = sync_channel::<(usize, Ragged<u32>, Option<EncodedStates>)>(0);
        let writing = scope.spawn(move || -> Result<(), Error> {
            for (number, ids, states) in receiver {
                writer.write_shard(number, &ids, states.as_ref())?;
            }
            Ok(())
        });
        let compute = || -> Result<(), Error> {
            for (computed, (number, range)) in missing.iter().enumerate() {
                let members: Vec<usize> = range.clone().collect();
                let ids = sequences.gather(&members);
                let states = if let (Some(frozen), Some(precision)) = (&mut frozen, precision) {
                    let shard = ShardRun {
                        ids: &ids,
                        first_sequence: range.start,
                        precision,
                        records,
                        computed,
                    };
                    let (states, tokens) = shard.run(frozen, previous.as_ref(), &mut progress)?;
                    computed_tokens += tokens;
                    Some(states)
                } else {
                    computed_tokens += ids.tokens();
                    None
                };
                if sender.send((*number, ids, states)).is_err() {
                    // The writer has failed, and says why below.
                    break;
                }
            }
            drop(sender);
            Ok(())
        };
        let computed = compute();
        match writing.join() {
            Ok(written) => written?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        computed
    })?;
    Ok(computed_tokens)
}

/// One shard to be computed.
struct ShardRun<'a> {
    ids: &'a Ragged<u32>,
    /// The number of the first of them among all.
    first_sequence: usize,
    precision: Precision,
    records: Records<'a>,
    /// Shards done before.
    computed: usize,
}

impl ShardRun<'_> {
    /// Hidden states of all of the shard's sequences, in their order, and how many tokens were
    /// computed for them.
    fn run(
        &self,
        frozen: &mut FrozenEncoder,
        previous: Option<&Previous>,
        progress: &mut Progress,
    ) -> Result<(EncodedStates, usize), Error> {
        let ids = self.ids;
        let mut encoded = EncodedStates::new(self.precision, frozen.hidden_size(), ids.tokens());
        let is_new = |index: &usize| {
            let copied = previous.is_some_and(|previous| {
                previous.copy(ids.sequence(*index), ids.offsets()[*index], &mut encoded)
            });
            !copied
        };
        let new: Vec<usize> = (0..ids.len()).filter(is_new).collect();
        let lengths: Vec<usize> = new.iter().map(|&index| ids.length(index)).collect();
        let tokens = lengths.iter().sum();
        progress.advance((ids.tokens() - tokens) as u64);
        for batch in by_token_budget(&lengths, TOKEN_BUDGET) {
            if interrupt::requested() {
                return Err(Error::Interrupted {
                    kept: format!(
                        "{} new shards are kept; the same command goes on where this one stopped",
                        self.computed
                    ),
                });
            }
            let batch: Vec<usize> = batch.into_iter().map(|member| new[member]).collect();
            let mut beyond = None;
            let run = frozen.run(ids, &batch, |index, states| {
                if !encoded.put(ids.offsets()[index], states) {
                    beyond.get_or_insert(index);
                }
            });
            run.map_err(|error| {
                self.records
                    .name(error, |index| self.first_sequence + index)
            })?;
            if let Some(index) = beyond {
                return Err(super::Error::OutOfRange {
                    record: self.records.of(self.first_sequence + index),
                    precision: self.precision,
                }
                .into());
            }
            let tokens: usize = batch.iter().map(|&index| ids.length(index)).sum();
            progress.advance(tokens as u64);
        }
        Ok((encoded, tokens))
    }
}
