//! What `summary.json` says of a run, or of a group of them.

use serde_json::{Map, Value};

use super::figures::{named, number};
use super::section::{Cell, Row, Table};

/// What a summary says of a metric on a split: the number, and of a group its deviation.
pub(super) fn measured(summary: &Map<String, Value>, split: &str, metric: &str) -> Option<Cell> {
    let value = summary.get(split)?.get(metric)?;
    let Value::Object(group) = value else {
        return Some(Cell::number(number(value.as_f64()?)).exactly(value));
    };
    let mean = group.get("mean")?.as_f64()?;
    let text = match group.get("standard_deviation").and_then(Value::as_f64) {
        Some(deviation) => format!("{} ± {}", number(mean), number(deviation)),
        None => number(mean),
    };
    Some(Cell::number(text).exactly(&mean))
}

/// The names of all metrics of both splits.
pub(super) fn metric_names(summary: &Map<String, Value>) -> Vec<&String> {
    let splits = ["valid", "test"].into_iter();
    let metrics = splits.filter_map(|split| summary.get(split)?.as_object());
    let mut names = Vec::new();
    for name in metrics.flat_map(Map::keys) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// The metrics of both splits.
pub(super) fn metrics_table(summary: &Map<String, Value>) -> Table {
    let splits = ["valid", "test"].into_iter().filter(|split| {
        let metrics = summary.get(*split).and_then(Value::as_object);
        metrics.is_some_and(|metrics| !metrics.is_empty())
    });
    let splits: Vec<&str> = splits.collect();
    let rows = metric_names(summary).into_iter().map(|name| {
        let cells = splits
            .iter()
            .map(|split| measured(summary, split, name).unwrap_or_else(|| Cell::number("-")));
        Row::new(std::iter::once(Cell::text(name)).chain(cells).collect())
    });
    let rows = rows.collect();
    let names = splits.iter().map(ToString::to_string);
    Table {
        heading: "Metrics".into(),
        columns: std::iter::once("metric".to_owned()).chain(names).collect(),
        rows,
    }
}

/// The metrics of each run of a group; no rows of a run by itself.
pub(super) fn seeds_table(summary: &Map<String, Value>) -> Table {
    let runs = summary.get("runs").and_then(Value::as_array);
    let runs: Vec<&Map<String, Value>> = runs
        .into_iter()
        .flatten()
        .filter_map(Value::as_object)
        .collect();
    let of_first = runs.first().map(|run| {
        let columns = ["valid", "test"].into_iter().flat_map(|split| {
            let names = run.get(split).and_then(Value::as_object);
            let names = names.into_iter().flat_map(Map::keys);
            names.map(move |name| (split, name.clone()))
        });
        columns.collect::<Vec<_>>()
    });
    let columns = of_first.unwrap_or_default();
    let rows = runs.iter().map(|run| {
        let seed = run.get("seed").map_or("-".into(), ToString::to_string);
        let cells = columns.iter().map(|(split, metric)| {
            measured(run, split, metric).unwrap_or_else(|| Cell::number("-"))
        });
        Row::new(std::iter::once(Cell::text(seed)).chain(cells).collect())
    });
    let rows = rows.collect();
    let names = columns
        .iter()
        .map(|(split, name)| format!("{split} {name}"));
    Table {
        heading: "Seeds".into(),
        columns: std::iter::once("seed".to_owned()).chain(names).collect(),
        rows,
    }
}

/// Whatever else a summary says.
pub(super) fn summary_table(summary: &Map<String, Value>) -> Table {
    let facts = summary.iter().filter(|(name, value)| {
        !matches!(name.as_str(), "valid" | "test" | "runs" | "run") && !value.is_null()
    });
    let rows = facts.map(|(name, value)| {
        let mut cell = Cell::text(named(name, value));
        if value.is_number() {
            cell = cell.exactly(value);
        }
        Row::fact(&name.replace('_', " "), cell)
    });
    Table::facts("Summary", rows.collect())
}
