//! MPNet's relative positions: how far apart two tokens are, in buckets.

/// How many buckets there are, half of them for keys that come after the query.
pub(super) const RELATIVE_BUCKETS: usize = 32;

/// Buckets of one direction.
const HALF: usize = RELATIVE_BUCKETS / 2;
/// Distances below this have a bucket each.
const EXACT: u64 = 8;

/// The bucket of a key that lies `distance` tokens after its query (before it when negative),
/// as T5 (Raffel et al., 2020) has it: a bucket each up to 7 tokens, from there on one for each
/// factor of √2, the last one for everything from 91 tokens on.
///
/// The definition is `8 + ⌊8 ln(n / 8) / ln(128 / 8)⌋`, which is `2 + ⌊log₂ n²⌋`. In whole
/// numbers there is no rounding at n = 16, 32 and 64, where a bucket starts.
#[allow(clippy::cast_possible_truncation, reason = "small numbers")]
pub fn relative_position_bucket(distance: i64) -> usize {
    let apart = distance.unsigned_abs();
    let bucket = if apart < EXACT {
        apart as usize
    } else {
        // Saturating: far beyond the last bucket's start it does not matter how far.
        (2 + apart.saturating_mul(apart).ilog2() as usize).min(HALF - 1)
    };
    if distance > 0 { HALF + bucket } else { bucket }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_widen_with_distance_and_mirror() {
        let starts = [0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 16, 23, 32, 46, 64, 91];
        for (bucket, start) in starts.into_iter().enumerate() {
            assert_eq!(relative_position_bucket(-start), bucket);
            if start > 0 {
                assert_eq!(relative_position_bucket(1 - start), bucket - 1);
                assert_eq!(relative_position_bucket(start), HALF + bucket);
            }
        }
        assert_eq!(relative_position_bucket(i64::MIN), HALF - 1);
        assert_eq!(relative_position_bucket(i64::MAX), RELATIVE_BUCKETS - 1);
    }
}
