//! Running the frozen half, shard by shard.

use crate::cache::Writer;
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
    for (written, (number, range)) in missing.iter().enumerate() {
        let members: Vec<usize> = range.clone().collect();
        let ids = sequences.gather(&members);
        let hidden = match &mut frozen {
            Some(frozen) => run_shard(frozen, &ids, &mut progress, written)?,
            None => Vec::new(),
        };
        writer.write_shard(*number, &ids, &hidden)?;
    }
    Ok(tokens)
}

/// Hidden states of all of `ids`, `[tokens, hidden]`, in their order.
fn run_shard(
    frozen: &mut FrozenEncoder,
    ids: &Ragged<u32>,
    progress: &mut Progress,
    written: usize,
) -> Result<Vec<f32>, Error> {
    let width = frozen.hidden_size();
    let mut hidden = vec![0.0; ids.tokens() * width];
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
            let start = ids.offsets()[index] * width;
            hidden[start..start + states.len()].copy_from_slice(states);
        })?;
        let tokens: usize = batch.iter().map(|&index| lengths[index]).sum();
        progress.advance(tokens as u64);
    }
    Ok(hidden)
}
