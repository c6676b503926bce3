//! `telly estimate`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::options::{DeviceChoice, missing};
use super::{console, hub, recipe};
use crate::cache::{Precision, SHARD_BYTES};
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::error::Error;
use crate::estimate::{self, Estimate, FrozenShape, Place, TrainingShape};
use crate::frozen::{FrozenPrecision, ProviderChoice};
use crate::task::TaskKind;
use crate::trainable::{Ops, Pooling};

/// Predict the peak memory of precompute and train from shapes, before anything is run.
///
/// Of the model only config.json is read. On the CPU it is the peak of the process's resident
/// memory, for a card that of the device. Sequences are taken to be as long as they may be.
#[derive(Args)]
#[command(after_help = "\
Examples:
  telly estimate --model models/all-MiniLM-L6-v2 --freeze 4 --batch-size 32 --rows 10000
  telly estimate --model models/all-mpnet-base-v2 --freeze 10 --device cuda --memory-budget 2GiB
  telly estimate --recipe recipes/defect.toml --rows 21854")]
pub(super) struct EstimateArguments {
    #[command(flatten)]
    options: EstimateOptions,
    /// TOML file with any flags of precompute and train, `_` for `-`; a flag typed wins.
    #[arg(long, value_name = "FILE")]
    recipe: Option<PathBuf>,
    /// Rows of all splits: for the cache on disk; of fewer than four batches training keeps less.
    #[arg(long, value_name = "N")]
    rows: Option<usize>,
    /// The trained layers' operations: fused on the CPU, composed on a card [default: as the device].
    #[arg(long, value_enum)]
    ops: Option<OpsChoice>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

/// `--ops`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum OpsChoice {
    /// Written out for the CPU.
    Fused,
    /// candle's own.
    Composed,
}

/// Those flags of `precompute` and `train` that memory follows from.
#[derive(Args, Serialize, Deserialize)]
struct EstimateOptions {
    /// What is to be learnt [default: classify].
    #[arg(long, value_enum)]
    task: Option<TaskKind>,
    /// The pre-trained model, a folder or owner/name[@revision] on the hub.
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// Freeze the embeddings and layers 0..K-1; none: nothing.
    #[arg(long, value_name = "K")]
    freeze: Option<Freeze>,
    /// classify, clone: most tokens of a text [default: 256, for clone 512].
    #[arg(long, value_name = "TOKENS")]
    max_length: Option<usize>,
    /// search: most tokens of a query [default: 128].
    #[arg(long, value_name = "TOKENS")]
    max_query_length: Option<usize>,
    /// search: most tokens of a code [default: 256].
    #[arg(long, value_name = "TOKENS")]
    max_code_length: Option<usize>,
    /// Rows a batch [default: 32].
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Rows kept for the backward pass at a time [default: all of a batch].
    #[arg(long, value_name = "ROWS")]
    micro_batch: Option<usize>,
    /// Say which micro-batch stays within so much memory, as 2GiB.
    #[arg(long, value_name = "SIZE")]
    memory_budget: Option<ByteSize>,
    /// One vector a sequence [default: cls for classify, else mean].
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Dropout probability [default: the model's own].
    #[arg(long, value_name = "P")]
    dropout: Option<f64>,
    /// How the cache stores activations [default: fp16].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
    /// What the frozen half computes in [default: fp32].
    #[arg(long, value_enum)]
    frozen_precision: Option<FrozenPrecision>,
    /// Most bytes of a file of the cache [default: 128MiB].
    #[arg(long, value_name = "SIZE")]
    shard_size: Option<ByteSize>,
    /// Where training runs: auto counts as the CPU [default: auto].
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// Where the frozen half runs: auto counts as the CPU [default: auto].
    #[arg(long, value_enum)]
    provider: Option<ProviderChoice>,
    /// CPU threads [default: one a core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub(super) fn run(arguments: &EstimateArguments) -> Result<(), Error> {
    let options: EstimateOptions =
        recipe::resolve(&arguments.options, arguments.recipe.as_deref())?;
    let model = options.model.as_deref().ok_or_else(|| missing("--model"))?;
    let freeze = options.freeze.ok_or_else(|| missing("--freeze"))?;
    let config = EncoderConfig::read(&hub::located(model)?.join("config.json"))?;
    if freeze.layers() > config.layers {
        return Err(Error::Usage {
            problem: format!(
                "`--freeze {freeze}` is more than the {} layers of the model",
                config.layers
            ),
            hint: format!("pass at most {}", config.layers),
        });
    }
    let at_least_one = [
        ("--batch-size", options.batch_size),
        ("--micro-batch", options.micro_batch),
        ("--rows", arguments.rows),
        ("--threads", options.threads),
        ("--max-length", options.max_length),
    ];
    if let Some((flag, _)) = at_least_one.iter().find(|(_, found)| *found == Some(0)) {
        return Err(Error::Usage {
            problem: format!("`{flag} 0` is out of range"),
            hint: "expected 1 or more".into(),
        });
    }
    let frozen = frozen_shape(&options, arguments.rows);
    let training = training_shape(&options, arguments, &config)?;
    let (precompute, train) = (
        estimate::precompute(&config, freeze, &frozen),
        estimate::train(&config, freeze, &training),
    );
    let mut object = Map::new();
    object.insert(
        "cache_bytes".into(),
        json!(frozen.cache_bytes(&config, freeze)),
    );
    object.insert("precompute".into(), precompute.to_json());
    object.insert("train".into(), train.to_json());
    if let Some(budget) = options.memory_budget {
        let budget = budget.as_u64();
        let pick = estimate::pick(&config, freeze, &training, budget);
        let Some(rows) = pick.rows else {
            return Err(Error::Usage {
                problem: format!(
                    "`--memory-budget` of {budget} bytes is too small: one row at a time takes {} bytes",
                    pick.estimate.peak()
                ),
                hint: "raise it, freeze more layers, or shorten the sequences".into(),
            });
        };
        object.insert("micro_batch".into(), json!(rows));
        object.insert("within_budget".into(), pick.estimate.to_json());
    }
    if arguments.json {
        return console::result(true, &object);
    }
    print(&object, &[("precompute", &precompute), ("train", &train)])
}

/// A row a term, in MiB.
fn print(object: &Map<String, Value>, commands: &[(&str, &Estimate)]) -> Result<(), Error> {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut rows = vec![["command", "memory", "bytes"].map(String::from).to_vec()];
    for (command, estimate) in commands {
        for term in &estimate.terms {
            rows.push(vec![
                (*command).into(),
                term.name.into(),
                mebibytes(term.bytes),
            ]);
        }
        let moment = format!("peak, {}", estimate.moment);
        rows.push(vec![(*command).into(), moment, mebibytes(estimate.peak())]);
    }
    if let Some(bytes) = object["cache_bytes"].as_u64() {
        rows.push(vec!["cache".into(), "on disk".into(), mebibytes(bytes)]);
    }
    if let (Some(picked), Some(within)) = (object.get("micro_batch"), object.get("within_budget")) {
        let peak = within["peak_bytes"].as_u64().unwrap_or_default();
        let name = format!("peak with --micro-batch {picked}");
        rows.push(vec!["train".into(), name, mebibytes(peak)]);
    }
    console::table(&rows)
}

fn threads(options: &EstimateOptions) -> usize {
    options.threads.unwrap_or_else(num_cpus::get_physical)
}

/// Tokens of a sequence, and sequences a row. Of two lengths the longer counts.
fn length_and_columns(options: &EstimateOptions) -> (usize, usize) {
    match options.task.unwrap_or(TaskKind::Classify) {
        TaskKind::Classify => (options.max_length.unwrap_or(256), 1),
        TaskKind::Clone => (options.max_length.unwrap_or(512), 2),
        TaskKind::Search => {
            let query = options.max_query_length.unwrap_or(128);
            (options.max_code_length.unwrap_or(256).max(query), 2)
        }
    }
}

fn frozen_shape(options: &EstimateOptions, rows: Option<usize>) -> FrozenShape {
    let (length, columns) = length_and_columns(options);
    FrozenShape {
        length,
        sequences: rows.map(|rows| rows * columns),
        precision: options.precision.unwrap_or(Precision::Fp16),
        frozen_precision: options.frozen_precision.unwrap_or_default(),
        shard_bytes: options
            .shard_size
            .map_or(SHARD_BYTES as u64, |size| size.as_u64()),
        threads: threads(options),
        place: match options.provider {
            Some(ProviderChoice::Cuda) => Place::Cuda,
            _ => Place::Cpu,
        },
    }
}

fn training_shape(
    options: &EstimateOptions,
    arguments: &EstimateArguments,
    config: &EncoderConfig,
) -> Result<TrainingShape, Error> {
    let (length, columns) = length_and_columns(options);
    let place = match options.device {
        Some(DeviceChoice::Cuda) => Place::Cuda,
        _ => Place::Cpu,
    };
    let ops = match (arguments.ops, place) {
        (Some(OpsChoice::Fused), Place::Cuda) => {
            return Err(Error::Usage {
                problem: "`--ops fused` is written out for the CPU".into(),
                hint: "leave it out with `--device cuda`".into(),
            });
        }
        (Some(OpsChoice::Fused), _) | (None, Place::Cpu) => Ops::Fused,
        (Some(OpsChoice::Composed), _) | (None, Place::Cuda) => Ops::Composed,
    };
    let classify = options.task.is_none_or(|task| task == TaskKind::Classify);
    let usual = if classify {
        Pooling::Cls
    } else {
        Pooling::Mean
    };
    let dropout = options.dropout.unwrap_or(config.dropout.probabilities);
    Ok(TrainingShape {
        batch_size: options.batch_size.unwrap_or(32),
        columns,
        length,
        rows: arguments.rows,
        // Two classes; a head is small beside a layer.
        head: if classify {
            2 * (config.hidden_size + 1)
        } else {
            0
        },
        pruned: options.pooling.unwrap_or(usual) == Pooling::Cls,
        dropout: dropout > 0.0,
        keeps_best: true,
        ops,
        place,
        threads: threads(options),
        micro_batch: options.micro_batch,
    })
}
