//! Running the frozen half, shard by shard.

use std::sync::mpsc::sync_channel;

use crate::cache::{Precision, Writer};
use crate::error::Error;
use crate::frozen::{FrozenEncoder, TOKEN_BUDGET, by_token_budget};
use crate::interrupt;
use crate::progress::Progress;
use crate::ragged::Ragged;

/// Computes and publishes every shard that `writer` still lacks. `frozen` is absent when nothing
/// is frozen and the cache holds token ids alone. Returns the tokens that were computed.
pub fn fill(
    writer: &mut Writer,
    sequences: &Ragged<u32>,
    mut frozen: Option<&mut FrozenEncoder>,
) -> Result<usize, Error> {
    let missing = writer.missing();
    let tokens = missing.iter().flat_map(|(_, range)| range.clone());
    let tokens: usize = tokens.map(|index| sequences.length(index)).sum();
    let mut progress = Progress::new("precompute", tokens as u64, "tokens");
    let precision = writer.precision();
    std::thread::scope(|scope| {
        // A shard is written while the next is computed.
        let (sender, receiver) = sync_channel::<(usize, Ragged<u32>, Vec<u8>)>(0);
        let writing = scope.spawn(move || -> Result<(), Error> {
            for (number, ids, hidden) in receiver {
                writer.write_shard(number, &ids, &hidden)?;
            }
            Ok(())
        });
        let compute = || -> Result<(), Error> {
            for (computed, (number, range)) in missing.iter().enumerate() {
                let members: Vec<usize> = range.clone().collect();
                let ids = sequences.gather(&members);
                let hidden = match (&mut frozen, precision) {
                    (Some(frozen), Some(precision)) => {
                        run_shard(frozen, &ids, precision, &mut progress, computed)?
                    }
                    _ => Vec::new(),
                };
                if sender.send((*number, ids, hidden)).is_err() {
                    // The writer has failed, and says why below.
                    break;
                }
            }
            drop(sender);
            Ok(())
        };
        let computed = compute();
        match writing.join() {
            Ok(result) => result?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        computed
    })?;
    Ok(tokens)
}

/// Hidden states of all of `ids`, `[tokens, hidden]`, in their order, as bytes in `precision`.
fn run_shard(
    frozen: &mut FrozenEncoder,
    ids: &Ragged<u32>,
    precision: Precision,
    progress: &mut Progress,
    written: usize,
) -> Result<Vec<u8>, Error> {
    let size = frozen.hidden_size() * precision.bytes();
    let mut hidden = vec![0; ids.tokens() * size];
    let lengths: Vec<usize> = (0..ids.len()).map(|index| ids.length(index)).collect();
    for batch in by_token_budget(&lengths, TOKEN_BUDGET) {
        if interrupt::requested() {
            return Err(Error::Interrupted {
                kept: format!(
                    "{written} new shards are kept; the same command goes on where this one stopped"
                ),
            });
        }
        frozen.run(ids, &batch, |index, states| {
            let start = ids.offsets()[index] * size;
            let bytes = states.len() * precision.bytes();
            precision.encode(states, &mut hidden[start..start + bytes]);
        })?;
        let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
        progress.advance(tokens as u64);
    }
    Ok(hidden)
}
