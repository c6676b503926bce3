//! `telly estimate`.

use std::path::PathBuf;

use bytesize::ByteSize;
use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};

use super::freeze_list::check_depth;
use super::options::{DeviceChoice, exact_bytes, missing};
use super::task::{
    CLASSIFY_LENGTH, CLONE_LENGTH, CODE_LENGTH, QUERY_LENGTH, foreign_flag, written,
};
use super::{console, hub, recipe};
use crate::cache::{Precision, SHARD_BYTES};
use crate::checkpoint::{EncoderConfig, Freeze};
use crate::error::Error;
use crate::estimate::{Estimate, Place};
use crate::frozen::{FrozenPrecision, ProviderChoice};
use crate::precompute::FrozenShape;
use crate::task::TaskKind;
use crate::train::{Lengths, TrainSettings, TrainingShape};
use crate::trainable::{Footprint, MixedPrecision, OpsChoice, PartLimit, Pooling};

/// Tell the peak memory of precompute and train from shapes, before anything is run.
///
/// Of the model only config.json is read. On the CPU it is the peak of the process's resident
/// memory, for a card that of the card, which has not been measured on one. `--memory-budget` says
/// what `telly train` would work on at a time within it.
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
    /// Tokens of a text on average, if they are not all as long as they may be; memory that is used
    /// again fits the next batch less well then.
    #[arg(long, value_name = "TOKENS")]
    mean_length: Option<f64>,
    /// End with one JSON object on stdout.
    #[arg(long)]
    json: bool,
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
    /// summarize, generate, complete: most tokens of a source [default: 256, 350, 936].
    #[arg(long, value_name = "TOKENS")]
    max_source_length: Option<usize>,
    /// summarize, generate, complete: most tokens of a target [default: 128, 150, 64].
    #[arg(long, value_name = "TOKENS")]
    max_target_length: Option<usize>,
    /// summarize, generate, complete: the matrix from states to words is trained.
    #[arg(long)]
    #[serde(default)]
    train_head: bool,
    /// Rows a batch [default: 32].
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Rows kept for the backward pass at a time [default: all of a batch].
    #[arg(long, value_name = "ROWS")]
    micro_batch: Option<usize>,
    /// Memory that training may take, as 2GiB.
    #[arg(long, value_name = "SIZE")]
    #[serde(serialize_with = "exact_bytes")]
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
    /// What the frozen half's linear layers compute in [default: fp32].
    #[arg(long, value_enum)]
    frozen_precision: Option<FrozenPrecision>,
    /// Most bytes of a file of the cache [default: 128MiB].
    #[arg(long, value_name = "SIZE")]
    #[serde(serialize_with = "exact_bytes")]
    shard_size: Option<ByteSize>,
    /// Where training runs; auto counts as the CPU here [default: auto].
    #[arg(long, value_enum)]
    device: Option<DeviceChoice>,
    /// What the trained layers are computed by: auto is fused on the CPU, composed on CUDA
    /// [default: auto].
    #[arg(long, value_enum)]
    ops: Option<OpsChoice>,
    /// What matrix products of the trained layers compute in; by composed operations
    /// [default: none].
    #[arg(long, value_enum, value_name = "TYPE")]
    mixed_precision: Option<MixedPrecision>,
    /// Keep of each trained layer its input alone, and compute it again on the way back.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    recompute: Option<bool>,
    /// Where the frozen half runs; auto counts as the CPU here [default: auto].
    #[arg(long, value_enum)]
    provider: Option<ProviderChoice>,
    /// Tokens of a batch of the frozen half, padding included [default: 512 on the CPU, 8192 on a
    /// card].
    #[arg(long, value_name = "N")]
    batch_tokens: Option<usize>,
    /// CPU threads [default: one a core].
    #[arg(long, value_name = "N")]
    threads: Option<usize>,
}

pub(super) fn run(arguments: &EstimateArguments) -> Result<(), Error> {
    let options: EstimateOptions =
        recipe::resolve(&arguments.options, arguments.recipe.as_deref())?;
    let model = options.model.as_deref().ok_or_else(|| missing("--model"))?;
    let freeze = options.freeze.ok_or_else(|| missing("--freeze"))?;
    let mut config = EncoderConfig::read(&hub::located(model)?.join("config.json"))?;
    check_depth(&freeze, freeze.layers(), model, config.layers)?;
    check(&options, arguments, &config)?;
    if let Some(dropout) = options.dropout {
        config.dropout.set_all(dropout);
    }
    let frozen = frozen_shape(&options, arguments.rows, &config);
    let training = training_shape(&options, arguments, &config, freeze)?;
    let limit = options
        .micro_batch
        .map_or(PartLimit::NONE, |rows| PartLimit {
            sequences: rows * training.columns,
            ..PartLimit::NONE
        });
    let precompute = frozen.estimate(&config, freeze);
    let train = training.estimate(limit);
    let cache_bytes = frozen.cache_bytes(&config, freeze);
    let mut object = Map::new();
    object.insert("cache_bytes".into(), json!(cache_bytes));
    object.insert("precompute".into(), precompute.to_json());
    object.insert("train".into(), train.to_json());
    let mut estimates = vec![("precompute", precompute), ("train", train)];
    let mut picked = None;
    if let Some(budget) = options.memory_budget {
        let pick = training.within(budget.as_u64());
        if !pick.fits {
            return Err(too_small(budget.as_u64(), pick.estimate.peak()));
        }
        let sequences = training.sequences_at_a_time(pick.limit);
        let tokens = Some(pick.limit.tokens).filter(|&tokens| tokens < usize::MAX);
        object.insert("tokens_at_a_time".into(), json!(tokens));
        object.insert("micro_batch".into(), json!(sequences / training.columns));
        object.insert("within_budget".into(), pick.estimate.to_json());
        picked = Some((sequences, tokens));
        estimates.push(("train within the budget", pick.estimate));
    }
    if arguments.json {
        return console::result(true, &object);
    }
    print(&estimates, cache_bytes)?;
    if let Some((sequences, tokens)) = picked {
        console::say(&match tokens {
            Some(tokens) => format!(
                "within the budget {sequences} sequences, {tokens} tokens at most, are worked on at a time"
            ),
            None => "whole batches are within the budget".into(),
        });
    }
    Ok(())
}

fn too_small(budget: u64, needed: u64) -> Error {
    Error::Usage {
        problem: format!(
            "`--memory-budget {}` is too small: one sequence at a time takes {}",
            ByteSize(budget),
            ByteSize(needed)
        ),
        hint: "raise it, pass `--recompute`, freeze more layers, shorten the sequences, or lower `--batch-size`".into(),
    }
}

/// Refuses what no run could be told.
fn check(
    options: &EstimateOptions,
    arguments: &EstimateArguments,
    config: &EncoderConfig,
) -> Result<(), Error> {
    let out_of_range = |flag: &str, found: String, expected: String| Error::Usage {
        problem: format!("`{flag} {found}` is out of range"),
        hint: format!("expected {expected}"),
    };
    let at_least_one = [
        ("--batch-size", options.batch_size),
        ("--micro-batch", options.micro_batch),
        ("--batch-tokens", options.batch_tokens),
        ("--rows", arguments.rows),
        ("--threads", options.threads),
        ("--max-length", options.max_length),
        ("--max-query-length", options.max_query_length),
        ("--max-code-length", options.max_code_length),
        ("--max-source-length", options.max_source_length),
        ("--max-target-length", options.max_target_length),
    ];
    if let Some((flag, _)) = at_least_one.iter().find(|(_, found)| *found == Some(0)) {
        return Err(out_of_range(flag, "0".into(), "1 or more".into()));
    }
    if let Some(dropout) = options.dropout.filter(|found| !(0.0..1.0).contains(found)) {
        let expected = "0 or more and less than 1".into();
        return Err(out_of_range("--dropout", dropout.to_string(), expected));
    }
    let task = options.task.unwrap_or(TaskKind::Classify);
    if options.max_length.is_some() && written(task).is_some() {
        return Err(foreign_flag("--max-length", task));
    }
    let (length, _) = length_and_columns(options, config);
    let longest = config.longest_sequence();
    if length > longest {
        return Err(Error::Usage {
            problem: format!("sequences of {length} tokens, and the model takes {longest}"),
            hint: format!("pass lengths of at most {longest}"),
        });
    }
    let mean = arguments.mean_length;
    if let Some(mean) = mean.filter(|mean| !(1.0..=length as f64).contains(mean)) {
        let expected = format!("1 or more, and no more than the longest, {length}");
        return Err(out_of_range("--mean-length", mean.to_string(), expected));
    }
    Ok(())
}

/// A row a term, in MiB.
fn print(estimates: &[(&str, Estimate)], cache_bytes: Option<u64>) -> Result<(), Error> {
    let mebibytes = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let mut rows = vec![["command", "memory", "size"].map(String::from).to_vec()];
    for (command, estimate) in estimates {
        for term in &estimate.terms {
            let name = term.name.to_owned();
            rows.push(vec![(*command).into(), name, mebibytes(term.bytes)]);
        }
        let moment = format!("peak, {}", estimate.moment);
        rows.push(vec![(*command).into(), moment, mebibytes(estimate.peak())]);
    }
    if let Some(bytes) = cache_bytes {
        rows.push(vec!["cache".into(), "on disk".into(), mebibytes(bytes)]);
    }
    console::table(&rows)
}

/// Most tokens of a sequence, and sequences a row. Of two lengths the longer counts.
fn length_and_columns(options: &EstimateOptions, config: &EncoderConfig) -> (usize, usize) {
    let task = options.task.unwrap_or(TaskKind::Classify);
    if let Some((_, [source, target])) = written(task) {
        // Both are in one sequence.
        let longest = config.longest_sequence();
        let told = options.max_source_length.is_some() || options.max_target_length.is_some();
        let both = options.max_source_length.unwrap_or(source)
            + options.max_target_length.unwrap_or(target);
        return (if told { both } else { both.min(longest) }, 1);
    }
    match task {
        TaskKind::Classify => (options.max_length.unwrap_or(CLASSIFY_LENGTH), 1),
        TaskKind::Clone => {
            let usual = CLONE_LENGTH.min(config.longest_sequence());
            (options.max_length.unwrap_or(usual), 2)
        }
        TaskKind::Search => {
            let query = options.max_query_length.unwrap_or(QUERY_LENGTH);
            (options.max_code_length.unwrap_or(CODE_LENGTH).max(query), 2)
        }
        TaskKind::Summarize | TaskKind::Generate | TaskKind::Complete => {
            unreachable!("text is written")
        }
    }
}

fn frozen_shape(
    options: &EstimateOptions,
    rows: Option<usize>,
    config: &EncoderConfig,
) -> FrozenShape {
    let (length, columns) = length_and_columns(options, config);
    FrozenShape {
        length,
        sequences: rows.map(|rows| rows * columns),
        precision: options.precision.unwrap_or(Precision::Fp16),
        frozen_precision: options.frozen_precision.unwrap_or_default(),
        shard_bytes: options
            .shard_size
            .map_or(SHARD_BYTES as u64, |size| size.as_u64()),
        threads: options.threads.unwrap_or_else(num_cpus::get_physical),
        batch_tokens: options.batch_tokens,
        place: match options.provider {
            Some(ProviderChoice::Cuda | ProviderChoice::Tensorrt) => Place::Cuda,
            _ => Place::Cpu,
        },
    }
}

/// Numbers of the head that are trained, and that are not.
fn head(options: &EstimateOptions, config: &EncoderConfig, freeze: Freeze) -> [usize; 2] {
    let task = options.task.unwrap_or(TaskKind::Classify);
    if task == TaskKind::Classify {
        // Two classes; a head is small beside a layer.
        return [2 * (config.hidden_size + 1), 0];
    }
    if written(task).is_none() {
        return [0, 0];
    }
    let matrix = config.vocabulary_size * config.hidden_size;
    match freeze {
        // It is the table of words, which is trained.
        Freeze::Nothing if config.language_head().tied && !options.train_head => [0, 0],
        Freeze::Layers(_) if !options.train_head => [0, matrix],
        _ => [matrix, 0],
    }
}

fn training_shape(
    options: &EstimateOptions,
    arguments: &EstimateArguments,
    config: &EncoderConfig,
    freeze: Freeze,
) -> Result<TrainingShape, Error> {
    let (longest, columns) = length_and_columns(options, config);
    let place = match options.device {
        Some(DeviceChoice::Cuda) => Place::Cuda,
        _ => Place::Cpu,
    };
    let mixed_precision = options.mixed_precision.unwrap_or_default();
    let ops = options.ops.unwrap_or_default();
    let ops = ops.resolve_training(mixed_precision, place == Place::Cpu)?;
    let task = options.task.unwrap_or(TaskKind::Classify);
    let usual = match task {
        TaskKind::Classify => Pooling::Cls,
        task if written(task).is_some() => Pooling::Scored,
        _ => Pooling::Mean,
    };
    let [head, frozen_head] = head(options, config, freeze);
    Ok(TrainingShape {
        footprint: Footprint::new(config, freeze),
        head,
        frozen_head,
        lengths: Lengths {
            longest,
            mean: arguments.mean_length.unwrap_or(longest as f64),
        },
        batch_size: options
            .batch_size
            .unwrap_or_else(|| TrainSettings::default().batch_size),
        columns,
        rows: arguments.rows,
        pooling: options.pooling.unwrap_or(usual),
        mixed_precision,
        recompute: options.recompute.unwrap_or_default(),
        keeps_best: true,
        replicas: 0,
        ops,
        place,
        threads: options.threads.unwrap_or_else(rayon::current_num_threads),
    })
}
