//! The frozen half on NVIDIA's cards, as far as that can be shown without one: all of Telly's own
//! way to them runs, over a library that has cards and computes on the CPU. None of this says that a
//! real card computes the same.

#![cfg(target_os = "linux")]
#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::Path;

use crate::support::fake_library::FakeLibrary;
use crate::support::{
    self, WRONG_INPUT, Workspace, content, fails, goldens, precompute, stderr, text, write_search,
};

/// A library, data, and caches of it.
struct Bench {
    library: FakeLibrary,
    space: Workspace,
}

impl Bench {
    fn new() -> Self {
        let space = Workspace::new();
        write_search(&space.path("train.jsonl"), 300);
        Self {
            library: FakeLibrary::new(),
            space,
        }
    }

    /// `telly precompute` by `provider` into the cache `name`, with whatever else `flags` says.
    fn command(&self, provider: &str, name: &str, flags: &str) -> Vec<String> {
        let (model, data) = (
            goldens().join("roberta-tiny"),
            self.space.path("train.jsonl"),
        );
        let mut command = precompute("search", &model, &data, "2", &self.space.path(name));
        for argument in &mut command {
            if argument == "cpu" {
                *argument = provider.into();
            }
        }
        let mut flags = flags.to_owned();
        if let Some(freeze) = command.iter().position(|argument| argument == "--freeze")
            && flags.contains("--freeze")
        {
            command.drain(freeze..freeze + 2);
        }
        let fixed = "--shard-size 64KiB --threads 1 ";
        flags.insert_str(0, fixed);
        command.extend(flags.split_whitespace().map(String::from));
        command
    }

    /// As `command`, which must succeed; what it said.
    fn filled(
        &self,
        provider: &str,
        name: &str,
        flags: &str,
        variables: &[(&str, &str)],
    ) -> String {
        let command = self.command(provider, name, flags);
        let output = self.library.telly(&command, variables).output();
        let output = output.expect("telly runs");
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    }

    /// The shards of the cache `name`.
    fn shards(&self, name: &str) -> Vec<(String, Vec<u8>)> {
        let files = content(&self.space.path(name)).into_iter();
        files
            .filter(|(name, _)| Path::new(name) != Path::new("manifest.json"))
            .collect()
    }

    fn fingerprint(&self, name: &str) -> serde_json::Value {
        let text = fs_err::read_to_string(self.space.path(name).join("manifest.json"));
        let manifest: serde_json::Value = serde_json::from_str(&text.expect("text")).expect("JSON");
        assert!(
            manifest["parity"]["mean_cosine"]
                .as_f64()
                .expect("measured")
                > 0.999
        );
        manifest["fingerprint"].clone()
    }

    /// How many batches each card ran.
    fn runs(&self, card: i32) -> usize {
        let start = format!("run card={card} ");
        let log = self.library.log();
        log.iter().filter(|line| line.starts_with(&start)).count()
    }
}

#[test]
fn one_card_fills_the_cache_of_the_cpu() {
    let bench = Bench::new();
    bench.filled("cpu", "cpu", "", &[]);
    assert!(bench.runs(-1) > 0);
    bench.filled("cuda", "card", "--batch-tokens 512", &[("FAKE_CARDS", "1")]);
    assert_eq!(bench.shards("card"), bench.shards("cpu"));
    let (card, cpu) = (bench.fingerprint("card"), bench.fingerprint("cpu"));
    assert_eq!(
        (&card["provider"], &cpu["provider"]),
        (&"cuda".into(), &"cpu".into())
    );
    assert_eq!(card["graph"], cpu["graph"]);

    // What the provider was told, once, and outputs that the card writes by itself.
    let log = bench.library.log();
    let told: Vec<&String> = log
        .iter()
        .filter(|line| line.starts_with("cuda "))
        .collect();
    println!("{told:?}");
    let [told] = told[..] else {
        panic!("{told:?}");
    };
    for option in [
        "device_id=0",
        "use_tf32=false",
        "enable_skip_layer_norm_strict_mode=true",
        "arena_extend_strategy=kSameAsRequested",
    ] {
        assert!(
            told.split(' ').any(|found| found == option),
            "{option}: {told}"
        );
    }
    let runs = bench.runs(0);
    assert_eq!(
        log.iter().filter(|line| *line == "output pinned").count(),
        runs
    );
    assert_eq!(bench.runs(-1), 0);

    // Several outputs are bound each by its name.
    bench.filled("cuda", "depths", "--freeze 1,2", &[("FAKE_CARDS", "1")]);
    assert_eq!(bench.shards("depths/freeze-2"), bench.shards("cpu"));
}

#[test]
fn without_pinned_memory_outputs_are_copied() {
    let bench = Bench::new();
    bench.filled("cpu", "cpu", "", &[]);
    let variables = [("FAKE_CARDS", "1"), ("FAKE_NO_PINNED", "1")];
    bench.filled("cuda", "card", "", &variables);
    assert_eq!(bench.shards("card"), bench.shards("cpu"));
    assert!(
        !bench
            .library
            .log()
            .iter()
            .any(|line| line == "output pinned")
    );
}

#[test]
fn cards_take_larger_batches() {
    let bench = Bench::new();
    bench.filled("cuda", "card", "", &[("FAKE_CARDS", "1")]);
    let few = bench.runs(0);
    bench.filled("cuda", "small", "--batch-tokens 64", &[("FAKE_CARDS", "1")]);
    let many = bench.runs(0);
    println!("{few} batches, {many} of 64 tokens");
    assert!(many > 5 * few);
    assert_eq!(bench.shards("card"), bench.shards("small"));
}

#[test]
fn several_cards_share_the_work() {
    let bench = Bench::new();
    bench.filled("cpu", "cpu", "", &[]);
    let flags = "--batch-tokens 64 --cuda-devices 2,0";
    bench.filled("auto", "cards", flags, &[("FAKE_CARDS", "3")]);
    let runs = [0, 1, 2].map(|card| bench.runs(card));
    println!("batches of cards 0, 1, 2: {runs:?}");
    assert!(runs[0] > 0 && runs[1] == 0 && runs[2] > 0);
    assert_eq!(bench.shards("cards"), bench.shards("cpu"));
}

#[test]
fn a_card_that_is_not_there_is_named() {
    let bench = Bench::new();
    let command = bench.command("cuda", "cards", "--cuda-devices 0,3");
    let command = bench.library.telly(&command, &[("FAKE_CARDS", "2")]);
    let words = ["card 3", "invalid device ordinal", "CUDA_VISIBLE_DEVICES"];
    fails(command, WRONG_INPUT, &words);
    assert!(!bench.space.path("cards").exists());

    let refused = [
        ("cpu", "--cuda-devices 0", "--provider cpu"),
        ("cuda", "--batch-tokens 0", "--batch-tokens 0"),
    ];
    for (provider, flags, word) in refused {
        let command = bench.command(provider, "cards", flags);
        fails(bench.library.telly(&command, &[]), WRONG_INPUT, &[word]);
    }
}

#[test]
fn tf32_is_another_cache_than_fp32() {
    let bench = Bench::new();
    let one = [("FAKE_CARDS", "1")];
    bench.filled("cuda", "fp32", "", &one);
    bench.filled("cuda", "tf32", "--frozen-precision tf32", &one);
    let log = bench.library.log();
    assert!(
        log.iter().any(|line| line.contains(" use_tf32=true")),
        "{log:?}"
    );
    let (fp32, tf32) = (bench.fingerprint("fp32"), bench.fingerprint("tf32"));
    assert_eq!(fp32["graph"], tf32["graph"]);
    assert_eq!(tf32["frozen_precision"], "tf32");
    let command = bench.command("cuda", "fp32", "--frozen-precision tf32");
    let words = ["frozen_precision", "fp32", "tf32"];
    fails(bench.library.telly(&command, &one), WRONG_INPUT, &words);
}

#[test]
fn what_runs_on_cards_only_is_refused_elsewhere() {
    let bench = Bench::new();
    for precision in ["bf16", "tf32"] {
        let flags = format!("--frozen-precision {precision}");
        let only = format!("{precision} runs on CUDA only");
        let command = bench.command("cpu", "cache", &flags);
        let words = [only.as_str(), "found provider cpu", "--provider cuda"];
        fails(bench.library.telly(&command, &[]), WRONG_INPUT, &words);
        // `auto` says why it is not CUDA.
        let command = bench.command("auto", "cache", &flags);
        fails(bench.library.telly(&command, &[]), WRONG_INPUT, &words);
        let flags = flags + " --cuda-devices 4";
        let command = bench.command("auto", "cache", &flags);
        let command = bench.library.telly(&command, &[("FAKE_CARDS", "1")]);
        fails(command, WRONG_INPUT, &["invalid device ordinal"]);
    }
    assert!(!bench.space.path("cache").exists());
}

#[test]
fn tensorrt_takes_what_it_can_and_says_what_it_lacks() {
    let bench = Bench::new();
    bench.filled("cpu", "cpu", "", &[]);
    let there = [("FAKE_CARDS", "1"), ("FAKE_TENSORRT", "1")];

    let command = bench.command("tensorrt", "cache", "--frozen-precision fp16");
    let words = [
        "--provider tensorrt",
        "built without TensorRT",
        "--provider cuda",
    ];
    fails(
        bench.library.telly(&command, &[("FAKE_CARDS", "1")]),
        WRONG_INPUT,
        &words,
    );
    // Nothing but the environment keeps TensorRT from TF32.
    let command = bench.command("tensorrt", "cache", "");
    let words = ["NVIDIA_TF32_OVERRIDE", "--frozen-precision tf32"];
    let mut refused = bench.library.telly(&command, &there);
    refused.env_remove("NVIDIA_TF32_OVERRIDE");
    fails(refused, WRONG_INPUT, &words);
    let command = bench.command("tensorrt", "cache", "--frozen-precision bf16");
    let words = ["found provider tensorrt", "expected cuda"];
    fails(bench.library.telly(&command, &there), WRONG_INPUT, &words);

    let honest = [there[0], there[1], ("NVIDIA_TF32_OVERRIDE", "0")];
    bench.filled("tensorrt", "engine", "", &honest);
    assert_eq!(bench.shards("engine"), bench.shards("cpu"));
    assert_eq!(bench.fingerprint("engine")["provider"], "tensorrt");
    let log = bench.library.log();
    let told = log
        .iter()
        .find(|line| line.starts_with("tensorrt "))
        .expect("told");
    println!("{told}");
    // 8192 tokens, at most 32 a sequence.
    for option in [
        "trt_fp16_enable=false",
        "trt_profile_min_shapes=input_ids:1x1,attention_mask:1x1",
        "trt_profile_opt_shapes=input_ids:256x32,attention_mask:256x32",
        "trt_profile_max_shapes=input_ids:1024x32,attention_mask:1024x32",
    ] {
        assert!(
            told.split(' ').any(|found| found == option),
            "{option}: {told}"
        );
    }
    // What TensorRT leaves is CUDA's.
    assert!(log.iter().any(|line| line.starts_with("cuda ")));
    bench.filled("tensorrt", "half", "--frozen-precision fp16", &there);
    assert!(
        bench
            .library
            .log()
            .iter()
            .any(|line| line.contains(" trt_fp16_enable=true"))
    );
}

/// A run from a cache that a card filled is used on a machine without one.
#[test]
fn what_was_trained_from_a_cards_cache_is_evaluated_on_the_cpu() {
    let bench = Bench::new();
    bench.filled(
        "cuda",
        "tf32",
        "--frozen-precision tf32",
        &[("FAKE_CARDS", "1")],
    );
    let (cache, run) = (bench.space.path("tf32"), bench.space.path("run"));
    support::telly_json(&support::train(&cache, &run, "--epochs 1 --threads 1"));
    let data = bench.space.path("train.jsonl");
    let evaluate = ["evaluate", "--run", text(&run), "--data", text(&data)];
    let output = support::telly_ok(&evaluate);
    let said = stderr(&output);
    assert!(
        said.contains("tf32") && said.contains("running it in fp32"),
        "{said}"
    );
}
