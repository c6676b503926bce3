//! `telly train --seeds`: one run after the other over one cache, and what they came to together.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::console;
use super::train::{Start, Training};
use crate::error::Error;
use crate::train::{RunFolder, RunGroup, TrainSettings};

/// Trains with each of `seeds` into a folder of its own in `out`, those that are finished left as
/// they are; the group's summary.
pub(super) fn train(
    training: &Training,
    seeds: &[u64],
    out: &Path,
    start: Start,
) -> Result<Map<String, Value>, Error> {
    if let Some(seed) = repeated(seeds) {
        return Err(Error::Usage {
            problem: format!("`--seeds` has {seed} twice"),
            hint: "give each seed once, as `--seeds 1,2,3`".into(),
        });
    }
    let group = match start {
        Start::New { force } => {
            let group = RunGroup::create(out, force)?;
            let settings = TrainSettings {
                seed: seeds[0],
                ..training.settings.clone()
            };
            group.write_recipe(&training.recipe(&settings, Some(seeds)))?;
            group
        }
        Start::Resumed => RunGroup::open(out),
    };
    for (number, &seed) in seeds.iter().enumerate() {
        let folder = group.run(seed);
        let heading = format!("seed {seed} ({} of {})", number + 1, seeds.len());
        if RunFolder::summary(&folder)?.is_some() {
            console::say(&format!("{heading} is finished"));
            continue;
        }
        console::say(&heading);
        let begun = RunFolder::recipe(&folder).is_ok();
        let start = if begun {
            Start::Resumed
        } else {
            Start::New { force: true }
        };
        let settings = TrainSettings {
            seed,
            ..training.settings.clone()
        };
        training.run(&settings, &folder, start, out)?;
    }
    Ok(group.finish(seeds)?)
}

fn repeated(seeds: &[u64]) -> Option<u64> {
    let mut seeds = seeds.to_vec();
    seeds.sort_unstable();
    seeds
        .windows(2)
        .find(|two| two[0] == two[1])
        .map(|two| two[0])
}

/// The summary of a run, or of a group as a table of its seeds.
pub(super) fn result(json: bool, summary: &Map<String, Value>) -> Result<(), Error> {
    let runs = summary.get("runs").and_then(Value::as_array);
    let Some(runs) = runs.filter(|_| !json) else {
        return console::result(json, summary);
    };
    let names: Vec<(&str, &String)> = ["valid", "test"]
        .into_iter()
        .flat_map(|split| {
            let metrics = summary.get(split).and_then(Value::as_object);
            let names = metrics.into_iter().flat_map(Map::keys);
            names.map(move |name| (split, name))
        })
        .collect();
    let row = |heading: String, number: &dyn Fn(&str, &str) -> Value| {
        let cells = names.iter().map(|(split, name)| {
            let number = number(split, name).as_f64();
            number.map_or_else(|| "-".into(), |number| format!("{number:.4}"))
        });
        std::iter::once(heading).chain(cells).collect::<Vec<_>>()
    };
    let heading = names.iter().map(|(split, name)| format!("{split} {name}"));
    let mut rows = vec![
        std::iter::once("seed".to_owned())
            .chain(heading)
            .collect::<Vec<_>>(),
    ];
    for run in runs {
        let of_run = |split: &str, name: &str| run[split][name].clone();
        rows.push(row(run["seed"].to_string(), &of_run));
    }
    let whole = json!(summary);
    for (heading, part) in [
        ("mean", "mean"),
        ("standard deviation", "standard_deviation"),
    ] {
        let of_group = |split: &str, name: &str| whole[split][name][part].clone();
        rows.push(row(heading.into(), &of_group));
    }
    console::table(&rows)
}
