//! `telly estimate`: the same numbers for the same shapes, more for more, and what `--memory-budget`
//! of `telly train` then works on at a time.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::Path;

use crate::support::{
    self, WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, text, train,
    write_long_classification,
};
use serde_json::Value;

fn estimate(model: &str, flags: &str) -> Vec<String> {
    let model = goldens().join(model);
    let fixed = ["estimate", "--model", text(&model)];
    let all = fixed.into_iter().chain(flags.split_whitespace());
    all.map(String::from).collect()
}

fn told(model: &str, flags: &str) -> Value {
    telly_json(&estimate(model, flags))
}

fn peak(told: &Value, command: &str) -> u64 {
    told[command]["peak_bytes"].as_u64().expect("bytes")
}

/// Flags that all cases begin with.
const SHAPE: &str = "--threads 2 --batch-size 32 --max-length 32";

#[test]
fn equal_shapes_give_equal_numbers() {
    for model in ["bert-tiny", "mpnet-tiny", "modernbert-tiny"] {
        let flags = format!("{SHAPE} --freeze 1 --rows 400");
        let once = told(model, &flags);
        assert_eq!(once, told(model, &flags), "{model}");
        for command in ["precompute", "train"] {
            let terms = once[command]["terms"].as_object().expect("terms");
            let sum: u64 = terms.values().filter_map(Value::as_u64).sum();
            assert_eq!(sum, peak(&once, command), "{model}: {command}");
        }
        // States in fp16, ids of 4 bytes and an offset of 8 for each of 400 sequences.
        let width = 32;
        let expected = 400 * (32 * (2 * width + 4) + 8);
        assert_eq!(once["cache_bytes"], expected, "{model}");
    }
}

/// Of each pair the first takes less.
#[test]
fn more_takes_more() {
    let cases = [
        (
            "train",
            "--freeze 1 --batch-size 31",
            "--freeze 1 --batch-size 32",
        ),
        (
            "train",
            "--freeze 1 --max-length 31",
            "--freeze 1 --max-length 32",
        ),
        ("train", "--freeze 2", "--freeze 1"),
        ("train", "--freeze 1", "--freeze 0"),
        ("train", "--freeze 0", "--freeze none"),
        ("train", "--freeze 1 --micro-batch 16", "--freeze 1"),
        (
            "train",
            "--freeze 1 --pooling cls",
            "--freeze 1 --pooling mean",
        ),
        (
            "train",
            "--freeze 1 --mean-length 32",
            "--freeze 1 --mean-length 31",
        ),
        ("train", "--freeze 1", "--freeze 1 --ops composed"),
        (
            "train",
            "--freeze 1 --ops composed --dropout 0",
            "--freeze 1 --ops composed",
        ),
        (
            "train",
            "--freeze 1 --device cuda --mixed-precision bf16",
            "--freeze 1 --device cuda",
        ),
        (
            "train",
            "--freeze 2 --device cuda",
            "--freeze 1 --device cuda",
        ),
        ("train", "--freeze 0 --recompute", "--freeze 0"),
        (
            "train",
            "--freeze 0 --device cuda --recompute",
            "--freeze 0 --device cuda",
        ),
        ("precompute", "--freeze none", "--freeze 0"),
        ("precompute", "--freeze 0", "--freeze 1"),
        ("precompute", "--freeze 1", "--freeze 2"),
        ("precompute", "--freeze 1 --threads 1", "--freeze 1"),
        (
            "precompute",
            "--freeze 1 --frozen-precision int8",
            "--freeze 1",
        ),
    ];
    for model in ["bert-tiny", "modernbert-tiny"] {
        for (command, less, more) in cases {
            // A flag that comes again is refused, so the case's own stand in place of the shape's.
            let peaks = [less, more].map(|case| {
                let pairs = SHAPE.split(" --").map(|flag| flag.trim_start_matches("--"));
                let shape = pairs.filter(|pair| {
                    let flag = pair.split(' ').next().unwrap_or(pair);
                    !case.contains(&format!("--{flag} "))
                });
                let shape: Vec<String> = shape.map(|pair| format!("--{pair}")).collect();
                let flags = format!("{} {case} --rows 4000", shape.join(" "));
                peak(&told(model, &flags), command)
            });
            assert!(peaks[0] < peaks[1], "{model}: {less}, {more}: {peaks:?}");
        }
    }
}

#[test]
fn bad_input() {
    let cases: [(&str, &[&str]); 11] = [
        ("", &["`--freeze`"]),
        ("--freeze 9", &["--freeze 9", "3 layers", "from 0 to 3"]),
        (
            "--freeze 1 --batch-size 0",
            &["--batch-size 0", "1 or more"],
        ),
        ("--freeze 1 --micro-batch 0", &["--micro-batch 0"]),
        ("--freeze 1 --rows 0", &["--rows 0"]),
        ("--freeze 1 --max-length 65", &["65 tokens", "takes 64"]),
        (
            "--freeze 1 --max-length 32 --mean-length 33",
            &["--mean-length 33"],
        ),
        ("--freeze 1 --max-length 32 --dropout 1", &["--dropout 1"]),
        (
            "--freeze 1 --max-length 32 --device cuda --ops fused",
            &["--ops fused"],
        ),
        (
            "--freeze 1 --max-length 32 --mixed-precision fp16 --ops fused",
            &["--ops fused"],
        ),
        (
            "--freeze 1 --max-length 32 --memory-budget 1MiB",
            &["--memory-budget 1.0 MiB` is too small", "MiB"],
        ),
    ];
    for (flags, words) in cases {
        fails(telly(&estimate("bert-tiny", flags)), WRONG_INPUT, words);
    }
    let missing = telly(&["estimate", "--freeze", "1"]);
    fails(missing, WRONG_INPUT, &["`--model`"]);
    let work = Workspace::new();
    let nowhere = telly(&["estimate", "--freeze", "1", "--model", text(work.folder())]);
    fails(nowhere, WRONG_INPUT, &["config.json"]);
}

#[test]
fn it_says_where_memory_goes() {
    let flags = format!("{SHAPE} --freeze 1 --rows 400 --memory-budget 1GiB");
    let output = telly(&estimate("bert-tiny", &flags))
        .output()
        .expect("telly runs");
    let said = String::from_utf8_lossy(&output.stdout);
    for words in ["optimizer state", "peak, in a step", "on disk"] {
        assert!(said.contains(words), "no {words:?} in {said}");
    }
    let said = support::stderr(&output);
    assert!(
        said.contains("whole batches are within the budget"),
        "{said}"
    );
    let output = telly(&["estimate", "--help"]).output().expect("telly runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(help.contains("telly estimate --model"), "{help}");
}

/// Losses of the steps of a run, as logged.
fn losses(run: &Path) -> Vec<f64> {
    let log = fs_err::read_to_string(run.join("metrics.jsonl")).expect("a log");
    let lines = log
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

/// The budget decides how much of a batch is worked on at a time, as `telly estimate` says, and
/// nothing else.
#[test]
fn a_budget_picks_the_micro_batch() {
    let work = Workspace::new();
    let (data, cache) = (work.path("train.jsonl"), work.path("cache"));
    write_long_classification(&data, 256);
    let mut command = precompute("classify", &goldens().join("bert-tiny"), &data, "0", &cache);
    command.extend(["--valid", text(&data)].map(String::from));
    telly_json(&command);
    for ops in ["fused", "composed"] {
        let flags = format!("--threads 2 --freeze 0 --batch-size 64 --max-length 32 --ops {ops}");
        let flags = format!("{flags} --rows 512");
        let of_rows = |rows: usize| {
            let told = told("bert-tiny", &format!("{flags} --micro-batch {rows}"));
            peak(&told, "train")
        };
        let whole = peak(&told("bert-tiny", &flags), "train");
        assert_eq!(whole, of_rows(64));
        let budget = u64::midpoint(of_rows(32), whole);
        let picked = told("bert-tiny", &format!("{flags} --memory-budget {budget}"));
        let rows = picked["micro_batch"].as_u64().expect("rows");
        let rows = usize::try_from(rows).expect("few");
        assert!((32..64).contains(&rows), "{ops}: {rows}");
        let peaks = [rows, rows + 1].map(of_rows);
        assert!(
            peaks[0] <= budget && budget < peaks[1],
            "{ops}: {peaks:?}, {budget}"
        );
        let within = peak(&picked, "within_budget");
        assert!((peaks[0]..=budget).contains(&within), "{ops}: {within}");

        let run = |name: &str, more: &str| {
            let run = work.path(&format!("{ops}-{name}"));
            let flags = format!("--epochs 1 --batch-size 64 --threads 2 --log-every 1 --ops {ops}");
            let summary = telly_json(&train(&cache, &run, &format!("{flags} {more}")));
            (summary["tokens_at_a_time"].clone(), losses(&run))
        };
        let (tokens, divided) = run("divided", &format!("--memory-budget {budget}"));
        assert_eq!(tokens, picked["tokens_at_a_time"], "{ops}");
        let (tokens, undivided) = run("whole", &format!("--memory-budget {whole}"));
        assert_eq!(tokens, Value::Null, "{ops}");
        assert_eq!((divided.len(), undivided.len()), (4, 4), "{ops}");
        for (divided, whole) in divided.iter().zip(&undivided) {
            assert!(
                (divided - whole).abs() < 1e-5 * whole,
                "{ops}: {divided}, {whole}"
            );
        }
    }
}
