//! Probes that find what belongs together.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::loss::cross_entropy;
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use super::mixture::{Mixture, add_weights};
use super::scaling::Scaling;
use super::training::{ProbeSettings, fit};
use super::{Features, Readings, Scores};
use crate::study::Error;
use crate::task::{
    NO_NEGATIVE, SCORE_SCALE, average_precisions_at_r, normalise, rank_of, similarity,
};

/// What belongs together.
#[derive(Debug, Clone, PartialEq)]
pub enum Paired {
    /// Example i of the first with example i of the second. Those of equal `groups` cannot be told
    /// apart, and are not told from each other.
    Sides {
        /// What is looked for with.
        queries: Features,
        /// What is looked for.
        codes: Features,
        /// Of each pair.
        groups: Vec<i64>,
    },
    /// All of a group with each other.
    Groups {
        /// Each example once.
        features: Features,
        /// Of each example.
        groups: Vec<i64>,
    },
}

impl Paired {
    fn first(&self) -> &Features {
        match self {
            Self::Sides { queries, .. } => queries,
            Self::Groups { features, .. } => features,
        }
    }

    /// On a scale for each of its features.
    fn scaled(self, scalings: &[Scaling]) -> Self {
        match self {
            Self::Sides {
                queries,
                codes,
                groups,
            } => Self::Sides {
                queries: scalings[0].applied(queries),
                codes: scalings[1].applied(codes),
                groups,
            },
            Self::Groups { features, groups } => Self::Groups {
                features: scalings[0].applied(features),
                groups,
            },
        }
    }

    fn groups(&self) -> &[i64] {
        match self {
            Self::Sides { groups, .. } | Self::Groups { groups, .. } => groups,
        }
    }

    /// As tensors `[examples, layers, width]`: the queries, and the codes if they are others.
    fn into_tensors(self) -> Result<(Tensor, Option<Tensor>), Error> {
        Ok(match self {
            Self::Sides { queries, codes, .. } => {
                (queries.into_tensor()?, Some(codes.into_tensor()?))
            }
            Self::Groups { features, .. } => (features.into_tensor()?, None),
        })
    }
}

/// One square map for each of the model's layers, and one over their mixture.
struct VectorProbes {
    /// `[layers, width, width]`.
    weight: Var,
    mixture: Mixture,
    /// `[width, width]`.
    mixed_weight: Var,
}

impl VectorProbes {
    /// They begin as what changes nothing: an untrained probe compares the features themselves.
    fn new(layers: usize, width: usize) -> Result<Self, Error> {
        let identity = Tensor::eye(width, DType::F32, &Device::Cpu)?;
        let repeated = identity.unsqueeze(0)?.repeat((layers, 1, 1))?;
        Ok(Self {
            weight: Var::from_tensor(&repeated)?,
            mixture: Mixture::new(layers, width)?,
            mixed_weight: Var::from_tensor(&identity)?,
        })
    }

    fn variables(&self) -> Vec<Var> {
        let own = [&self.weight, &self.mixed_weight].into_iter().cloned();
        own.chain(self.mixture.variables()).collect()
    }

    /// Unit vectors of `features` `[examples, layers, width]`: `[layers + 1, examples, width]`, the
    /// mixture's last.
    fn vectors(&self, features: &Tensor) -> Result<Tensor, Error> {
        let layers = features.transpose(0, 1)?.contiguous()?;
        let layers = layers.matmul(&self.weight)?;
        let mixed = self.mixture.mix(features)?.matmul(&self.mixed_weight)?;
        let all = Tensor::cat(&[layers, mixed.unsqueeze(0)?], 0)?;
        Ok(normalise(&all)?)
    }

    /// The sum over all probes of the cross-entropy of each query's own code among those of the batch,
    /// from cosines · 20 (the loss of `UniXcoder`'s recipes). `others` `[batch, batch]` is 0 where a
    /// code counts, else far below.
    fn loss(&self, queries: &Tensor, codes: &Tensor, others: &Tensor) -> Result<Tensor, Error> {
        let codes = self.vectors(codes)?.transpose(1, 2)?;
        let scores = (self.vectors(queries)?.matmul(&codes)? * SCORE_SCALE)?;
        let scores = scores.broadcast_add(others)?;
        let (probes, batch, _) = scores.dims3()?;
        let own = Tensor::arange(0, batch as i64, &Device::Cpu)?.repeat(probes)?;
        Ok((cross_entropy(&scores.flatten(0, 1)?, &own)? * probes as f64)?)
    }
}

/// Trains probes on `train`, and tells on `test` the reciprocal rank of each query's code among all, or for
/// groups the average precision at R of each example; `label` stands before the progress.
///
/// # Panics
/// If there is nothing to test on.
pub fn probe_vectors(
    train: Paired,
    test: Paired,
    settings: &ProbeSettings,
    label: &str,
) -> Result<Readings, Error> {
    assert!(!test.groups().is_empty(), "something to test on");
    let scaling = Scaling::of(train.first());
    let scalings = match &train {
        Paired::Sides { codes, .. } => vec![scaling, Scaling::of(codes)],
        Paired::Groups { .. } => vec![scaling],
    };
    let [train, test] = [train, test].map(|split| split.scaled(&scalings));
    let (layers, width) = (train.first().layers(), train.first().width());
    let probes = VectorProbes::new(layers, width)?;
    learn(&probes, train, settings, label)?;
    let groups = test.groups().to_vec();
    let (queries, codes) = test.into_tensors()?;
    let mut sums = vec![0.0; layers];
    let mut weigh = |features: &Tensor| add_weights(&mut sums, &probes.mixture.weights(features)?);
    weigh(&queries)?;
    let mut weighed = groups.len();
    if let Some(codes) = &codes {
        weigh(codes)?;
        weighed += groups.len();
    }
    let queries = probes.vectors(&queries)?;
    let codes = codes.map(|codes| probes.vectors(&codes)).transpose()?;
    let mut readings = Vec::with_capacity(layers + 1);
    for probe in 0..=layers {
        let queries = queries.get(probe)?;
        readings.push(match &codes {
            Some(codes) => reciprocal_ranks(&queries, &codes.get(probe)?, &groups)?,
            None => Scores::new(average_precisions_at_r(&queries, &groups)?),
        });
    }
    let mixed = readings.pop();
    let mixed = mixed.unwrap_or_else(|| unreachable!("there is one after those of layers"));
    let weights = sums.into_iter().map(|sum| sum / weighed as f64);
    Ok(Readings {
        layers: readings,
        mixed,
        weights: weights.collect(),
    })
}

fn learn(
    probes: &VectorProbes,
    train: Paired,
    settings: &ProbeSettings,
    label: &str,
) -> Result<(), Error> {
    let groups = train.groups().to_vec();
    let partners = Partners::new(&groups);
    let (queries, codes) = train.into_tensors()?;
    let chosen = |batch: &[u32], random: &mut ChaCha8Rng| -> Vec<u32> {
        if codes.is_some() {
            return batch.to_vec();
        }
        let examples = batch.iter();
        examples
            .map(|&example| partners.draw(example as usize, random))
            .collect()
    };
    let variables = probes.variables();
    fit(variables, groups.len(), settings, label, |batch, random| {
        let other = chosen(batch, random);
        let others = others(batch, &other, &groups)?;
        let batch = Tensor::new(batch, &Device::Cpu)?;
        let other = Tensor::new(other, &Device::Cpu)?;
        let of_codes = codes.as_ref().unwrap_or(&queries);
        probes.loss(
            &queries.index_select(&batch, 0)?,
            &of_codes.index_select(&other, 0)?,
            &others,
        )
    })
}

/// The examples of each group.
struct Partners {
    groups: Vec<Vec<u32>>,
    /// Of each example its group, and its place in it.
    places: Vec<(usize, usize)>,
}

impl Partners {
    fn new(groups: &[i64]) -> Self {
        let mut numbers: HashMap<i64, usize> = HashMap::new();
        let mut members: Vec<Vec<u32>> = Vec::new();
        let mut places = Vec::with_capacity(groups.len());
        for (example, group) in (0..).zip(groups) {
            let number = *numbers.entry(*group).or_insert(members.len());
            if number == members.len() {
                members.push(Vec::new());
            }
            places.push((number, members[number].len()));
            members[number].push(example);
        }
        Self {
            groups: members,
            places,
        }
    }

    /// Another of `example`'s group; itself where it is alone.
    fn draw(&self, example: usize, random: &mut ChaCha8Rng) -> u32 {
        let (group, place) = self.places[example];
        let members = &self.groups[group];
        let further = match members.len() {
            1 => 0,
            count => random.random_range(1..count),
        };
        members[(place + further) % members.len()]
    }
}

/// `[batch, batch]`: far below 0 where a code is not the query's own, but of its group.
fn others(batch: &[u32], codes: &[u32], groups: &[i64]) -> Result<Tensor, Error> {
    let numbers = batch.iter().enumerate().flat_map(|(row, &query)| {
        codes.iter().enumerate().map(move |(column, &code)| {
            let same = groups[query as usize] == groups[code as usize];
            if same && row != column {
                NO_NEGATIVE
            } else {
                0.0
            }
        })
    });
    let size = batch.len();
    Ok(Tensor::from_vec(
        numbers.collect(),
        (size, size),
        &Device::Cpu,
    )?)
}

/// Of unit vectors `[examples, width]`; codes of equal `groups` are the same code.
fn reciprocal_ranks(queries: &Tensor, codes: &Tensor, groups: &[i64]) -> Result<Scores, Error> {
    /// Queries scored at a time.
    const QUERIES: usize = 64;
    let mut ranks = Vec::with_capacity(groups.len());
    for start in (0..groups.len()).step_by(QUERIES) {
        let rows = QUERIES.min(groups.len() - start);
        let scores = similarity(&queries.narrow(0, start, rows)?, codes)?;
        for (row, scores) in (start..).zip(scores.to_vec2::<f32>()?) {
            ranks.push(rank_of(row, &scores, |other| groups[other] == groups[row]));
        }
    }
    let scores = ranks.into_iter().map(|rank| 1.0 / rank as f64);
    Ok(Scores::new(scores.map(Some)))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn a_partner_is_another_of_the_group() {
        let partners = Partners::new(&[5, 7, 5, 5, 9]);
        let mut random = ChaCha8Rng::seed_from_u64(1);
        let mut drawn: Vec<u32> = (0..50).map(|_| partners.draw(2, &mut random)).collect();
        drawn.sort_unstable();
        drawn.dedup();
        assert_eq!(drawn, [0, 3]);
        assert_eq!(partners.draw(4, &mut random), 4);
    }
}
