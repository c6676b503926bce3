//! Which sequences run together: alike in length, up to a budget of tokens.

/// Tokens, padding included, that one batch of the frozen pass may hold: what one core works on
/// stays near its caches, and larger products are no faster.
pub const TOKEN_BUDGET: usize = 512;

/// Groups the sequences `lengths` into batches of at most `budget` tokens, padding included,
/// longest first; a single sequence may exceed the budget. The order depends on nothing but
/// `lengths`, so that a resumed run forms the same batches.
pub fn by_token_budget(lengths: &[usize], budget: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..lengths.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(lengths[index]));
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut room = 0;
    for index in order {
        if room == 0 {
            batches.push(Vec::new());
            room = (budget / lengths[index].max(1)).max(1);
        }
        if let Some(batch) = batches.last_mut() {
            batch.push(index);
        }
        room -= 1;
    }
    batches
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
    fn nothing_gives_no_batches() {
        assert!(by_token_budget(&[], 8).is_empty());
    }
}
