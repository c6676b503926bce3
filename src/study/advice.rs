//! Which K a short pilot speaks for.

use serde::Serialize;

use super::sweep::{Row, Table, Verdict};
use crate::checkpoint::Freeze;

/// In an advice's folder: what was found, for programs.
pub const ADVICE_RESULT: &str = "advice.json";

/// Fine-tuning has hardly changed a layer where Pearson's r of its output before and after is at least
/// this. In `docs/findings.md` freezing such layers cost nothing in four cases, in one of which neither did
/// freezing four more; in a fifth that K was not tried.
pub const UNCHANGED: f64 = 0.98;
/// A pilot sees so little that it takes a loss for one sooner than a sweep does: where chance alone
/// would make one as large less often than this.
pub const PILOT_LEVEL: f64 = 0.2;
/// Seeds from which on the pilot's own metric decides: of two, a t-test tells next to nothing.
const ENOUGH_SEEDS: usize = 3;
/// K that are tried beside nothing frozen.
const CANDIDATES: usize = 3;

/// What a K was taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The metric of the pilot's seeds.
    Metric,
    /// How alike the layers are before and after fine-tuning.
    Similarity,
    /// Nothing could be told, so the base is taken.
    Nothing,
}

/// How alike the layers are before and after a pilot's fine-tuning of all of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Changes {
    /// Pearson's r, from the embeddings, layer 0, up; none where it is not defined.
    pub pearson: Vec<Option<f64>>,
}

impl Changes {
    /// The layers from the bottom that have hardly changed, by the number of the last; none where the
    /// embeddings have changed. An r that is not defined counts as a change.
    pub fn unchanged(&self) -> Option<usize> {
        let changed = |found: &Option<f64>| found.is_none_or(|pearson| pearson < UNCHANGED);
        let first = self.pearson.iter().position(changed);
        first.unwrap_or(self.pearson.len()).checked_sub(1)
    }
}

/// The K to try with a model of so many `layers`, of which fine-tuning left so many as they were: that
/// one and deeper ones, where freezing begins to cost, an eighth of the layers apart; never all layers.
pub fn candidates(unchanged: Option<usize>, layers: usize) -> Vec<Freeze> {
    let last = layers.saturating_sub(1);
    let step = layers.div_ceil(8).max(1);
    let middle = unchanged.unwrap_or(0).min(last);
    let mut depths: Vec<usize> = (middle..=last).step_by(step).take(CANDIDATES).collect();
    let mut lower = middle;
    while depths.len() < CANDIDATES && lower > 0 {
        lower = lower.saturating_sub(step);
        depths.push(lower);
    }
    depths.sort_unstable();
    depths.into_iter().map(Freeze::Layers).collect()
}

/// The K to take by a pilot's `table`, made at [`PILOT_LEVEL`], and by the `changes` of fine-tuning, where
/// they were looked at. A pilot that has not `learnt` tells nothing: its layers have not changed, and its
/// metric is chance.
///
/// Of three seeds or more the metric decides, as in a sweep. Of fewer it is the most frozen layers that
/// fine-tuning would hardly have changed, and that are not significantly worse where that was tested.
pub fn choose(table: &Table, changes: Option<&Changes>, learnt: bool) -> (Freeze, Decision) {
    if !learnt {
        return (table.base, Decision::Nothing);
    }
    if table.seeds()[0] >= ENOUGH_SEEDS {
        match table.verdict() {
            Verdict::Take(row, _) => return (row.freeze, Decision::Metric),
            Verdict::AllWorse | Verdict::NoneFaster => return (table.base, Decision::Metric),
            Verdict::OneSeed | Verdict::NothingElse | Verdict::NotTested => {}
        }
    }
    let Some(changes) = changes else {
        return (table.base, Decision::Nothing);
    };
    let unchanged = changes.unchanged();
    let frozen_for_nothing = |row: &&Row| {
        let worse = row
            .against_base
            .is_some_and(|test| test.significantly_worse);
        !worse && unchanged.is_some_and(|unchanged| row.freeze <= Freeze::Layers(unchanged))
    };
    let others = table.best().filter(|row| row.freeze != table.base);
    let deepest = others
        .filter(frozen_for_nothing)
        .max_by_key(|row| row.freeze);
    let freeze = deepest.map_or(table.base, |row| row.freeze);
    (freeze, Decision::Similarity)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sweep::{CacheCost, SweptRun};
    use super::*;

    fn changes(similarities: &[f64]) -> Changes {
        Changes {
            pearson: similarities.iter().copied().map(Some).collect(),
        }
    }

    #[test]
    fn layers_are_unchanged_up_to_the_first_that_is_not() {
        let unchanged = |similarities: &[f64]| changes(similarities).unchanged();
        assert_eq!(unchanged(&[1.0, 0.99, 0.97, 0.99]), Some(1));
        assert_eq!(unchanged(&[1.0, UNCHANGED]), Some(1));
        assert_eq!(unchanged(&[0.9, 1.0]), None);
        assert_eq!(unchanged(&[]), None);
        let undefined = Changes {
            pearson: vec![Some(1.0), None, Some(1.0)],
        };
        assert_eq!(undefined.unchanged(), Some(0));
    }

    #[test]
    fn candidates_begin_where_little_has_changed() {
        let names = |unchanged, layers| {
            let freezes = candidates(unchanged, layers).into_iter();
            freezes.map(|freeze| freeze.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(Some(2), 6), ["2", "3", "4"]);
        assert_eq!(names(Some(5), 6), ["3", "4", "5"]);
        // All layers are never frozen.
        assert_eq!(names(Some(6), 6), ["3", "4", "5"]);
        assert_eq!(names(None, 6), ["0", "1", "2"]);
        assert_eq!(names(Some(8), 12), ["6", "8", "10"]);
        assert_eq!(names(Some(9), 12), ["7", "9", "11"]);
        assert_eq!(names(Some(10), 30), ["10", "14", "18"]);
        assert_eq!(names(Some(1), 2), ["0", "1"]);
        assert_eq!(names(Some(1), 1), ["0"]);
    }

    /// A pilot of K = none, 2 and 4, whose metrics these are, seed by seed.
    fn table(metrics: [&[f64]; 3]) -> Table {
        let depths = [Freeze::Nothing, Freeze::Layers(2), Freeze::Layers(4)];
        let costs = depths.map(|freeze| CacheCost {
            freeze,
            seconds: None,
            caches: 1,
            bytes: 1,
        });
        let run = |freeze: Freeze, seed: usize, metric: f64| SweptRun {
            freeze,
            lr: 1e-4,
            seed: seed as u64,
            summary: [
                ("epoch_seconds".into(), json!(10 - freeze.layers())),
                ("valid".into(), json!({ "mrr": metric })),
            ]
            .into_iter()
            .collect(),
        };
        let runs: Vec<SweptRun> = depths
            .iter()
            .zip(metrics)
            .flat_map(|(&freeze, metrics)| {
                let seeds = metrics.iter().enumerate();
                seeds.map(move |(seed, &metric)| run(freeze, seed, metric))
            })
            .collect();
        Table::new("mrr", &runs, &costs, PILOT_LEVEL).expect("a table")
    }

    /// Layers of which so many are as they were.
    fn unchanged(layers: usize) -> Changes {
        let similarities: Vec<f64> = (0..=6)
            .map(|layer| if layer <= layers { 0.99 } else { 0.9 })
            .collect();
        changes(&similarities)
    }

    #[test]
    fn of_three_seeds_the_metric_decides() {
        let base = [0.80, 0.82, 0.81];
        let as_good = [0.81, 0.81, 0.81];
        // p = 0.12: no loss to a sweep, one to a pilot.
        let worse = [0.79, 0.80, 0.805];
        let metric = |freeze| (freeze, Decision::Metric);
        let chosen = |metrics, layers| choose(&table(metrics), Some(&unchanged(layers)), true);
        let found = chosen([&base, &as_good, &worse], 4);
        assert_eq!(found, metric(Freeze::Layers(2)));
        let found = chosen([&base, &as_good, &as_good], 0);
        assert_eq!(found, metric(Freeze::Layers(4)));
        let found = chosen([&base, &worse, &worse], 4);
        assert_eq!(found, metric(Freeze::Nothing));
    }

    #[test]
    fn of_fewer_the_layers_decide() {
        let one = table([&[0.8], &[0.7], &[0.9]]);
        let similarity = |freeze| (freeze, Decision::Similarity);
        let chosen = |layers| choose(&one, Some(&unchanged(layers)), true);
        assert_eq!(chosen(3), similarity(Freeze::Layers(2)));
        assert_eq!(chosen(6), similarity(Freeze::Layers(4)));
        assert_eq!(chosen(1), similarity(Freeze::Nothing));
        let changed = changes(&[0.9; 7]);
        assert_eq!(
            choose(&one, Some(&changed), true),
            similarity(Freeze::Nothing)
        );
        // What is shown to be worse is not taken.
        let two = table([&[0.8, 0.81], &[0.8, 0.8], &[0.5, 0.51]]);
        let found = choose(&two, Some(&unchanged(6)), true);
        assert_eq!(found, similarity(Freeze::Layers(2)));
    }

    #[test]
    fn nothing_is_told_without_evidence() {
        let nothing = (Freeze::Nothing, Decision::Nothing);
        let one = table([&[0.8], &[0.7], &[0.9]]);
        assert_eq!(choose(&one, None, true), nothing);
        assert_eq!(choose(&one, Some(&unchanged(6)), false), nothing);
        let same = [0.5, 0.5, 0.5];
        assert_eq!(
            choose(&table([&same; 3]), Some(&unchanged(6)), false),
            nothing
        );
    }
}
