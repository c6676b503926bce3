//! Two checkpoints, compared at one layer.

use serde::Serialize;

use super::bootstrap::interval;
use super::cka::{Centred, alignments};
use super::similarity::{Pairs, Standardized, pearson, pearson_resampled};
use super::{Error, Resamples};

/// Two texts make one pair, and of one pair there is no correlation.
pub const LEAST_TEXTS: usize = 3;
/// Their pairs are numbered in 32 bits.
pub const MOST_TEXTS: usize = 1 << 16;

/// A number, and how sure it is.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Estimate {
    /// Of the texts as they are.
    pub value: f64,
    /// The 95 % interval over resampled texts; none without resamples.
    pub interval: Option<[f64; 2]>,
}

/// How alike two checkpoints are at one layer. A number is absent where it is not defined.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerSimilarity {
    /// Pearson's correlation of the cosines of all pairs of texts.
    pub pearson: Option<Estimate>,
    /// Spearman's: that of their ranks. Resamples have the ranks among all pairs.
    pub spearman: Option<Estimate>,
    /// Linear centred kernel alignment.
    pub cka: Option<Estimate>,
    /// Which of the two finds every pair of texts equally alike, so that there is no correlation.
    pub alike: [bool; 2],
}

/// Compares two models by their `vectors` of the same texts, `[texts, width]` each; the widths may
/// differ.
///
/// # Panics
/// If there are not as many vectors as `resamples` has texts.
pub fn compare(vectors: [&[f32]; 2], resamples: &Resamples) -> Result<LayerSimilarity, Error> {
    let texts = resamples.texts();
    if !(LEAST_TEXTS..=MOST_TEXTS).contains(&texts) {
        return Err(Error::Texts { found: texts });
    }
    for vectors in vectors {
        assert_eq!(vectors.len() % texts, 0, "a vector a text");
    }
    let [x, y] = vectors.map(|vectors| Pairs::cosines(vectors, texts));
    let correlated = [x.standardized(), y.standardized()];
    let alike = correlated.each_ref().map(Option::is_none);
    let pearson = match &correlated {
        [Some(x), Some(y)] => Some(correlate(x, y, resamples)),
        _ => None,
    };
    let spearman = pearson.and_then(|_| {
        let [x, y] = [x.into_ranks(), y.into_ranks()];
        let (x, y) = (x.standardized()?, y.standardized()?);
        Some(correlate(&x, &y, resamples))
    });
    let [x, y] = vectors.map(|vectors| Centred::new(vectors, texts));
    let cka = x.zip(y).map(|(x, y)| {
        let (value, drawn) = alignments(&x, &y, resamples);
        let interval = interval(&drawn);
        Estimate { value, interval }
    });
    Ok(LayerSimilarity {
        pearson,
        spearman,
        cka,
        alike,
    })
}

fn correlate(x: &Standardized, y: &Standardized, resamples: &Resamples) -> Estimate {
    let drawn = match resamples.columns() {
        1 => Vec::new(),
        _ => pearson_resampled(x, y, resamples),
    };
    Estimate {
        value: pearson(x, y),
        interval: interval(&drawn),
    }
}
