//! Which sequences run together: alike in length, up to a budget of tokens.

/// Tokens, padding included, that one batch of the frozen pass may hold on the CPU: what one core
/// works on stays near its caches, and larger products are no faster.
pub const TOKEN_BUDGET: usize = 512;
/// The same on a card, which small products leave idle: sixteen sequences of 512 tokens. A fixed
/// number, not what happens to be free: a run that goes on must form the batches of one that was
/// not disturbed, as kernels are chosen by shape. Not measured: nothing has run on a card.
pub const CUDA_TOKEN_BUDGET: usize = 8192;

/// How much runs together at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSize {
    /// Tokens, padding included; a single sequence may exceed it.
    pub tokens: usize,
    /// Sequences.
    pub rows: usize,
}

impl BatchSize {
    /// So many tokens in any number of sequences.
    pub fn of_tokens(tokens: usize) -> Self {
        Self {
            tokens,
            rows: usize::MAX,
        }
    }

    /// Groups the sequences `lengths` into batches of this size, longest first. The order depends on
    /// nothing but `lengths`, so that a resumed run forms the same batches.
    pub fn batches(self, lengths: &[usize]) -> Vec<Vec<usize>> {
        let mut order: Vec<usize> = (0..lengths.len()).collect();
        order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
        let mut batches: Vec<Vec<usize>> = Vec::new();
        let mut room = 0;
        for index in order {
            if room == 0 {
                batches.push(Vec::new());
                room = (self.tokens / lengths[index].max(1)).clamp(1, self.rows.max(1));
            }
            if let Some(batch) = batches.last_mut() {
                batch.push(index);
            }
            room -= 1;
        }
        batches
    }
}

/// [`BatchSize::batches`] of at most `budget` tokens.
pub fn by_token_budget(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    BatchSize::of_tokens(budget).batches(lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_sequence_once_within_the_budget() {
        let lengths = [5, 9, 1, 40, 7, 7, 2];
        let batches = by_token_budget(&lengths, 20);
        let mut seen: Vec<usize> = batches.iter().flatten().copied().collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..lengths.len()).collect::<Vec<_>>());
        for batch in &batches {
            let longest = batch.iter().map(|&index| lengths[index]).max().unwrap_or(0);
            assert!(batch.len() == 1 || longest * batch.len() <= 20);
        }
        assert_eq!(batches[0], [3]);
        assert_eq!(batches[1], [1, 4]);
    }

    #[test]
    fn no_batch_has_more_rows_than_are_allowed() {
        let size = BatchSize {
            tokens: 100,
            rows: 2,
        };
        assert_eq!(
            size.batches(&[3, 3, 3, 3, 3]),
            [vec![0, 1], vec![2, 3], vec![4]]
        );
    }

    #[test]
    fn nothing_gives_no_batches() {
        assert!(by_token_budget(&[], 8).is_empty());
    }
}
