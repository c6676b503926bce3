//! The order in which an epoch sees the rows. In blocks it is that of `CorgiPile` (Xu et al.,
//! SIGMOD 2022): blocks of rows that lie side by side in the cache come in an order drawn at
//! random, and the rows of each few blocks that follow each other are mixed.

use std::ops::Range;

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use super::Shuffle;
use crate::cache::{Cache, Split};

/// Bytes of activations in a block: large enough for a disk to spend its time reading and not
/// seeking.
const BLOCK_BYTES: u64 = 8 << 20;

/// Blocks whose rows are mixed.
const WINDOW_BLOCKS: usize = 8;

/// One epoch's rows in order, and what is to be read ahead for them.
#[derive(Debug, Clone, PartialEq)]
pub struct EpochOrder {
    /// Every row of the split once.
    pub rows: Vec<usize>,
    /// In the order in which they are asked for.
    pub read_ahead: Vec<ReadAhead>,
}

/// Sequences side by side in the cache, to be read in one go.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadAhead {
    /// The places in the order for which they are held: asked for before the first is read,
    /// needed no more after the last.
    pub places: Range<usize>,
    /// Which they are.
    pub sequences: Range<usize>,
}

/// Rows whose first sequences lie side by side in the cache.
struct Block {
    rows: Vec<usize>,
    sequences: Range<usize>,
}

impl EpochOrder {
    /// The order of the `split` of `cache` in `epoch`. It depends on the seed, the epoch, the
    /// split and the bytes of the cache's sequences alone, so it is the same on every machine.
    pub fn new(shuffle: Shuffle, cache: &Cache, split: &Split, seed: u64, epoch: usize) -> Self {
        let mut random = random(seed, epoch);
        match shuffle {
            Shuffle::Exact => Self::exact(split.len(), &mut random),
            Shuffle::Block => {
                let token = cache.token_bytes();
                let bytes = |sequence| cache.length(sequence) as u64 * token;
                Self::in_blocks(split, bytes, BLOCK_BYTES, &mut random)
            }
        }
    }

    fn exact(rows: usize, random: &mut ChaCha8Rng) -> Self {
        let mut rows: Vec<usize> = (0..rows).collect();
        rows.shuffle(random);
        Self {
            rows,
            read_ahead: Vec::new(),
        }
    }

    fn in_blocks(
        split: &Split,
        bytes: impl Fn(usize) -> u64,
        block_bytes: u64,
        random: &mut ChaCha8Rng,
    ) -> Self {
        let mut blocks = blocks(split, bytes, block_bytes);
        blocks.shuffle(random);
        let mut order = Self {
            rows: Vec::with_capacity(split.len()),
            read_ahead: Vec::with_capacity(blocks.len()),
        };
        // Nothing comes before the first window: its blocks are all asked for at once.
        let mut before = 0..0;
        for window in blocks.chunks(WINDOW_BLOCKS) {
            let start = order.rows.len();
            order
                .rows
                .extend(window.iter().flat_map(|block| &block.rows));
            order.rows[start..].shuffle(random);
            let end = order.rows.len();
            // While the window before is read, this one's blocks are asked for one by one, so
            // that a batch that waits for the disk never stands behind a whole window.
            let asked = window.iter().enumerate().map(|(number, block)| ReadAhead {
                places: before.start + before.len() * number / window.len()..end,
                sequences: block.sequences.clone(),
            });
            order.read_ahead.extend(asked);
            before = start..end;
        }
        order
    }

    /// The rows in batches of `size`, the last shorter if it must be.
    pub fn batches(&self, size: usize) -> Vec<Vec<usize>> {
        self.rows.chunks(size).map(<[usize]>::to_vec).collect()
    }
}

/// What an epoch's order is drawn from.
fn random(seed: u64, epoch: usize) -> ChaCha8Rng {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(epoch as u64);
    random
}

/// The rows in the order of their first sequences, cut before a block would grow past
/// `block_bytes`; a row that is larger is a block of its own. `bytes` are those of a sequence.
fn blocks(split: &Split, bytes: impl Fn(usize) -> u64, block_bytes: u64) -> Vec<Block> {
    let mut rows: Vec<usize> = (0..split.len()).collect();
    rows.sort_by_key(|&row| (split.sequence(row, 0), row));
    let mut blocks: Vec<Block> = Vec::new();
    let mut filled = 0;
    for row in rows {
        let sequence = split.sequence(row, 0);
        if let Some(block) = blocks.last_mut() {
            // What lies between belongs to other columns or splits, but is read with the block.
            let more: u64 = (block.sequences.end..=sequence).map(&bytes).sum();
            if filled + more <= block_bytes {
                filled += more;
                block.sequences.end = sequence + 1;
                block.rows.push(row);
                continue;
            }
        }
        filled = bytes(sequence);
        blocks.push(Block {
            rows: vec![row],
            sequences: sequence..sequence + 1,
        });
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::{EpochOrder, WINDOW_BLOCKS, blocks, random};
    use crate::cache::Split;
    use crate::targets::Targets;

    const ROWS: usize = 1000;
    const BLOCK: u64 = 100;

    /// Rows of one sequence each, not in the cache's order; every third shares one with a
    /// neighbour.
    fn split() -> Split {
        let sequence = |row: usize| (row * 7 % ROWS) / 3 * 3 + (row * 7 % ROWS) % 3 / 2;
        Split {
            columns: 1,
            rows: (0..ROWS).map(sequence).collect(),
            targets: Targets::None,
        }
    }

    fn bytes(sequence: usize) -> u64 {
        5 + sequence as u64 % 11
    }

    fn order(seed: u64, epoch: usize) -> EpochOrder {
        EpochOrder::in_blocks(&split(), bytes, BLOCK, &mut random(seed, epoch))
    }

    fn is_permutation(rows: &[usize]) {
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        assert_eq!(rows, (0..ROWS).collect::<Vec<_>>());
    }

    #[test]
    fn every_row_once_in_an_order_of_the_seed_and_the_epoch() {
        let exact = |seed, epoch| EpochOrder::exact(ROWS, &mut random(seed, epoch));
        let orders: [&dyn Fn(u64, usize) -> EpochOrder; 2] = [&exact, &order];
        for order in orders {
            is_permutation(&order(1, 0).rows);
            assert_eq!(order(1, 0), order(1, 0));
            assert_ne!(order(1, 0).rows, order(1, 1).rows);
            assert_ne!(order(1, 0).rows, order(2, 0).rows);
        }
        let batches = exact(1, 0).batches(300);
        let sizes: Vec<usize> = batches.iter().map(Vec::len).collect();
        assert_eq!(sizes, [300, 300, 300, 100]);
        assert_eq!(batches.concat(), exact(1, 0).rows);
    }

    #[test]
    fn a_block_is_no_larger_than_it_may_be_and_no_row_is_split() {
        let split = split();
        let blocks = blocks(&split, bytes, BLOCK);
        assert!(blocks.len() > 3 * WINDOW_BLOCKS);
        let rows: Vec<usize> = blocks.iter().flat_map(|block| block.rows.clone()).collect();
        is_permutation(&rows);
        for block in &blocks {
            assert!(block.sequences.clone().map(bytes).sum::<u64>() <= BLOCK);
            let inside = |&row: &usize| block.sequences.contains(&split.sequence(row, 0));
            assert!(block.rows.iter().all(inside));
        }
        // One of them is larger than a block.
        let large = |sequence| {
            if sequence == 0 {
                5 * BLOCK
            } else {
                bytes(sequence)
            }
        };
        let first = &super::blocks(&split, large, BLOCK)[0];
        assert!(first.rows.iter().all(|&row| split.sequence(row, 0) == 0));
    }

    #[test]
    fn a_window_is_eight_blocks_mixed() {
        let (split, order) = (split(), order(3, 2));
        let mut start = 0;
        for window in order.read_ahead.chunks(WINDOW_BLOCKS) {
            let end = window[0].places.end;
            let rows = &order.rows[start..end];
            let block_of = |&row: &usize| {
                let sequence = split.sequence(row, 0);
                let holds = |read: &super::ReadAhead| read.sequences.contains(&sequence);
                window
                    .iter()
                    .position(holds)
                    .expect("a block of its window")
            };
            let of_rows: Vec<usize> = rows.iter().map(block_of).collect();
            let changes = of_rows.windows(2).filter(|two| two[0] != two[1]).count();
            assert!(changes > rows.len() / 2, "{changes} of {}", rows.len());
            // Asked for one by one while the window before is read.
            assert!(window.iter().all(|read| read.places.end == end));
            assert!(window.iter().all(|read| read.places.start <= start));
            assert!(start == 0 || window.is_sorted_by(|a, b| a.places.start < b.places.start));
            start = end;
        }
        assert_eq!(start, ROWS);
        assert!(order.read_ahead.is_sorted_by_key(|read| read.places.start));
        // Blocks themselves come in no order.
        let firsts = order.read_ahead.iter().map(|read| read.sequences.start);
        assert!(!firsts.is_sorted());
    }

    #[test]
    fn pairs_are_read_in_the_order_of_their_first_sequence() {
        let rows = (0..ROWS).flat_map(|row| [2 * row, 2 * row + 1]);
        let split = Split {
            columns: 2,
            rows: rows.collect(),
            targets: Targets::None,
        };
        let order = EpochOrder::in_blocks(&split, |_| 10, BLOCK, &mut random(1, 0));
        is_permutation(&order.rows);
        // What lies between two first sequences counts.
        let longest = order.read_ahead.iter().map(|read| read.sequences.len());
        assert_eq!(longest.max(), Some(9));
    }
}
