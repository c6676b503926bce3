//! What runs with different numbers of frozen layers came to, side by side.

use std::cmp::Ordering;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::paired::PairedTest;
use crate::checkpoint::Freeze;
use crate::task::less_is_better;
use crate::train::mean_and_deviation;

/// In a sweep's folder: what was found, for programs.
pub const SWEEP_RESULT: &str = "sweep.json";
/// In a sweep's folder: the flags that all its runs share.
pub const SWEEP_SHARED: &str = "sweep.toml";
/// In a sweep's folder: where its runs are.
pub const SWEEP_RUNS: &str = "runs";

/// The significance level of a sweep.
pub const SIGNIFICANT: f64 = 0.05;

/// What a cache cost.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheCost {
    /// Of which K.
    pub freeze: Freeze,
    /// Seconds of the pass that filled it; none where that was broken off and gone on with.
    pub seconds: Option<f64>,
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
    fn number(&self, name: &str) -> Option<f64> {
        self.summary.get(name)?.as_f64()
    }

    fn metric(&self, split: &str, name: &str) -> Option<f64> {
        self.summary.get(split)?.get(name)?.as_f64()
    }
}

/// A metric over seeds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Mean.
    pub mean: f64,
    /// Standard deviation of the sample, of two seeds or more.
    pub standard_deviation: Option<f64>,
}

/// The mean, and of two seeds or more ± the deviation, four places each.
impl fmt::Display for Spread {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{:.4}", self.mean)?;
        match self.standard_deviation {
            Some(deviation) => write!(formatter, " ± {deviation:.4}"),
            None => Ok(()),
        }
    }
}

/// The seeds of a row against the same seeds of the base, on the split that is compared.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct AgainstBase {
    /// Row less base.
    #[serde(flatten)]
    pub test: PairedTest,
    /// Whether the mean is worse, and p below the table's significance level.
    pub significantly_worse: bool,
}

/// All seeds of one K and one learning rate. What was not measured is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// K.
    pub freeze: Freeze,
    /// Peak learning rate.
    pub lr: f64,
    /// The seeds, rising.
    pub seeds: Vec<u64>,
    /// How many parameters are trained.
    pub trainable_parameters: Option<f64>,
    /// Seconds of the pass that filled its cache.
    pub precompute_seconds: Option<f64>,
    /// Caches that the pass filled.
    pub precompute_caches: usize,
    /// Bytes of its cache.
    pub cache_bytes: u64,
    /// Seconds of an epoch's steps, the mean over the seeds.
    pub epoch_seconds: Option<f64>,
    /// Seconds of training with evaluation, the mean over the seeds.
    pub train_seconds: Option<f64>,
    /// Peak memory of a training process, the most of any seed; bytes. Of a run that was gone on with
    /// it is that of the last process.
    pub peak_rss_bytes: Option<f64>,
    /// The metric on the validation split, if there is one.
    pub valid: Option<Spread>,
    /// The metric on the test split, if there is one.
    pub test: Option<Spread>,
    /// Whether this is its K's best learning rate.
    pub best_lr: bool,
    /// By the seeds that both have. None of the base itself, of fewer than two such seeds, and where a
    /// metric is no number.
    pub against_base: Option<AgainstBase>,
}

/// A row by what makes it one.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// K.
    pub freeze: Freeze,
    /// Peak learning rate.
    pub lr: f64,
}

/// The rows of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Table {
    /// The metric that is compared.
    pub metric: String,
    /// The split that it is compared on: `test` where there is one.
    pub split: String,
    /// What the others are compared with: nothing frozen, or the fewest layers that are.
    pub base: Freeze,
    /// A difference of which chance alone would make one as large less often than this is taken for one.
    #[serde(default = "usual_level")]
    pub significance_level: f64,
    /// By K, then by learning rate.
    pub rows: Vec<Row>,
    /// The K and learning rate with the shortest epochs, shorter than the base's, of those that were
    /// tested with all seeds of the base and are not significantly worse; each K at its best learning rate.
    pub cheapest_not_worse: Option<Cell>,
}

/// Which K to take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Verdict<'a> {
    /// One seed tells nothing about chance.
    OneSeed,
    /// There is nothing but the base.
    NothingElse,
    /// This one.
    Take(&'a Row, AgainstBase),
    /// The base: every other K is significantly worse.
    AllWorse,
    /// The base: no other K is faster without being worse.
    NoneFaster,
    /// None: not every K could be tested.
    NotTested,
}

impl Table {
    /// Of `runs`, which are judged by `metric`, over `caches`. Each K is judged at the learning rate
    /// whose mean is best on the validation split, or where there is none on the test split; of rates with
    /// different numbers of finished seeds at one of those with the most. None where nothing is finished.
    pub fn new(
        metric: &str,
        runs: &[SweptRun],
        caches: &[CacheCost],
        significance_level: f64,
    ) -> Option<Self> {
        let on = |split: &str| runs.iter().any(|run| run.metric(split, metric).is_some());
        let split = if on("test") { "test" } else { "valid" };
        let chooser = if on("valid") { "valid" } else { "test" };
        let mut cells: Vec<(Freeze, f64)> = runs.iter().map(|run| (run.freeze, run.lr)).collect();
        cells.sort_by(|one, other| one.0.cmp(&other.0).then(one.1.total_cmp(&other.1)));
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
            // A rate at which some seeds cannot be trained is not better for those that are left.
            let better = |one: &&(Freeze, f64), other: &&(Freeze, f64)| {
                let finished = of(**one).len().cmp(&of(**other).len());
                finished.then_with(|| worse_first(score(**one), score(**other)))
            };
            same.max_by(better).map(|cell| cell.1)
        };
        let base_runs = of((base, best_lr(base)?));
        let against_base = |same: &[&SweptRun]| {
            let both = same.iter().filter_map(|run| {
                let other = base_runs.iter().find(|other| other.seed == run.seed)?;
                Some((*run, *other))
            });
            let measured = |(run, other): (&SweptRun, &SweptRun)| {
                Some((run.metric(split, metric)?, other.metric(split, metric)?))
            };
            let pairs: Option<Vec<(f64, f64)>> = both.map(measured).collect();
            let test = PairedTest::new(&pairs?)?;
            let worse = if less_is_better(metric) {
                test.difference > 0.0
            } else {
                test.difference < 0.0
            };
            Some(AgainstBase {
                test,
                significantly_worse: worse && test.p_value < significance_level,
            })
        };
        let rows = cells.iter().filter_map(|&(freeze, lr)| {
            let same = of((freeze, lr));
            let cache = caches.iter().find(|cache| cache.freeze == freeze)?;
            let numbers = |name: &str| -> Option<Vec<f64>> {
                same.iter().map(|run| run.number(name)).collect()
            };
            let mean = |name: &str| Some(mean_and_deviation(&numbers(name)?).0);
            let most = |name: &str| Some(numbers(name)?.into_iter().fold(f64::NAN, f64::max));
            Some(Row {
                freeze,
                lr,
                seeds: same.iter().map(|run| run.seed).collect(),
                trainable_parameters: most("trainable_parameters"),
                precompute_seconds: cache.seconds,
                precompute_caches: cache.caches,
                cache_bytes: cache.bytes,
                epoch_seconds: mean("epoch_seconds"),
                train_seconds: mean("seconds"),
                peak_rss_bytes: most("peak_rss_bytes"),
                valid: spread(&same, "valid", metric),
                test: spread(&same, "test", metric),
                best_lr: best_lr(freeze) == Some(lr),
                against_base: against_base(&same).filter(|_| freeze != base),
            })
        });
        let mut table = Self {
            metric: metric.into(),
            split: split.into(),
            base,
            significance_level,
            rows: rows.collect(),
            cheapest_not_worse: None,
        };
        table.cheapest_not_worse = table.cheapest();
        Some(table)
    }

    fn cheapest(&self) -> Option<Cell> {
        let seconds = |row: &Row| row.epoch_seconds.unwrap_or(f64::INFINITY);
        let base = self.base_row()?;
        let good = self.best().filter(|row| {
            let test = row.against_base;
            test.is_some_and(|test| !test.significantly_worse)
                && self.has_all_seeds(row)
                && seconds(row) < seconds(base)
        });
        let cheapest = good.min_by(|one, other| seconds(one).total_cmp(&seconds(other)))?;
        Some(Cell {
            freeze: cheapest.freeze,
            lr: cheapest.lr,
        })
    }

    fn base_row(&self) -> Option<&Row> {
        self.best().find(|row| row.freeze == self.base)
    }

    /// Whether `row` has every seed that the base has: of a K that cannot be trained with some of them
    /// the others tell too well.
    fn has_all_seeds(&self, row: &Row) -> bool {
        let base = self.base_row();
        base.is_some_and(|base| self.pairs(row) == base.seeds.len())
    }

    /// How many seeds `row` has in common with the base.
    pub fn pairs(&self, row: &Row) -> usize {
        let base = self.base_row().into_iter().flat_map(|base| &base.seeds);
        base.filter(|seed| row.seeds.contains(seed)).count()
    }

    /// The K that may be as good as the base or worse, for want of a seed or of a number.
    pub fn untested(&self) -> Vec<Freeze> {
        let others = self.best().filter(|row| row.freeze != self.base);
        let untested = others.filter(|row| match row.against_base {
            None => true,
            Some(test) => !test.significantly_worse && !self.has_all_seeds(row),
        });
        untested.map(|row| row.freeze).collect()
    }

    /// The metric of `row` on the split that is compared.
    pub fn compared(&self, row: &Row) -> Option<Spread> {
        if self.split == "test" {
            row.test
        } else {
            row.valid
        }
    }

    /// The rows of each K's best learning rate.
    pub fn best(&self) -> impl Iterator<Item = &Row> + Clone {
        self.rows.iter().filter(|row| row.best_lr)
    }

    /// Whether `row` is the one to take.
    pub fn is_chosen(&self, row: &Row) -> bool {
        self.cheapest_not_worse
            == Some(Cell {
                freeze: row.freeze,
                lr: row.lr,
            })
    }

    /// How many seeds each K has at its best learning rate: the fewest, and the most.
    pub fn seeds(&self) -> [usize; 2] {
        let seeds = self.best().map(|row| row.seeds.len());
        [seeds.clone().min(), seeds.max()].map(Option::unwrap_or_default)
    }

    /// [`seeds`](Self::seeds) in words.
    pub fn seeds_text(&self) -> String {
        match self.seeds() {
            [fewest, most] if fewest == most => format!("{most} seeds"),
            [fewest, most] => format!("{fewest} to {most} seeds"),
        }
    }

    /// Which K to take.
    pub fn verdict(&self) -> Verdict<'_> {
        if self.best().all(|row| row.freeze == self.base) {
            return Verdict::NothingElse;
        }
        if self.seeds()[1] < 2 {
            return Verdict::OneSeed;
        }
        let chosen = self.rows.iter().find(|row| self.is_chosen(row));
        if let Some((row, test)) = chosen.and_then(|row| Some((row, row.against_base?))) {
            return Verdict::Take(row, test);
        }
        if !self.untested().is_empty() {
            return Verdict::NotTested;
        }
        let worse = |row: &Row| {
            row.against_base
                .is_some_and(|test| test.significantly_worse)
        };
        let mut others = self.best().filter(|row| row.freeze != self.base);
        if others.all(worse) {
            Verdict::AllWorse
        } else {
            Verdict::NoneFaster
        }
    }

    /// All of it.
    pub fn to_json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_else(|_| unreachable!("plain values"))
    }
}

/// Of a table that an earlier version wrote.
fn usual_level() -> f64 {
    SIGNIFICANT
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
    use serde_json::json;

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
            seconds: Some(1.0),
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
        let table = Table::new("accuracy", &runs, &costs(&depths), SIGNIFICANT).expect("a table");
        assert_eq!((table.base, table.split.as_str()), (depths[0], "test"));
        assert_eq!(table.rows.len(), 4);
        assert_eq!(table.rows[0].against_base, None);
        assert!(
            table.rows[3]
                .against_base
                .expect("a test")
                .significantly_worse
        );
        let Verdict::Take(cheapest, test) = table.verdict() else {
            panic!("one is to be taken: {:?}", table.verdict())
        };
        assert_eq!((cheapest.freeze, cheapest.lr), (depths[1], 1e-4));
        assert!((cheapest.peak_rss_bytes.expect("bytes") - 8.0).abs() < 1e-12);
        assert!((test.test.difference - 0.005).abs() < 1e-12);
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
        let table = Table::new("loss", &runs, &costs(&depths), SIGNIFICANT).expect("a table");
        assert_eq!((table.split.as_str(), table.base), ("valid", depths[0]));
        assert_eq!(table.verdict(), Verdict::AllWorse);
        assert_eq!(table.cheapest_not_worse, None);
    }

    #[test]
    fn one_seed_is_no_test() {
        let depths = [Freeze::Nothing, Freeze::Layers(1)];
        let runs = depths.map(|freeze| run(freeze, 1e-5, 1, 0.5, 0.5));
        let table = Table::new("accuracy", &runs, &costs(&depths), SIGNIFICANT).expect("a table");
        assert_eq!(table.rows[1].against_base, None);
        assert_eq!(table.verdict(), Verdict::OneSeed);
        assert_eq!(
            table.rows[1].valid.expect("a mean").standard_deviation,
            None
        );
        assert_eq!(Table::new("accuracy", &[], &[], SIGNIFICANT), None);
    }

    /// A rate that loses a seed is not chosen for the others, a K that does is not recommended for them, and
    /// where the base does the other seeds are compared.
    #[test]
    fn what_is_left_of_failed_runs_is_judged_for_what_it_is() {
        let depths = [Freeze::Nothing, Freeze::Layers(2)];
        let table = |lost: &[(Freeze, f64, u64)]| {
            let mut runs = Vec::new();
            for seed in 1..4 {
                let noise = seed as f64 / 1000.0;
                runs.push(run(depths[0], 1e-5, seed, 0.9, 0.9 + noise));
                runs.push(run(depths[1], 1e-5, seed, 0.8, 0.9));
                runs.push(run(depths[1], 1e-3, seed, 0.9, 0.9 - noise));
            }
            runs.retain(|run| !lost.contains(&(run.freeze, run.lr, run.seed)));
            Table::new("accuracy", &runs, &costs(&depths), SIGNIFICANT).expect("a table")
        };
        let best = |table: &Table| table.best().last().expect("a row").lr;
        assert_eq!(best(&table(&[])).to_bits(), 1e-3f64.to_bits());
        let lost = table(&[(depths[1], 1e-3, 2), (depths[1], 1e-3, 3)]);
        assert_eq!(best(&lost).to_bits(), 1e-5f64.to_bits());
        assert!(matches!(lost.verdict(), Verdict::Take(..)), "{lost:?}");
        assert_eq!(lost.seeds(), [3, 3]);

        let lost = table(&[(depths[1], 1e-3, 3), (depths[1], 1e-5, 3)]);
        let test = lost.rows[2].against_base.expect("a test of two seeds").test;
        assert!((test.difference + 0.003).abs() < 1e-12, "{test:?}");
        assert_eq!(lost.verdict(), Verdict::NotTested);
        assert_eq!(lost.untested(), [depths[1]]);
        assert_eq!(lost.pairs(&lost.rows[2]), 2);
        assert_eq!(lost.seeds_text(), "2 to 3 seeds");

        let lost = table(&[(depths[0], 1e-5, 1)]);
        let test = lost.rows[2].against_base.expect("a test of two seeds").test;
        assert!((test.difference + 0.005).abs() < 1e-12, "{test:?}");
        assert_eq!(lost.untested(), []);
    }

    /// A K that is no faster than the base is not recommended, one without a number is not tested.
    #[test]
    fn what_is_no_better_is_not_recommended() {
        let depths = [Freeze::Nothing, Freeze::Layers(1)];
        let mut runs = Vec::new();
        for seed in [1, 2] {
            runs.extend(depths.map(|freeze| run(freeze, 1e-5, seed, 0.5, 0.5)));
        }
        for run in &mut runs {
            run.summary.insert("epoch_seconds".into(), json!(3.0));
        }
        let table = |runs: &[SweptRun]| {
            Table::new("accuracy", runs, &costs(&depths), SIGNIFICANT).expect("one")
        };
        assert_eq!(table(&runs).verdict(), Verdict::NoneFaster);
        runs[3]
            .summary
            .insert("test".into(), json!({ "accuracy": null }));
        let untested = table(&runs);
        assert_eq!(untested.verdict(), Verdict::NotTested);
        let read: Table = serde_json::from_value(untested.to_json()).expect("read");
        assert_eq!(read, untested);
    }
}
