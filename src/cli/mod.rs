//! What was typed to what is meant: a file or a folder a command, and files for what several share.

mod advise;
mod cache;
mod card_list;
mod chart;
mod chunks;
mod compared;
mod console;
mod doctor;
mod embedder;
mod estimate;
mod evaluate;
mod export;
mod freeze_list;
mod generation_options;
mod head;
mod hub;
mod index;
mod model;
mod options;
mod output_file;
mod parity;
mod precompute;
mod predict;
mod predictions;
mod probe;
mod recipe;
mod report;
mod rsa;
mod runs;
mod score;
mod seeds;
mod split_files;
mod studied;
mod sweep;
mod task;
mod text_vectors;
mod text_writer;
mod train;

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::{Error, Explain};
use crate::{generation, interrupt, study, train as training};

/// Exit status when something failed while running.
const FAILED: u8 = 1;
/// Exit status when the input or the command line was wrong; clap's own as well.
const WRONG_INPUT: u8 = 2;

/// Fine-tune a pre-trained code model with its bottom layers frozen, paying for the frozen half
/// only once.
#[derive(Parser)]
#[command(name = "telly", version, max_term_width = 100, after_help = EXAMPLE)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLE: &str = "\
Example:
  telly precompute --task classify --model models/all-MiniLM-L6-v2 \\
      --train train.jsonl --valid valid.jsonl --freeze 4 --cache cache/mine
  telly train --cache cache/mine --out runs/mine --epochs 3
  telly evaluate --run runs/mine --data test.jsonl

Exit status: 0 done, 1 failed while running, 2 the input or the command line was wrong.";

#[derive(Subcommand)]
enum Command {
    Doctor(doctor::DoctorArguments),
    Estimate(Box<estimate::EstimateArguments>),
    Precompute(precompute::PrecomputeArguments),
    Train(Box<train::TrainArguments>),
    Sweep(Box<sweep::SweepArguments>),
    Advise(Box<advise::AdviseArguments>),
    Evaluate(evaluate::EvaluateArguments),
    Predict(predict::PredictArguments),
    Score(score::ScoreArguments),
    Export(export::ExportArguments),
    Index(index::IndexArguments),
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    Report(report::ReportArguments),
    Rsa(rsa::RsaArguments),
    Probe(probe::ProbeArguments),
}

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    interrupt::end_with_parent();
    // clap itself answers `--help` with status 0 and a wrong command line with status 2.
    let cli = Cli::parse();
    if matches!(
        cli.command,
        Command::Precompute(_)
            | Command::Train(_)
            | Command::Sweep(_)
            | Command::Advise(_)
            | Command::Evaluate(_)
            | Command::Predict(_)
            | Command::Index(_)
            | Command::Rsa(_)
            | Command::Probe(_)
            | Command::Cache(cache::CacheCommand::Derive(_))
    ) {
        interrupt::listen();
    }
    let result = match cli.command {
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Estimate(arguments) => estimate::run(&arguments),
        Command::Precompute(arguments) => precompute::run(&arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Sweep(arguments) => sweep::run(&arguments),
        Command::Advise(arguments) => advise::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Predict(arguments) => predict::run(&arguments),
        Command::Score(arguments) => score::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Index(arguments) => index::run(&arguments),
        Command::Cache(command) => cache::run(&command),
        Command::Runs(command) => runs::run(&command),
        Command::Report(arguments) => report::run(&arguments),
        Command::Rsa(arguments) => rsa::run(&arguments),
        Command::Probe(arguments) => probe::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            console::error(&error);
            ExitCode::from(exit_status(&error))
        }
    }
}

/// Reads `path` as a `--recipe` of `command`, `precompute` or `train`, and does nothing of what it
/// says.
#[doc(hidden)]
pub fn check_recipe(command: &str, path: &Path) -> Result<(), Error> {
    match command {
        "precompute" => with_recipe::<precompute::PrecomputeArguments>(path).check_recipe(),
        "train" => with_recipe::<train::TrainArguments>(path).check_recipe(),
        _ => Ok(()),
    }
}

/// What a command is told by `--recipe path` alone.
fn with_recipe<T: Args>(path: &Path) -> T {
    let typed = ["telly", "--recipe"].map(OsStr::new).into_iter();
    let command = T::augment_args(clap::Command::new("telly"));
    let found = command.get_matches_from(typed.chain([path.as_os_str()]));
    T::from_arg_matches(&found).unwrap_or_else(|error| error.exit())
}

fn exit_status(error: &Error) -> u8 {
    match error {
        Error::Interrupted { .. }
        | Error::Train(training::Error::Interrupted)
        | Error::Generation(generation::Error::Interrupted { .. })
        | Error::Study(study::Error::Interrupted) => interrupt::EXIT_STATUS,
        error if error.is_input() => WRONG_INPUT,
        _ => FAILED,
    }
}

/// The long flags of `precompute` and `train`, as a recipe writes them.
fn recipe_keys() -> Vec<String> {
    // Of all commands it would take half a megabyte.
    let commands = [
        // What a recipe holds of it: not what is done with this call alone.
        precompute::PrecomputeOptions::augment_args(clap::Command::new("precompute")),
        train::TrainArguments::augment_args(clap::Command::new("train")),
    ];
    commands
        .iter()
        .flat_map(clap::Command::get_arguments)
        .filter_map(|argument| argument.get_long())
        .map(|flag| flag.replace('-', "_"))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    /// Every example that a help text shows is a command line, but where it leaves something out.
    #[test]
    fn examples_can_be_typed() {
        fn examples(command: &clap::Command, found: &mut Vec<String>) {
            let help = command.get_after_help().map(ToString::to_string);
            let help = help.unwrap_or_default().replace("\\\n", " ");
            let lines = help.lines().map(str::trim);
            found.extend(
                lines
                    .filter(|line| line.starts_with("telly "))
                    .map(String::from),
            );
            for command in command.get_subcommands() {
                examples(command, found);
            }
        }
        let mut found = Vec::new();
        examples(&Cli::command(), &mut found);
        assert!(found.len() > 20, "{found:?}");
        for example in found.iter().filter(|example| !example.contains("...")) {
            // Without another program behind it, and what is said of it.
            let end = [" | ", "  ("].iter().filter_map(|mark| example.find(mark));
            let words = &example[..end.min().unwrap_or(example.len())];
            if let Err(error) = Cli::try_parse_from(words.split_whitespace()) {
                panic!("{example}: {error}");
            }
        }
    }
}
