//! What a sweep came to, for people and for spreadsheets.

use crate::cli::console;
use crate::error::Error;
use crate::study::{AgainstBase, Row, Spread, Table, Verdict};

/// The table for spreadsheets: a heading, and a line for each K and learning rate; what is not known is
/// empty.
pub(super) fn csv(table: &Table) -> String {
    let heading = [
        "freeze",
        "lr",
        "trainable_parameters",
        "precompute_seconds",
        "epoch_seconds",
        "train_seconds",
        "peak_rss_bytes",
        "cache_bytes",
        "valid",
        "valid_standard_deviation",
        "test",
        "test_standard_deviation",
        "difference",
        "p_value",
    ];
    let rows = table.rows.iter().map(|row| {
        let test = row.against_base.map(|against| against.test);
        let mean = |spread: Option<Spread>| spread.map(|spread| spread.mean);
        let deviation = |spread: Option<Spread>| spread?.standard_deviation;
        let numbers = [
            row.trainable_parameters,
            row.precompute_seconds,
            row.epoch_seconds,
            row.train_seconds,
            row.peak_rss_bytes,
            Some(row.cache_bytes as f64),
            mean(row.valid),
            deviation(row.valid),
            mean(row.test),
            deviation(row.test),
            test.map(|test| test.difference),
            test.map(|test| test.p_value),
        ];
        let numbers = numbers.map(|number| number.map_or(String::new(), |it| it.to_string()));
        let cells = [row.freeze.to_string(), format!("{:e}", row.lr)];
        cells.into_iter().chain(numbers).collect::<Vec<_>>()
    });
    let heading = heading.map(String::from).to_vec();
    let lines = std::iter::once(heading).chain(rows);
    lines.map(|line| line.join(",") + "\n").collect()
}

/// Prints the table and what follows from it.
pub(super) fn print(table: &Table) -> Result<(), Error> {
    print_rows(table)?;
    console::print("")?;
    for line in conclusion(table) {
        console::print(&line)?;
    }
    Ok(())
}

/// Prints the table.
pub(in crate::cli) fn print_rows(table: &Table) -> Result<(), Error> {
    let heading = [
        "K",
        "learning rate",
        "parameters",
        "precompute",
        "epoch",
        "training",
        "memory",
        "cache",
        "valid",
        "test",
        "against base",
        "p",
    ];
    let rows = table.rows.iter().map(cells);
    let rows: Vec<Vec<String>> = std::iter::once(heading.map(String::from).to_vec())
        .chain(rows)
        .collect();
    console::table(&rows)
}

fn cells(row: &Row) -> Vec<String> {
    let known = |number: Option<f64>, write: &dyn Fn(f64) -> String| {
        number.map_or_else(|| "-".to_owned(), write)
    };
    let seconds = |number| known(number, &|seconds| format!("{seconds:.1} s"));
    let megabytes = |number| known(number, &|bytes| format!("{:.0} MB", bytes / 1e6));
    let spread = |spread: Option<Spread>| spread.map_or("-".into(), |spread| spread.to_string());
    let test = row.against_base.map(|against| against.test);
    vec![
        row.freeze.to_string(),
        format!("{:e}", row.lr),
        known(row.trainable_parameters, &|count| {
            format!("{:.1} M", count / 1e6)
        }),
        seconds(row.precompute_seconds),
        seconds(row.epoch_seconds),
        seconds(row.train_seconds),
        megabytes(row.peak_rss_bytes),
        megabytes(Some(row.cache_bytes as f64)),
        spread(row.valid),
        spread(row.test),
        known(test.map(|test| test.difference), &|number| {
            format!("{number:+.4}")
        }),
        test.map_or("-".into(), |test| test.p_value_text()),
    ]
}

/// Which K to take, and how sure that is.
pub(in crate::cli) fn conclusion(table: &Table) -> Vec<String> {
    let Table {
        metric,
        split,
        base,
        significance_level: level,
        ..
    } = table;
    let verdict = table.verdict();
    let mut lines = vec![if table.seeds()[1] < 2 {
        format!("{metric} on the {split} split")
    } else {
        format!(
            "{metric} on the {split} split, mean ± standard deviation of {}; compared with K = {base} by a paired t-test",
            table.seeds_text()
        )
    }];
    if table.rows.iter().any(|row| row.precompute_caches > 1) {
        lines.push("precompute: of the one pass that filled the caches of several K".into());
    }
    lines.push(match verdict {
        Verdict::NothingElse => return lines,
        Verdict::OneSeed => {
            "one seed tells nothing about chance: pass two or more with `--seeds`".into()
        }
        Verdict::Take(row, AgainstBase { test, .. }) => format!(
            "take K = {} (learning rate {:e}): the shortest epochs of those not significantly worse (p < {level}); with 95 % confidence its {metric} differs from that of K = {base} by {:+.4} to {:+.4}",
            row.freeze, row.lr, test.interval[0], test.interval[1]
        ),
        Verdict::AllWorse => {
            format!("every other K is significantly worse (p < {level}): take K = {base}")
        }
        Verdict::NoneFaster => format!(
            "no other K is faster without being significantly worse (p < {level}): take K = {base}"
        ),
        Verdict::NotTested => "no K is recommended".into(),
    });
    lines.extend(untested(table));
    lines
}

/// Which K the table cannot tell of, if there are any.
fn untested(table: &Table) -> Option<String> {
    let names: Vec<String> = table.untested().iter().map(ToString::to_string).collect();
    let worth_telling = !names.is_empty() && table.seeds()[1] > 1;
    worth_telling.then(|| {
        format!(
            "not judged beside K = {}, for want of a seed or because {} is no number: K = {}",
            table.base,
            table.metric,
            names.join(", ")
        )
    })
}
