//! Ways to break the content of a file.

use std::fmt;

use proptest::prelude::*;
use proptest::sample::Index;

/// Put in the place of numbers: none is what stood there.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "2",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e19",
    "1e999",
    "0.5",
    "NaN",
    "null",
    "\"x\"",
];

/// One way to break a file.
#[derive(Debug, Clone)]
enum Mutation {
    FlipBit(Index, u8),
    Truncate(Index),
    Remove(Index, u8),
    /// So many bytes from one place, over those at another.
    Splice(Index, Index, u8),
    Insert(Index, Vec<u8>),
    /// Another number in the place of this run of digits.
    Number(Index, Index),
    /// Eight bytes overwritten.
    Word(Index, u64),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        if length < 8 {
            return;
        }
        match self {
            Self::FlipBit(place, bit) => bytes[place.index(length)] ^= 1 << bit,
            Self::Truncate(place) => bytes.truncate(place.index(length)),
            Self::Remove(place, count) => {
                let start = place.index(length);
                bytes.drain(start..length.min(start + usize::from(*count)));
            }
            Self::Splice(from, to, count) => {
                let count = usize::from(*count).min(length);
                let from = from.index(length - count + 1);
                let to = to.index(length - count + 1);
                bytes.copy_within(from..from + count, to);
            }
            Self::Insert(place, inserted) => {
                let place = place.index(length);
                bytes.splice(place..place, inserted.iter().copied());
            }
            Self::Number(place, number) => {
                let runs = runs_of_digits(bytes);
                if !runs.is_empty() {
                    let run = runs[place.index(runs.len())].clone();
                    bytes.splice(run, number.get(&NUMBERS).bytes());
                }
            }
            Self::Word(place, word) => {
                let place = place.index(length - 7);
                bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

fn runs_of_digits(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let digit = |place: usize| bytes.get(place).is_some_and(u8::is_ascii_digit);
    let starts =
        (0..bytes.len()).filter(|&place| digit(place) && (place == 0 || !digit(place - 1)));
    let runs = starts.map(|start| {
        let length = bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        start..start + length.count()
    });
    runs.collect()
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<Index>;
    let word = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        Just(f64::NAN.to_bits()),
        (0u32..64).prop_map(|bit| 1u64 << bit),
        any::<u64>(),
    ];
    prop_oneof![
        3 => (place(), 0u8..8).prop_map(|(place, bit)| Mutation::FlipBit(place, bit)),
        1 => place().prop_map(Mutation::Truncate),
        1 => (place(), any::<u8>()).prop_map(|(place, count)| Mutation::Remove(place, count)),
        2 => (place(), place(), any::<u8>())
            .prop_map(|(from, to, count)| Mutation::Splice(from, to, count)),
        1 => (place(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(place, bytes)| Mutation::Insert(place, bytes)),
        5 => (place(), place()).prop_map(|(place, number)| Mutation::Number(place, number)),
        2 => (place(), word).prop_map(|(place, word)| Mutation::Word(place, word)),
    ]
}

/// What a file is made to hold.
#[derive(Clone)]
pub(crate) struct Input(pub(crate) Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One of the `valid` contents, broken in one to four ways; now and then bytes at random.
pub(crate) fn input(valid: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let mutated = (any::<Index>(), prop::collection::vec(mutation(), 1..5));
    let mutated = mutated.prop_map(move |(which, mutations)| {
        let mut bytes = which.get(&valid).clone();
        for mutation in mutations {
            mutation.apply(&mut bytes);
        }
        bytes
    });
    let random = prop::collection::vec(any::<u8>(), 0..600);
    prop_oneof![19 => mutated, 1 => random].prop_map(Input)
}
