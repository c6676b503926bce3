//! Another row of its group for each row: what is learnt of groups.

use std::collections::HashMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::cache::Split;
use crate::targets::Targets;

/// The rows of `split`, of one sequence each, that have another of their group.
pub fn with_partners(split: &Split) -> Split {
    let members = members(split);
    let groups = split.targets.classes();
    let rows = (0..split.len()).filter(|&row| members[&groups[row]].len() > 1);
    let rows: Vec<usize> = rows.collect();
    Split {
        columns: split.columns,
        targets: split.targets.of_rows(&rows),
        rows: rows.iter().map(|&row| split.rows[row]).collect(),
    }
}

/// The rows of `split`, each with a second sequence: that of another row of its group, drawn with
/// `seed` for this `epoch`.
///
/// # Panics
/// If a row has no other of its group: see [`with_partners`].
pub fn draw_partners(split: &Split, seed: u64, epoch: usize) -> Split {
    let members = members(split);
    // Not what the epoch's order is drawn from.
    let mut random = ChaCha8Rng::seed_from_u64(!seed);
    random.set_stream(epoch as u64);
    let groups = split.targets.classes();
    let rows = (0..split.len()).flat_map(|row| {
        let group = &members[&groups[row]];
        let own = group.partition_point(|&other| other < row);
        // Of all but itself.
        let drawn = random.random_range(0..group.len() - 1);
        let partner = group[drawn + usize::from(drawn >= own)];
        [split.rows[row], split.rows[partner]]
    });
    Split {
        columns: 2,
        rows: rows.collect(),
        targets: Targets::Classes(groups.to_vec()),
    }
}

/// Each group's rows, in order.
fn members(split: &Split) -> HashMap<i64, Vec<usize>> {
    let mut members: HashMap<i64, Vec<usize>> = HashMap::new();
    for (row, group) in split.targets.classes().iter().enumerate() {
        members.entry(*group).or_default().push(row);
    }
    members
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partner_is_another_row_of_the_group() {
        let split = Split {
            columns: 1,
            rows: (10..22).collect(),
            targets: Targets::Classes(vec![0, 1, 2, 0, 1, 0, 3, 1, 0, 1, 3, 0]),
        };
        // Group 2 has one row only.
        let split = with_partners(&split);
        assert_eq!(split.len(), 11);
        assert!(!split.rows.contains(&12));
        let mut drawn = std::collections::HashSet::new();
        for epoch in 0..50 {
            let pairs = draw_partners(&split, 7, epoch);
            assert_eq!(pairs, draw_partners(&split, 7, epoch));
            assert_eq!((pairs.columns, pairs.len()), (2, 11));
            for row in 0..11 {
                let (own, partner) = (pairs.sequence(row, 0), pairs.sequence(row, 1));
                assert_eq!(own, split.rows[row]);
                assert_ne!(own, partner);
                let place = split.rows.iter().position(|&other| other == partner);
                let classes = split.targets.classes();
                assert_eq!(classes[place.expect("a row")], classes[row]);
                drawn.insert((own, partner));
            }
        }
        // Every pair of a group, in both directions: 5 · 4 + 4 · 3 + 2 · 1.
        assert_eq!(drawn.len(), 34);
        assert_ne!(draw_partners(&split, 7, 0), draw_partners(&split, 7, 1));
        assert_ne!(draw_partners(&split, 7, 0), draw_partners(&split, 8, 0));
    }
}
