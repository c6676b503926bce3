//! What a sweep came to, as `sweep.json` has it.

use serde_json::Value;

use super::figures::{bytes, count, seconds};
use super::plot::{Axis, Marks, Plot, Point, Series};
use super::section::{Cell, Row, Table, Weight};
use crate::checkpoint::Freeze;
use crate::study::{self, AgainstBase, Spread, Verdict};

/// A sweep as the page shows it.
pub(super) struct SweepResult(pub(super) study::Table);

impl SweepResult {
    /// Out of `sweep.json`, or what is wrong with that.
    pub(super) fn from_json(value: Value) -> Result<Self, String> {
        let table: study::Table =
            serde_json::from_value(value).map_err(|error| error.to_string())?;
        if table.rows.is_empty() {
            return Err("`rows` is empty".into());
        }
        Ok(Self(table))
    }

    /// Whether a pass over the data filled the caches of several K.
    pub(super) fn shares_passes(&self) -> bool {
        let mut rows = self.0.rows.iter();
        rows.any(|row| row.precompute_caches > 1)
    }

    /// Which K to take, and what that is judged by.
    pub(super) fn conclusion(&self) -> String {
        let study::Table {
            metric,
            split,
            base,
            significance_level: level,
            ..
        } = &self.0;
        let found = match self.0.verdict() {
            Verdict::OneSeed => {
                return format!(
                    "One seed tells nothing about chance, so no K is recommended. The plots show {metric} on the {split} split."
                );
            }
            Verdict::NothingElse => "There is no other K to compare with.".into(),
            Verdict::AllWorse => {
                format!("Every other K is significantly worse (p < {level}): take K = {base}.")
            }
            Verdict::NoneFaster => format!(
                "No other K is faster without being significantly worse (p < {level}): take K = {base}."
            ),
            Verdict::NotTested => "No K is recommended.".into(),
            Verdict::Take(row, AgainstBase { test, .. }) => format!(
                "Take K = {} at learning rate {:e}: it has the shortest epochs of those that are not significantly worse (p < {level}). With 95 % confidence its {metric} differs from that of K = {base} by {:+.4} to {:+.4}.",
                row.freeze, row.lr, test.interval[0], test.interval[1]
            ),
        };
        let untested: Vec<String> = self.0.untested().iter().map(ToString::to_string).collect();
        let untested = match untested.as_slice() {
            [] => String::new(),
            names => format!(
                " Not judged, for want of a seed or because {metric} is no number: K = {}.",
                names.join(", ")
            ),
        };
        format!(
            "{found}{untested} Compared is {metric} on the {split} split, mean ± standard deviation of {}, with that of K = {base} by a paired t-test.",
            self.0.seeds_text()
        )
    }

    /// K against quality and cost.
    pub(super) fn plots(&self) -> Vec<Plot> {
        let study::Table { metric, split, .. } = &self.0;
        let k_axis = || {
            let names = self
                .0
                .best()
                .map(|row| (depth(row.freeze), row.freeze.to_string()));
            let mut names: Vec<(f64, String)> = names.collect();
            names.sort_by(|one, other| one.0.total_cmp(&other.0));
            Axis::new(
                "K: frozen layers (none: nothing frozen)",
                Marks::Named(names),
            )
        };
        let by_k = |figure: &dyn Fn(&study::Row) -> Option<(f64, String)>| -> Series {
            let points = self.0.best().filter_map(|row| {
                let (figure, said) = figure(row)?;
                let title = format!("K = {}: {said}", row.freeze);
                let mut point = Point::new(depth(row.freeze), figure, title);
                point.chosen = self.0.is_chosen(row);
                Some(point)
            });
            Series {
                name: "best learning rate".into(),
                points: points.collect(),
                line: true,
            }
        };
        let ring = if self.0.cheapest_not_worse.is_some() {
            " The ring is the K to take."
        } else {
            ""
        };
        let bars = if self.0.seeds()[1] < 2 {
            ""
        } else {
            "Mean over the seeds; bars are ± one standard deviation."
        };
        vec![
            Plot {
                name: "quality".into(),
                title: format!("{metric} by frozen layers"),
                caption: format!("{bars}{ring}"),
                x: k_axis(),
                y: Axis::new(format!("{metric}, {split} split"), Marks::Numbers),
                series: self.quality(),
            },
            Plot {
                name: "cost".into(),
                title: format!("What {metric} costs"),
                caption: format!(
                    "Each point is a K at its best learning rate; the time is that of training, evaluation included and precompute left out.{ring}"
                ),
                x: Axis::new("seconds of training", Marks::FromZero),
                y: Axis::new(format!("{metric}, {split} split"), Marks::Numbers),
                series: vec![self.quality_by_cost()],
            },
            Plot {
                name: "epoch-seconds".into(),
                title: "Time of an epoch by frozen layers".into(),
                caption: "Mean over the seeds, evaluation left out.".into(),
                x: k_axis(),
                y: Axis::new("seconds", Marks::FromZero),
                series: vec![by_k(&|row| {
                    let figure = row.epoch_seconds?;
                    Some((figure, seconds(figure)))
                })],
            },
            Plot {
                name: "peak-memory".into(),
                title: "Peak memory by frozen layers".into(),
                caption: "Of the training process, the most of any seed.".into(),
                x: k_axis(),
                y: Axis::new("MB", Marks::FromZero),
                series: vec![by_k(&|row| {
                    let figure = row.peak_rss_bytes?;
                    Some((figure / 1e6, bytes(figure)))
                })],
            },
        ]
    }

    fn quality(&self) -> Vec<Series> {
        let points = |best: bool| -> Vec<Point> {
            let rows = self.0.rows.iter().filter(|row| row.best_lr == best);
            rows.filter_map(|row| {
                let (mean, interval, said) = self.measured(row)?;
                let title = format!(
                    "K = {}, learning rate {:e}: {} {said}",
                    row.freeze, row.lr, self.0.metric
                );
                let mut point = Point::new(depth(row.freeze), mean, title);
                point.interval = interval.filter(|_| best);
                point.chosen = self.0.is_chosen(row);
                Some(point)
            })
            .collect()
        };
        let mut series = vec![Series {
            name: "best learning rate".into(),
            points: points(true),
            line: true,
        }];
        let others = points(false);
        if !others.is_empty() {
            series.push(Series {
                name: "other learning rates".into(),
                points: others,
                line: false,
            });
        }
        series
    }

    fn quality_by_cost(&self) -> Series {
        let points = self.0.best().filter_map(|row| {
            let (mean, interval, said) = self.measured(row)?;
            let cost = row.train_seconds?;
            let title = format!(
                "K = {}: {} {said} after {}",
                row.freeze,
                self.0.metric,
                seconds(cost)
            );
            let mut point = Point::new(cost, mean, title);
            point.interval = interval;
            point.label = Some(format!("K = {}", row.freeze));
            point.chosen = self.0.is_chosen(row);
            Some(point)
        });
        Series {
            name: String::new(),
            points: points.collect(),
            line: false,
        }
    }

    /// The metric of `row` on the split that is compared: its mean, from where to where a standard
    /// deviation reaches, and both in words.
    fn measured(&self, row: &study::Row) -> Option<(f64, Option<[f64; 2]>, String)> {
        let spread = self.0.compared(row)?;
        let Spread {
            mean,
            standard_deviation: deviation,
        } = spread;
        let interval = deviation.map(|deviation| [mean - deviation, mean + deviation]);
        Some((mean, interval, spread.to_string()))
    }

    /// A row of figures for each K and learning rate.
    pub(super) fn table(&self) -> Table {
        let columns = [
            "K",
            "learning rate",
            "seeds",
            "valid",
            "test",
            "against base [95 %]",
            "p",
            "epoch",
            "training",
            "precompute",
            "peak memory",
            "cache",
            "trainable parameters",
        ];
        let rows = self.0.rows.iter().map(|row| {
            let chosen = self.0.is_chosen(row);
            Row {
                cells: cells(row, chosen),
                weight: match (chosen, row.best_lr) {
                    (true, _) => Weight::Chosen,
                    (false, true) => Weight::Usual,
                    (false, false) => Weight::Aside,
                },
            }
        });
        Table {
            heading: format!("{} by K", self.0.metric),
            columns: columns.map(String::from).to_vec(),
            rows: rows.collect(),
        }
    }
}

fn cells(row: &study::Row, chosen: bool) -> Vec<Cell> {
    let mark = if chosen { " (take this)" } else { "" };
    let measured = |spread: Option<Spread>| {
        spread.map_or_else(
            || Cell::number("-"),
            |spread| Cell::number(spread.to_string()).exactly(&spread.mean),
        )
    };
    let seeds: Vec<String> = row.seeds.iter().map(ToString::to_string).collect();
    let against = row.against_base.map_or("-".into(), |against| {
        let [low, high] = against.test.interval;
        let worse = if against.significantly_worse {
            ", worse"
        } else {
            ""
        };
        format!(
            "{:+.4} [{low:+.4}, {high:+.4}]{worse}",
            against.test.difference
        )
    });
    vec![
        Cell::text(format!("{}{mark}", row.freeze)),
        Cell::number(format!("{:e}", row.lr)),
        Cell::number(seeds.len().to_string()).exactly(&seeds.join(", ")),
        measured(row.valid),
        measured(row.test),
        Cell::number(against),
        row.against_base.map_or_else(
            || Cell::number("-"),
            |against| Cell::number(against.test.p_value_text()).exactly(&against.test.p_value),
        ),
        Cell::figure(row.epoch_seconds, seconds),
        Cell::figure(row.train_seconds, seconds),
        Cell::figure(row.precompute_seconds, seconds),
        Cell::figure(row.peak_rss_bytes, bytes),
        Cell::figure(Some(row.cache_bytes as f64), bytes),
        Cell::figure(row.trainable_parameters, count),
    ]
}

/// Where a K is on the axis: nothing frozen is one less than the embeddings alone.
fn depth(freeze: Freeze) -> f64 {
    match freeze {
        Freeze::Nothing => -1.0,
        Freeze::Layers(layers) => layers as f64,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Two K, each with `seeds`; the other is `worse`, or was not compared.
    fn result(seeds: &[u64], worse: Option<bool>) -> SweepResult {
        let deviation = (seeds.len() > 1).then_some(0.0);
        let row = |freeze: Value, against: Value| {
            json!({
                "freeze": freeze,
                "lr": 5e-5,
                "seeds": seeds,
                "precompute_caches": 1,
                "cache_bytes": 1,
                "valid": { "mean": 0.75, "standard_deviation": deviation },
                "test": null,
                "epoch_seconds": null,
                "best_lr": true,
                "against_base": against,
            })
        };
        let against = worse.map_or(Value::Null, |worse| {
            json!({
                "difference": -0.5,
                "interval": [-0.75, -0.25],
                "p_value": 0.01,
                "significantly_worse": worse,
            })
        });
        let value = json!({
            "metric": "accuracy",
            "split": "valid",
            "base": "none",
            "rows": [row(json!("none"), Value::Null), row(json!(4), against)],
            "cheapest_not_worse": null,
        });
        SweepResult::from_json(value).expect("a sweep")
    }

    #[test]
    fn one_seed_has_no_deviation_and_no_conclusion() {
        let result = result(&[1], None);
        let conclusion = result.conclusion();
        assert!(conclusion.starts_with("One seed"), "{conclusion}");
        assert!(!conclusion.contains('±'), "{conclusion}");
        let found = cells(&result.0.rows[0], false);
        let found: Vec<&str> = found.iter().map(|cell| cell.text.as_str()).collect();
        let numbers = ["none", "5e-5", "1", "0.7500", "-", "-", "-", "-"];
        assert_eq!(found[..8], numbers);
    }

    #[test]
    fn only_what_was_compared_is_worse() {
        let worse = result(&[1, 2], Some(true)).conclusion();
        assert!(worse.starts_with("Every other K"), "{worse}");
        let unknown = result(&[1, 2], None).conclusion();
        let said = "No K is recommended. Not judged, for want of a seed or because accuracy is no number: K = 4.";
        assert!(unknown.starts_with(said), "{unknown}");
    }
}
