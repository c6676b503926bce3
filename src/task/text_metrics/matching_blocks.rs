//! Ratcliff and Obershelp's gestalt pattern matching, as Python's `difflib` does it.

use std::collections::HashMap;
use std::ops::Range;

/// From this many letters on, `difflib` takes those of the second text that occur too often for
/// junk ("autojunk").
const AUTOJUNK: usize = 200;

/// `difflib.SequenceMatcher(None, first, second).ratio()` of two texts: 2 M / T, where M letters
/// are in matching blocks and T are in both texts; 0 to 1, two empty texts are 1. It may change when
/// the texts are swapped.
///
/// The longest block that both have, then the same to the left and to the right of it. Of equally long
/// ones the first in `first` counts, then the first in `second`.
pub fn matching_ratio(first: &str, second: &str) -> f64 {
    let first: Vec<char> = first.chars().collect();
    let second: Vec<char> = second.chars().collect();
    let letters = first.len() + second.len();
    if letters == 0 {
        return 1.0;
    }
    let mut matcher = Matcher::new(&first, &second);
    let mut same = 0;
    let mut open = vec![(0..first.len(), 0..second.len())];
    while let Some((in_first, in_second)) = open.pop() {
        let block = matcher.longest(in_first.clone(), in_second.clone());
        if block.length == 0 {
            continue;
        }
        same += block.length;
        let after = (block.first + block.length, block.second + block.length);
        let sides = [
            (in_first.start..block.first, in_second.start..block.second),
            (after.0..in_first.end, after.1..in_second.end),
        ];
        let both = |(first, second): &(Range<usize>, Range<usize>)| {
            !first.is_empty() && !second.is_empty()
        };
        open.extend(sides.into_iter().filter(both));
    }
    2.0 * same as f64 / letters as f64
}

/// Letters that both texts have in a row.
struct Block {
    first: usize,
    second: usize,
    length: usize,
}

struct Matcher<'a> {
    first: &'a [char],
    second: &'a [char],
    /// Where each letter that is no junk is in the second text.
    places: HashMap<char, Vec<usize>>,
    /// For the last letter of the first text that was looked at, and the one before: how long the block
    /// is that ends with it and with the second text's letter before this place. All 0 between searches.
    lengths: [Vec<usize>; 2],
}

impl<'a> Matcher<'a> {
    fn new(first: &'a [char], second: &'a [char]) -> Self {
        let mut places: HashMap<char, Vec<usize>> = HashMap::new();
        for (place, &letter) in second.iter().enumerate() {
            places.entry(letter).or_default().push(place);
        }
        if second.len() >= AUTOJUNK {
            places.retain(|_, places| places.len() <= second.len() / 100 + 1);
        }
        Self {
            first,
            second,
            places,
            lengths: [vec![0; second.len() + 1], vec![0; second.len() + 1]],
        }
    }

    /// The longest block within both ranges; of length 0 if there is none.
    fn longest(&mut self, in_first: Range<usize>, in_second: Range<usize>) -> Block {
        let mut best = Block {
            first: in_first.start,
            second: in_second.start,
            length: 0,
        };
        let Self {
            first,
            second,
            places,
            lengths: [before, now],
        } = self;
        let within = |letter: &char| -> &[usize] {
            let places = places.get(letter).map_or(&[][..], Vec::as_slice);
            let begin = places.partition_point(|&place| place < in_second.start);
            let end = places.partition_point(|&place| place < in_second.end);
            &places[begin..end]
        };
        let mut written: &[usize] = &[];
        for place in in_first.clone() {
            let found = within(&first[place]);
            for &other in found {
                let length = before[other] + 1;
                now[other + 1] = length;
                if length > best.length {
                    best = Block {
                        first: place + 1 - length,
                        second: other + 1 - length,
                        length,
                    };
                }
            }
            for &other in written {
                before[other + 1] = 0;
            }
            written = found;
            std::mem::swap(before, now);
        }
        for &other in written {
            before[other + 1] = 0;
        }
        // Junk does not begin a block, but may be at either end.
        while best.first > in_first.start
            && best.second > in_second.start
            && first[best.first - 1] == second[best.second - 1]
        {
            best.first -= 1;
            best.second -= 1;
            best.length += 1;
        }
        while best.first + best.length < in_first.end
            && best.second + best.length < in_second.end
            && first[best.first + best.length] == second[best.second + best.length]
        {
            best.length += 1;
        }
        best
    }
}
