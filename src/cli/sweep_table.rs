//! What a sweep came to, for people and for spreadsheets.

use super::console;
use crate::error::Error;
use crate::study::{Row, Spread, Table};

/// How numbers are written.
enum Show {
    /// For people.
    Shortly,
    /// For programs.
    Plainly,
}

/// The table's lines, a heading first.
fn cells(table: &Table, show: &Show) -> Vec<Vec<String>> {
    let heading = match show {
        Show::Shortly => [
            "K",
            "learning rate",
            "trained",
            "precompute",
            "epoch",
            "training",
            "memory",
            "cache",
            "valid",
            "test",
            "against base",
            "p",
        ],
        Show::Plainly => [
            "freeze",
            "lr",
            "trainable_parameters",
            "precompute_seconds",
            "epoch_seconds",
            "train_seconds",
            "peak_rss_bytes",
            "cache_bytes",
            "valid,valid_standard_deviation",
            "test,test_standard_deviation",
            "difference",
            "p_value",
        ],
    };
    let rows = table.rows.iter().map(|row| row_cells(row, show));
    std::iter::once(heading.map(String::from).to_vec())
        .chain(rows)
        .collect()
}

fn row_cells(row: &Row, show: &Show) -> Vec<String> {
    let shortly = matches!(show, Show::Shortly);
    let seconds = |number: f64| {
        if shortly {
            format!("{number:.1} s")
        } else {
            number.to_string()
        }
    };
    let bytes = |number: f64| {
        if shortly {
            format!("{:.0} MB", number / 1e6)
        } else {
            number.to_string()
        }
    };
    let spread = |spread: Option<Spread>| match spread {
        None if shortly => "-".into(),
        None => ",".into(),
        Some(Spread {
            mean,
            standard_deviation,
        }) if shortly => {
            format!("{mean:.4} ± {standard_deviation:.4}")
        }
        Some(Spread {
            mean,
            standard_deviation,
        }) => format!("{mean},{standard_deviation}"),
    };
    let test = row.against_base;
    let difference = test.map(|test| {
        if shortly {
            format!("{:+.4}", test.difference)
        } else {
            test.difference.to_string()
        }
    });
    let p_value = test.map(|test| {
        if shortly {
            format!("{:.3}", test.p_value)
        } else {
            test.p_value.to_string()
        }
    });
    let nothing = || {
        if shortly {
            "-".to_owned()
        } else {
            String::new()
        }
    };
    let parameters = row.trainable_parameters;
    vec![
        row.freeze.to_string(),
        format!("{:e}", row.lr),
        if shortly {
            format!("{:.1} M", parameters / 1e6)
        } else {
            parameters.to_string()
        },
        seconds(row.cache.seconds),
        seconds(row.epoch_seconds),
        seconds(row.train_seconds),
        bytes(row.peak_rss_bytes),
        bytes(row.cache.bytes as f64),
        spread(row.valid),
        spread(row.test),
        difference.unwrap_or_else(nothing),
        p_value.unwrap_or_else(nothing),
    ]
}

/// The table for spreadsheets.
pub(super) fn csv(table: &Table) -> String {
    let rows = cells(table, &Show::Plainly);
    rows.iter().map(|row| row.join(",") + "\n").collect()
}

/// Prints the table and what follows from it.
pub(super) fn print(table: &Table) -> Result<(), Error> {
    console::table(&cells(table, &Show::Shortly))?;
    console::print("")?;
    for line in conclusion(table) {
        console::print(&line)?;
    }
    Ok(())
}

/// Which K to take, and how sure that is.
fn conclusion(table: &Table) -> Vec<String> {
    let Table {
        metric,
        split,
        base,
        ..
    } = table;
    let seeds = table
        .rows
        .iter()
        .map(|row| row.seeds.len())
        .min()
        .unwrap_or(0);
    let mut lines = vec![format!(
        "{metric} on the {split} split, mean ± standard deviation of {seeds} seeds; compared with K = {base} by a paired t-test"
    )];
    if table.rows.iter().any(|row| row.cache.caches > 1) {
        lines.push("precompute: of the one pass that filled the caches of several K".into());
    }
    if seeds < 2 {
        lines.push("one seed tells nothing about chance: pass two or more with `--seeds`".into());
        return lines;
    }
    let Some(row) = table.cheapest_not_worse() else {
        let others = table.rows.iter().any(|row| row.freeze != *base);
        if others {
            lines.push(format!(
                "every other K is significantly worse (p < 0.05): take K = {base}"
            ));
        }
        return lines;
    };
    let interval = row.against_base.map_or([f64::NAN; 2], |test| test.interval);
    lines.push(format!(
        "take K = {} (learning rate {:e}): the shortest epochs of those not significantly worse (p < 0.05); its {metric} lies between {:+.4} and {:+.4} of that of K = {base} with 95 % confidence",
        row.freeze, row.lr, interval[0], interval[1]
    ));
    lines
}
