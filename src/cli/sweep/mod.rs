//! `telly sweep`.

pub(super) mod flags;
pub(super) mod folder;
pub(super) mod process;
pub(super) mod table;

use std::path::PathBuf;
use std::str::FromStr;

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::cache::Precision;
use crate::checkpoint::Freeze;
use crate::cli::freeze_list::freezes;
use crate::cli::options::DeviceChoice;
use crate::cli::task::TaskOptions;
use crate::cli::{console, split_files};
use crate::error::Error;
use crate::frozen::{FrozenPrecision, ProviderChoice};
use crate::study::SIGNIFICANT;
use crate::trainable::Pooling;
use folder::{Sweep, Trained};

/// Train with several K, seeds and learning rates, and tell which K to take.
///
/// The caches of all K are filled in one pass over the data. Each K is compared with nothing frozen
/// (or the fewest frozen layers, where `none` is not swept) by a paired t-test over the seeds. Stopped
/// at any moment, the same command goes on where it was; more K, seeds and learning rates can be added
/// to a finished sweep.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly sweep --task classify --model models/all-MiniLM-L6-v2 --train train.jsonl \\
      --valid valid.jsonl --test test.jsonl --freeze none,0,2..5 --seeds 1,2,3 --out sweeps/mine
  telly sweep --recipe recipe.toml --freeze 4,5 --lr 5e-5,1e-4 --out sweeps/rates")]
pub(super) struct SweepArguments {
    /// The K to try: numbers, ranges as 2..5 with both ends, and none for ordinary fine-tuning.
    #[arg(long, value_name = "K,K", help_heading = "Sweep")]
    pub(super) freeze: SweptFreezes,
    /// Seeds of each; two or more for a test [default: those of the recipe, else 1,2,3].
    #[arg(
        long,
        value_name = "N,N",
        value_delimiter = ',',
        help_heading = "Sweep"
    )]
    pub(super) seeds: Option<Vec<u64>>,
    /// Peak learning rates of each [default: that of the recipe, else 5e-5].
    #[arg(
        long,
        value_name = "X,X",
        value_delimiter = ',',
        help_heading = "Sweep"
    )]
    pub(super) lr: Option<Vec<f64>>,
    /// Folder of the sweep: caches, runs, sweep.json, sweep.csv.
    #[arg(long, value_name = "FOLDER", help_heading = "Output")]
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) options: SweepOptions,
    /// TOML file with any of these flags and any other of `telly precompute` and `telly train`, `_`
    /// for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    pub(super) recipe: Option<PathBuf>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// What all runs share.
#[derive(Args, Serialize, Deserialize)]
pub(super) struct SweepOptions {
    #[command(flatten)]
    #[serde(flatten)]
    pub(super) task: TaskOptions,
    /// Folder of the pre-trained model, or owner/name[@revision] of one on the Hugging Face hub.
    #[arg(long, value_name = "MODEL", help_heading = "Input")]
    pub(super) model: Option<PathBuf>,
    /// Folder with the splits, as for `telly precompute`; --train, --valid and --test go before it.
    #[arg(long, value_name = "FOLDER", help_heading = "Input")]
    pub(super) data: Option<PathBuf>,
    /// Training split, as for `telly precompute`.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Input")]
    #[serde(default, with = "split_files")]
    pub(super) train: Option<Vec<PathBuf>>,
    /// Validation split: chooses the epoch that is kept, and each K's learning rate.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Input")]
    #[serde(default, with = "split_files")]
    pub(super) valid: Option<Vec<PathBuf>>,
    /// Test split: what is compared; without it that is the validation split.
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = "Input")]
    #[serde(default, with = "split_files")]
    test: Option<Vec<PathBuf>>,
    /// search: the codes that the queries of --valid and --test are searched in.
    #[arg(long, value_name = "FILE", help_heading = "Input")]
    code_base: Option<PathBuf>,
    /// Passes over the training split [default: 3].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) epochs: Option<usize>,
    /// Rows a batch [default: 32].
    #[arg(long, value_name = "N", help_heading = "Training")]
    pub(super) batch_size: Option<usize>,
    /// Dropout probability of the trained layers and the head [default: the model's own].
    #[arg(long, value_name = "P", help_heading = "Training")]
    dropout: Option<f64>,
    /// One vector a sequence [default: cls for classify and --head concat, else mean].
    #[arg(long, value_enum, help_heading = "Training")]
    pooling: Option<Pooling>,
    /// Stop a run after this many evaluations without a better metric.
    #[arg(long, value_name = "PATIENCE", help_heading = "Training")]
    early_stopping: Option<usize>,
    /// How activations are stored [default: fp16].
    #[arg(long, value_enum, help_heading = "Running")]
    precision: Option<Precision>,
    /// What the frozen half's linear layers compute in [default: fp32].
    #[arg(long, value_enum, help_heading = "Running")]
    frozen_precision: Option<FrozenPrecision>,
    /// Where the frozen half runs [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    provider: Option<ProviderChoice>,
    /// Where training runs [default: auto].
    #[arg(long, value_enum, help_heading = "Running")]
    device: Option<DeviceChoice>,
    /// CPU threads [default: one a core].
    #[arg(long, value_name = "N", help_heading = "Running")]
    threads: Option<usize>,
}

/// `--freeze` of a sweep: each once, nothing frozen first, then rising.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SweptFreezes(pub(super) Vec<Freeze>);

impl FromStr for SweptFreezes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut freezes = freezes(text)?;
        freezes.sort_unstable();
        freezes.dedup();
        Ok(Self(freezes))
    }
}

pub(super) fn run(arguments: &SweepArguments) -> Result<(), Error> {
    let sweep = Sweep::open(arguments)?;
    let mut costs = sweep.fill_caches()?;
    let mut trained = sweep.train_all()?;
    sweep.add_earlier(&mut trained, &mut costs)?;
    let Trained { runs, failed } = trained;
    if runs.is_empty() {
        return all_trained(failed);
    }
    let table = sweep.table(&runs, &costs, SIGNIFICANT)?;
    if arguments.json {
        console::print(&table.to_json().to_string())?;
    } else {
        table::print(&table)?;
    }
    all_trained(failed)
}

/// Tells of the runs that `failed`, if any did.
pub(super) fn all_trained(failed: Vec<String>) -> Result<(), Error> {
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Error::Runs { failed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<String, String> {
        let freezes: SweptFreezes = text.parse()?;
        let names: Vec<String> = freezes.0.iter().map(ToString::to_string).collect();
        Ok(names.join(" "))
    }

    #[test]
    fn freezes_are_lists_and_ranges() {
        assert_eq!(parsed("5, 2..4,none,3"), Ok("none 2 3 4 5".into()));
        assert_eq!(parsed("0"), Ok("0".into()));
        for wrong in ["", "4..2", "x", "1..", "none..2", "-1", "0..9999"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
    }
}
