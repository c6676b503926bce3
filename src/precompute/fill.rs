//! Running the frozen half, shard by shard.

use std::collections::BTreeMap;
use std::ops::{ControlFlow, Range};
use std::sync::mpsc::sync_channel;

use super::{Plan, Records, States};
use crate::cache::{EncodedStates, Precision, Previous, Writer};
use crate::error::Error;
use crate::interrupt;
use crate::progress::Progress;
use crate::ragged::Ragged;

/// Computes and publishes every shard that any of `writers`, one a depth of `states`, still lacks.
/// `states` is absent when nothing is frozen and the cache holds token ids alone. What is known
/// from before the data changed is copied. `label` stands before the progress. Returns the tokens
/// that were computed.
pub fn fill(
    writers: &mut [Writer],
    plan: &Plan,
    mut states: Option<&mut dyn States>,
    label: &str,
) -> Result<usize, Error> {
    let shards = lacking(writers);
    let tokens = shards.iter().flat_map(|shard| shard.sequences.clone());
    let tokens: usize = tokens.map(|index| plan.sequences.length(index)).sum();
    let mut progress = Progress::new(label, tokens as u64, "tokens");
    let precision = plan.layout().precision;
    let previous: Vec<_> = writers.iter_mut().map(Writer::take_previous).collect();
    let mut computed_tokens = 0;
    std::thread::scope(|scope| {
        // A shard is written while the next is computed.
        let (sender, receiver) = sync_channel::<ComputedShard>(0);
        let writing = scope.spawn(move || -> Result<(), Error> {
            for shard in receiver {
                for (writer, states) in shard.states {
                    writers[writer].write_shard(shard.number, &shard.ids, states.as_ref())?;
                }
            }
            Ok(())
        });
        let compute = || -> Result<(), Error> {
            for (computed, shard) in shards.iter().enumerate() {
                let members: Vec<usize> = shard.sequences.clone().collect();
                let ids = plan.sequences.gather(&members);
                let encoded: Vec<_> =
                    if let (Some(states), Some(precision)) = (&mut states, precision) {
                        let run = ShardRun {
                            shard,
                            ids: &ids,
                            precision,
                            plan,
                            previous: &previous,
                            computed,
                        };
                        let (encoded, tokens) = run.run(&mut **states, &mut progress)?;
                        computed_tokens += tokens;
                        encoded.into_iter().map(Some).collect()
                    } else {
                        computed_tokens += ids.tokens();
                        shard.writers.iter().map(|_| None).collect()
                    };
                let writers = shard.writers.iter().copied();
                let computed = ComputedShard {
                    number: shard.number,
                    ids,
                    states: writers.zip(encoded).collect(),
                };
                if sender.send(computed).is_err() {
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

/// A shard that some writers lack.
struct LackingShard {
    number: usize,
    sequences: Range<usize>,
    /// Their places.
    writers: Vec<usize>,
}

/// A shard to be written.
struct ComputedShard {
    number: usize,
    ids: Ragged<u32>,
    /// For each writer that lacks it, by its place; none in a cache of token ids alone.
    states: Vec<(usize, Option<EncodedStates>)>,
}

/// What `writers`, whose shards are laid out alike, still lack, by number.
fn lacking(writers: &[Writer]) -> Vec<LackingShard> {
    let mut shards = BTreeMap::new();
    for (place, writer) in writers.iter().enumerate() {
        for (number, sequences) in writer.missing() {
            let shard = shards.entry(number).or_insert_with(|| LackingShard {
                number,
                sequences,
                writers: Vec::new(),
            });
            shard.writers.push(place);
        }
    }
    shards.into_values().collect()
}

/// One shard to be computed.
struct ShardRun<'a> {
    shard: &'a LackingShard,
    ids: &'a Ragged<u32>,
    precision: Precision,
    plan: &'a Plan,
    /// One a writer.
    previous: &'a [Option<Previous>],
    /// Shards done before.
    computed: usize,
}

impl ShardRun<'_> {
    /// Hidden states of all of the shard's sequences, in their order, for each writer that lacks
    /// it; and how many tokens were computed for them.
    fn run(
        &self,
        states: &mut dyn States,
        progress: &mut Progress,
    ) -> Result<(Vec<EncodedStates>, usize), Error> {
        let ids = self.ids;
        let first = self.shard.sequences.start;
        let width = self.plan.layout().width;
        let writers = self.shard.writers.iter();
        let mut encoded: Vec<_> = writers
            .map(|_| EncodedStates::new(self.precision, width, ids.tokens()))
            .collect();
        let new: Vec<usize> = (0..ids.len())
            .filter(|&index| !self.copy(index, &mut encoded))
            .collect();
        let lengths: Vec<usize> = new.iter().map(|&index| ids.length(index)).collect();
        let tokens: usize = lengths.iter().sum();
        progress.advance((ids.tokens() - tokens) as u64);
        let records = Records(&self.plan.splits);
        let mut batches = states.batch_size().batches(&lengths);
        for member in batches.iter_mut().flatten() {
            *member = first + new[*member];
        }
        let (mut beyond, mut computed) = (None, 0);
        let run = states.run(&batches, &mut |batch| {
            for (index, states) in batch.iter() {
                let first_token = ids.offsets()[index - first];
                for (encoded, &writer) in encoded.iter_mut().zip(&self.shard.writers) {
                    if !encoded.put(first_token, states[writer]) {
                        beyond.get_or_insert(index);
                    }
                }
            }
            progress.advance(batch.tokens() as u64);
            computed += batch.tokens();
            if beyond.is_some() || interrupt::requested() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        run.map_err(|error| records.name(error))?;
        if let Some(index) = beyond {
            return Err(super::Error::OutOfRange {
                record: records.of(index),
                precision: self.precision,
            }
            .into());
        }
        if computed < tokens {
            return Err(Error::Interrupted {
                kept: format!(
                    "{} new shards are kept; the same command goes on where this one stopped",
                    self.computed
                ),
            });
        }
        Ok((encoded, tokens))
    }

    /// Copies to `encoded` what is known of sequence `index` of the shard. Says whether every
    /// writer that lacks the shard knows it.
    fn copy(&self, index: usize, encoded: &mut [EncodedStates]) -> bool {
        let (ids, first_token) = (self.ids.sequence(index), self.ids.offsets()[index]);
        let mut writers = self.shard.writers.iter().zip(encoded);
        writers.all(|(&writer, encoded)| {
            let previous = self.previous[writer].as_ref();
            previous.is_some_and(|previous| previous.copy(ids, first_token, encoded))
        })
    }
}
