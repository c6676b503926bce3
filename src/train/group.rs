//! Runs that differ in their seed alone, side by side in one folder.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};

use super::run_folder::{RECIPE, SUMMARY, clear};
use super::{Error, RunFolder};
use crate::publish::publish;

/// What the folders of a group's runs begin with; the seed follows.
const SEED: &str = "seed-";

/// A folder of runs, with a recipe that repeats all of them and a summary of theirs.
pub struct RunGroup {
    folder: PathBuf,
}

impl RunGroup {
    /// Makes `folder`. One that holds something is refused, or with `force` emptied of what runs
    /// and groups write.
    pub fn create(folder: &Path, force: bool) -> Result<Self, Error> {
        let occupied = fs_err::read_dir(folder).is_ok_and(|mut entries| entries.next().is_some());
        if occupied && !force {
            return Err(Error::RunExists {
                folder: folder.to_owned(),
            });
        }
        fs_err::create_dir_all(folder).map_err(Error::Write)?;
        clear(folder)?;
        for entry in fs_err::read_dir(folder).map_err(Error::Read)? {
            let entry = entry.map_err(Error::Read)?;
            let name = entry.file_name();
            let seed = name.to_str().and_then(|name| name.strip_prefix(SEED));
            if seed.is_some_and(|seed| seed.parse::<u64>().is_ok()) {
                clear(&entry.path())?;
                // It stays if there is anything else in it.
                let _ = fs_err::remove_dir(entry.path());
            }
        }
        Ok(Self::open(folder))
    }

    /// The group in `folder`.
    pub fn open(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
        }
    }

    /// The folder of the run with `seed`.
    pub fn run(&self, seed: u64) -> PathBuf {
        self.folder.join(format!("{SEED}{seed}"))
    }

    /// Writes `recipe.toml`.
    pub fn write_recipe(&self, recipe: &str) -> Result<(), Error> {
        publish(&self.folder, RECIPE, recipe.as_bytes()).map_err(Error::Write)
    }

    /// Writes and returns the summary of the finished runs of `seeds`: of each metric the mean and
    /// the standard deviation of a sample, that by n - 1.
    pub fn finish(&self, seeds: &[u64]) -> Result<Map<String, Value>, Error> {
        let mut runs = Vec::new();
        for &seed in seeds {
            let folder = self.run(seed);
            let summary = RunFolder::summary(&folder)?.ok_or_else(|| Error::NoRun {
                folder: folder.clone(),
                file: SUMMARY,
            })?;
            let mut run = Map::from_iter([("seed".to_owned(), json!(seed))]);
            run.extend(summary);
            runs.push(run);
        }
        let sum = |name: &str| -> f64 { numbers(&runs, |run| run.get(name)).iter().sum() };
        let summary = json!({
            "seeds": seeds,
            "seconds": sum("seconds"),
            "valid": statistics(&runs, "valid"),
            "test": statistics(&runs, "test"),
            "runs": runs,
            "run": self.folder.display().to_string(),
        });
        publish(&self.folder, SUMMARY, format!("{summary:#}\n").as_bytes())
            .map_err(Error::Write)?;
        match summary {
            Value::Object(map) => Ok(map),
            _ => unreachable!("an object"),
        }
    }
}

fn numbers<'a>(
    runs: &'a [Map<String, Value>],
    number: impl Fn(&'a Map<String, Value>) -> Option<&'a Value>,
) -> Vec<f64> {
    runs.iter()
        .filter_map(|run| number(run)?.as_f64())
        .collect()
}

/// Of each metric on `split`.
fn statistics(runs: &[Map<String, Value>], split: &str) -> Map<String, Value> {
    let names = runs.first().and_then(|run| run.get(split)?.as_object());
    let names = names.into_iter().flat_map(Map::keys);
    let metrics = names.map(|name| {
        let (mean, deviation) = mean_and_deviation(&numbers(runs, |run| run.get(split)?.get(name)));
        let statistics = json!({ "mean": mean, "standard_deviation": deviation });
        (name.clone(), statistics)
    });
    metrics.collect()
}

/// The mean, and the standard deviation of a sample, which one number has none of.
pub fn mean_and_deviation(numbers: &[f64]) -> (f64, Option<f64>) {
    let count = numbers.len() as f64;
    let mean = numbers.iter().sum::<f64>() / count;
    let squares: f64 = numbers.iter().map(|number| (number - mean).powi(2)).sum();
    let deviation = (numbers.len() > 1).then(|| (squares / (count - 1.0)).sqrt());
    (mean, deviation)
}

#[cfg(test)]
mod tests {
    use super::mean_and_deviation;

    #[test]
    fn the_deviation_is_that_of_a_sample() {
        // As statistics.stdev of Python.
        let (mean, deviation) = mean_and_deviation(&[0.5, 0.75, 1.0, 0.25]);
        assert!((mean - 0.625).abs() < 1e-15);
        assert!((deviation.expect("of four") - 0.322_748_612_183_951_4).abs() < 1e-15);
        assert_eq!(mean_and_deviation(&[3.0]), (3.0, None));
    }
}
