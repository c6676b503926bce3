//! What runs with different numbers of frozen layers came to, side by side.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::paired::{PairedTest, mean_and_deviation};
use crate::checkpoint::Freeze;
use crate::task::less_is_better;

/// A difference of which chance alone would make one as large less often than this is taken for one.
const SIGNIFICANT: f64 = 0.05;

/// What a cache cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheCost {
    /// Of which K.
    pub freeze: Freeze,
    /// Seconds of the pass that filled it.
    pub seconds: f64,
    /// Caches that the pass filled.
    pub caches: usize,
    /// Bytes on disk.
    pub bytes: u64,
}

/// A finished run.
#[derive(Debug, Clone, PartialEq)]
pub struct SweptRun {
    /// Its K.
    pub freeze: Freeze,
    /// Its peak learning rate.
    pub lr: f64,
    /// Its seed.
    pub seed: u64,
    /// What is in its `summary.json`.
    pub summary: Map<String, Value>,
}

impl SweptRun {
    fn number(&self, name: &str) -> f64 {
        self.summary
            .get(name)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    }

    fn metric(&self, split: &str, name: &str) -> Option<f64> {
        self.summary.get(split)?.get(name)?.as_f64()
    }
}

/// A metric over seeds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation, with one fewer than there are as divisor.
    pub standard_deviation: f64,
}

/// All seeds of one K and one learning rate.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// K.
    pub freeze: Freeze,
    /// Peak learning rate.
    pub lr: f64,
    /// The seeds, in their order.
    pub seeds: Vec<u64>,
    /// Numbers that are trained.
    pub trainable_parameters: f64,
    /// What its cache cost.
    pub cache: CacheCost,
    /// Seconds of an epoch's steps, the mean over the seeds.
    pub epoch_seconds: f64,
    /// Seconds of training with evaluation, the mean over the seeds.
    pub train_seconds: f64,
    /// Peak memory of a training process, the most of any seed; bytes.
    pub peak_rss_bytes: f64,
    /// The metric on the validation split, if there is one.
    pub valid: Option<Spread>,
    /// The metric on the test split, if there is one.
    pub test: Option<Spread>,
    /// Whether this is its K's best learning rate.
    pub best_lr: bool,
    /// The same seeds of this row and of the base, on the split that is compared; none of the base
    /// itself, and of fewer than two seeds.
    pub against_base: Option<PairedTest>,
}

/// The rows of a sweep.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    /// The metric that is compared.
    pub metric: String,
    /// The split that it is compared on: `test` where there is one.
    pub split: &'static str,
    /// What the others are compared with: nothing frozen, or the fewest layers that are.
    pub base: Freeze,
    /// By K, then by learning rate.
    pub rows: Vec<Row>,
}

impl Table {
    /// Of `runs`, which are judged by `metric`, over `caches`. Each K is judged at the learning rate
    /// whose mean is best on the validation split, or where there is none on the test split. None where
    /// nothing is finished.
    pub fn new(metric: &str, runs: &[SweptRun], caches: &[CacheCost]) -> Option<Self> {
        let on_test = runs.iter().all(|run| run.metric("test", metric).is_some());
        let on_valid = runs.iter().all(|run| run.metric("valid", metric).is_some());
        let split = if on_test { "test" } else { "valid" };
        let chooser = if on_valid { "valid" } else { "test" };
        let mut cells: Vec<(Freeze, f64)> = runs.iter().map(|run| (run.freeze, run.lr)).collect();
        cells.sort_by(|one, other| {
            depth(one.0)
                .cmp(&depth(other.0))
                .then(one.1.total_cmp(&other.1))
        });
        cells.dedup();
        let base = cells.first()?.0;
        let of = |(freeze, lr): (Freeze, f64)| -> Vec<&SweptRun> {
            let same = runs
                .iter()
                .filter(|run| run.freeze == freeze && run.lr.total_cmp(&lr).is_eq());
            let mut same: Vec<&SweptRun> = same.collect();
            same.sort_by_key(|run| run.seed);
            same
        };
        let score = |cell: (Freeze, f64)| {
            let mean = spread(&of(cell), chooser, metric).map_or(f64::NAN, |spread| spread.mean);
            if less_is_better(metric) { -mean } else { mean }
        };
        let best_lr = |freeze: Freeze| {
            let same = cells.iter().filter(|cell| cell.0 == freeze);
            let better = |one: &&(Freeze, f64), other: &&(Freeze, f64)| {
                worse_first(score(**one), score(**other))
            };
            same.max_by(better).map(|cell| cell.1)
        };
        let base_runs = of((base, best_lr(base)?));
        let rows = cells.iter().filter_map(|&(freeze, lr)| {
            let same = of((freeze, lr));
            let cache = caches.iter().find(|cache| cache.freeze == freeze)?;
            let pairs: Vec<(f64, f64)> = same
                .iter()
                .filter_map(|run| {
                    let other = base_runs.iter().find(|other| other.seed == run.seed)?;
                    Some((run.metric(split, metric)?, other.metric(split, metric)?))
                })
                .collect();
            let count = same.len() as f64;
            let mean = |name: &str| same.iter().map(|run| run.number(name)).sum::<f64>() / count;
            Some(Row {
                freeze,
                lr,
                seeds: same.iter().map(|run| run.seed).collect(),
                trainable_parameters: same[0].number("trainable_parameters"),
                cache: cache.clone(),
                epoch_seconds: mean("epoch_seconds"),
                train_seconds: mean("seconds"),
                peak_rss_bytes: same
                    .iter()
                    .map(|run| run.number("peak_rss_bytes"))
                    .fold(f64::NAN, f64::max),
                valid: spread(&same, "valid", metric),
                test: spread(&same, "test", metric),
                best_lr: best_lr(freeze) == Some(lr),
                against_base: PairedTest::new(&pairs).filter(|_| freeze != base),
            })
        });
        Some(Self {
            metric: metric.into(),
            split,
            base,
            rows: rows.collect(),
        })
    }

    /// Whether `row` is significantly worse than the base; none where that was not tested.
    pub fn is_worse(&self, row: &Row) -> Option<bool> {
        let test = row.against_base?;
        let worse = if less_is_better(&self.metric) {
            test.difference > 0.0
        } else {
            test.difference < 0.0
        };
        Some(worse && test.p_value < SIGNIFICANT)
    }

    /// The row with the shortest epochs that is not significantly worse than the base, each K at its
    /// best learning rate.
    pub fn cheapest_not_worse(&self) -> Option<&Row> {
        let candidates = self.rows.iter().filter(|row| row.best_lr);
        let good = candidates.filter(|row| self.is_worse(row) == Some(false));
        good.min_by(|one, other| one.epoch_seconds.total_cmp(&other.epoch_seconds))
    }

    /// All of it.
    pub fn to_json(&self) -> Map<String, Value> {
        let rows: Vec<Value> = self.rows.iter().map(|row| self.row_json(row)).collect();
        let cheapest = self
            .cheapest_not_worse()
            .map(|row| json!({ "freeze": row.freeze, "lr": row.lr }));
        let value = json!({
            "metric": self.metric,
            "split": self.split,
            "base": self.base,
            "rows": rows,
            "cheapest_not_worse": cheapest,
        });
        match value {
            Value::Object(map) => map,
            _ => unreachable!("an object"),
        }
    }

    fn row_json(&self, row: &Row) -> Value {
        let spread = |spread: Option<Spread>| {
            spread.map(
                |Spread {
                     mean,
                     standard_deviation,
                 }| {
                    json!({ "mean": mean, "standard_deviation": standard_deviation })
                },
            )
        };
        let test = row.against_base.map(|test| {
            json!({
                "difference": test.difference,
                "interval": test.interval,
                "p_value": test.p_value,
                "significantly_worse": self.is_worse(row),
            })
        });
        json!({
            "freeze": row.freeze,
            "lr": row.lr,
            "seeds": row.seeds,
            "trainable_parameters": row.trainable_parameters,
            "precompute_seconds": row.cache.seconds,
            "precompute_caches": row.cache.caches,
            "cache_bytes": row.cache.bytes,
            "epoch_seconds": row.epoch_seconds,
            "train_seconds": row.train_seconds,
            "peak_rss_bytes": row.peak_rss_bytes,
            "valid": spread(row.valid),
            "test": spread(row.test),
            "best_lr": row.best_lr,
            "against_base": test,
        })
    }
}

/// Rising: nothing frozen, the embeddings, one layer ...
fn depth(freeze: Freeze) -> usize {
    match freeze {
        Freeze::Nothing => 0,
        Freeze::Layers(layers) => layers + 1,
    }
}

/// Rising; what is no number comes first.
fn worse_first(one: f64, other: f64) -> Ordering {
    let rank = |number: f64| (!number.is_nan(), number);
    let ((one_is, one), (other_is, other)) = (rank(one), rank(other));
    one_is.cmp(&other_is).then(one.total_cmp(&other))
}

fn spread(runs: &[&SweptRun], split: &str, metric: &str) -> Option<Spread> {
    let numbers = runs.iter().map(|run| run.metric(split, metric));
    let (mean, standard_deviation) = mean_and_deviation(&numbers.collect::<Option<Vec<_>>>()?);
    Some(Spread {
        mean,
        standard_deviation,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(freeze: Freeze, lr: f64, seed: u64, valid: f64, test: f64) -> SweptRun {
        let summary = json!({
            "trainable_parameters": 10,
            "epoch_seconds": 10.0 - freeze.layers() as f64,
            "seconds": 30.0,
            "peak_rss_bytes": 5.0 + seed as f64,
            "valid": { "accuracy": valid },
            "test": { "accuracy": test },
        });
        let Value::Object(summary) = summary else {
            unreachable!("an object")
        };
        SweptRun {
            freeze,
            lr,
            seed,
            summary,
        }
    }

    fn costs(depths: &[Freeze]) -> Vec<CacheCost> {
        let cost = |&freeze| CacheCost {
            freeze,
            seconds: 1.0,
            caches: 1,
            bytes: 8,
        };
        depths.iter().map(cost).collect()
    }

    #[test]
    fn the_cheapest_that_is_not_worse_is_named() {
        let depths = [Freeze::Nothing, Freeze::Layers(2), Freeze::Layers(4)];
        let mut runs = Vec::new();
        for (seed, noise) in [(1, 0.0), (2, 0.01), (3, -0.01)] {
            runs.push(run(depths[0], 1e-5, seed, 0.9, 0.90 + noise));
            // At the other rate it is better in validation, and that decides.
            runs.push(run(depths[1], 1e-5, seed, 0.7, 0.99));
            runs.push(run(depths[1], 1e-4, seed, 0.9, 0.905 + noise / 2.0));
            runs.push(run(depths[2], 1e-4, seed, 0.8, 0.80 + noise * 1.2));
        }
        let table = Table::new("accuracy", &runs, &costs(&depths)).expect("a table");
        assert_eq!(
            (table.base, table.split, table.rows.len()),
            (depths[0], "test", 4)
        );
        assert_eq!(table.is_worse(&table.rows[0]), None);
        assert_eq!(table.is_worse(&table.rows[3]), Some(true));
        let cheapest = table.cheapest_not_worse().expect("a row");
        assert_eq!((cheapest.freeze, cheapest.lr), (depths[1], 1e-4));
        assert!((cheapest.peak_rss_bytes - 8.0).abs() < 1e-12);
        let difference = cheapest.against_base.expect("a test").difference;
        assert!((difference - 0.005).abs() < 1e-12);
    }

    #[test]
    fn of_losses_less_is_better() {
        let depths = [Freeze::Layers(0), Freeze::Layers(1)];
        let mut runs = Vec::new();
        for seed in [1, 2] {
            runs.push(run(depths[0], 1e-5, seed, 0.0, 0.0));
            runs.push(run(depths[1], 1e-5, seed, 0.0, 0.0));
        }
        for (place, run) in runs.iter_mut().enumerate() {
            let loss = 1.0 + (place % 2) as f64 + 0.001 * (place / 2) as f64;
            run.summary.insert("valid".into(), json!({ "loss": loss }));
            run.summary.remove("test");
        }
        let table = Table::new("loss", &runs, &costs(&depths)).expect("a table");
        assert_eq!((table.split, table.base), ("valid", depths[0]));
        assert_eq!(table.is_worse(&table.rows[1]), Some(true));
        assert_eq!(table.cheapest_not_worse(), None);
    }

    #[test]
    fn one_seed_is_no_test() {
        let depths = [Freeze::Nothing, Freeze::Layers(1)];
        let runs = depths.map(|freeze| run(freeze, 1e-5, 1, 0.5, 0.5));
        let table = Table::new("accuracy", &runs, &costs(&depths)).expect("a table");
        assert_eq!(table.rows[1].against_base, None);
        assert_eq!(table.cheapest_not_worse(), None);
        assert_eq!(Table::new("accuracy", &[], &[]), None);
    }
}
