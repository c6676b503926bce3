//! What `--task search` can do besides: a code base of its own, hard negatives, a limit on ranks,
//! and the mode token of UniXcoder.

use std::fmt::Write as _;
use std::path::Path;

use crate::support::{
    self, WRONG_INPUT, Workspace, fails, goldens, precompute, telly, telly_json, telly_ok, text,
    train,
};
use serde_json::Value;
use telly::cache::Cache;
use telly::checkpoint::Checkpoint;

const WORDS: [&str; 8] = [
    "sort", "count", "read", "write", "list", "number", "file", "word",
];

/// Function `number` of 56: no two have the same words in this order.
fn function(number: usize) -> (String, String) {
    let (verb, noun) = (WORDS[number % 8], WORDS[(number + 1 + number / 8) % 8]);
    let code = format!("def {verb}_{noun}(x): return {verb}({noun})");
    (format!("{verb} the {noun}"), code)
}

fn queries(rows: std::ops::Range<usize>) -> String {
    let mut lines = String::new();
    for number in rows {
        let (query, code) = function(number);
        let (negative, other) = (
            function((number + 8) % 56).1,
            function((number + 16) % 56).1,
        );
        let more = if number % 2 == 0 {
            format!("[\"{negative}\", \"{other}\"]")
        } else {
            format!("\"{negative}\"")
        };
        writeln!(
            lines,
            "{{\"docstring\": \"{query}\", \"code\": \"{code}\", \"url\": \"u{number}\", \"others\": {more}}}"
        )
        .expect("written");
    }
    lines
}

fn make(space: &Workspace, model: &Path, more: &[&str]) -> Vec<String> {
    let train = space.write("train.jsonl", &queries(0..40));
    let mut arguments = precompute("search", model, &train, "1", &space.path("cache"));
    let valid = space.write("valid.jsonl", &queries(40..48));
    let test = space.write("test.jsonl", &queries(48..56));
    let splits = ["--valid", text(&valid), "--test", text(&test)];
    arguments.extend(splits.iter().chain(more).map(ToString::to_string));
    arguments
}

fn number(value: &Value, name: &str) -> f64 {
    value[name]
        .as_f64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

/// A cache with a code base is gone on with when records are added, put together out of shares, and removed,
/// as one without.
#[test]
fn a_cache_with_a_code_base_is_kept_up() {
    let space = Workspace::new();
    let base = space.write("base.jsonl", &queries(0..56));
    let model = goldens().join("bert-tiny");
    let cache = space.path("cache");
    let arguments = make(&space, &model, &["--code-base", text(&base)]);
    let made = telly_json(&arguments);
    space.write("train.jsonl", &queries(0..48));
    let more = telly_json(&arguments);
    let sequences = |made: &Value| made["sequences"].as_u64().expect("a number");
    assert_eq!(sequences(&more), sequences(&made) + 16);
    assert_eq!(telly_json(&arguments)["computed_tokens"], 0);
    telly_ok(&["cache", "remove", text(&cache)]);
    assert!(!cache.exists(), "something is left of the cache");
    for share in ["1/2", "2/2"] {
        let share = ["--shard", share].map(String::from);
        telly_json(&[&arguments[..], &share].concat());
    }
    telly_ok(&["cache", "verify", text(&cache)]);
    assert!(cache.join("code-base.safetensors").is_file());
    assert_eq!(telly_json(&arguments)["computed_tokens"], 0);
}

/// Queries are ranked among all codes of the code base, from the cache and fresh, wherever their own
/// stands in it.
#[test]
fn a_code_base_of_its_own_is_searched() {
    let space = Workspace::new();
    let (cache, run) = (space.path("cache"), space.path("run"));
    // From the last to the first, without the queries.
    let all: Vec<String> = queries(0..56).lines().rev().map(str::to_owned).collect();
    let base = space.write("base.jsonl", &all.join("\n").replace("docstring", "text"));
    let model = goldens().join("bert-tiny");
    let made = telly_json(&make(&space, &model, &["--code-base", text(&base)]));
    // 40 pairs, 16 queries, 56 codes.
    assert_eq!(made["sequences"], 40 * 2 + 16 + 56);
    let flags = "--epochs 8 --batch-size 8 --lr 2e-3";
    let trained = telly_json(&train(&cache, &run, flags));
    let test = space.path("test.jsonl");
    let fresh = |more: &[&str]| {
        let fixed = ["evaluate", "--run", text(&run), "--data", text(&test)];
        telly_json(&[&fixed[..], more].concat())["metrics"].clone()
    };
    let searched = fresh(&["--code-base", text(&base)]);
    for name in ["mrr", "r@1", "r@5", "r@10"] {
        assert_eq!(searched[name], trained["test"][name], "{name}");
    }
    // Among eight is easier than among 56.
    let alone = fresh(&[]);
    assert!(
        number(&alone, "mrr") > number(&searched, "mrr"),
        "{alone} {searched}"
    );
    let limited = fresh(&["--code-base", text(&base), "--rank-limit", "1"]);
    assert_eq!(limited["mrr"], searched["r@1"]);

    // Another code base is another cache.
    let less = space.write("less.jsonl", &all[..30].join("\n"));
    let mut arguments = train(&cache, &space.path("other"), "--epochs 1");
    arguments.extend(["--code-base", text(&less)].map(String::from));
    fails(
        telly(&arguments),
        WRONG_INPUT,
        &["code-base: the cache has"],
    );
    let without = space.write("without.jsonl", &all[10..].join("\n"));
    let command = telly(&make(&space, &model, &["--code-base", text(&without)]));
    let words = ["valid.jsonl", "line 7", "no record with the key \"u46\""];
    fails(command, WRONG_INPUT, &words);
    let twice = space.write("twice.jsonl", &format!("{}\n{}", all[0], all[0]));
    let command = telly(&make(&space, &model, &["--code-base", text(&twice)]));
    fails(
        command,
        WRONG_INPUT,
        &["line 2", "\"u55\" is there already, in line 1"],
    );
}

/// Of each query as many hard negatives are taken as the one with the fewest has, in training alone.
#[test]
fn hard_negatives_join_the_batch() {
    let space = Workspace::new();
    let (cache, run) = (space.path("cache"), space.path("run"));
    let model = goldens().join("roberta-tiny");
    let made = telly_json(&make(&space, &model, &["--negative-field", "others"]));
    assert_eq!(made["sequences"], 40 * 3 + 16 * 2);
    let first_loss = |run: &Path| {
        let flags = "--epochs 1 --batch-size 8 --lr 1e-4 --log-every 1 --dropout 0";
        let trained = telly_json(&train(&cache, run, flags));
        assert!(number(&trained["test"], "mrr") > 0.0);
        let log = fs_err::read_to_string(run.join("metrics.jsonl")).expect("a log");
        let line: Value = serde_json::from_str(log.lines().next().expect("a line")).expect("JSON");
        number(&line, "loss")
    };
    let with = first_loss(&run);
    telly_json(&make(&space, &model, &["--force"]));
    // More wrong answers, a higher loss of the same rows.
    let without = first_loss(&space.path("other"));
    assert!(with > without, "{with} {without}");

    let none = queries(0..40).replace("\"others\": [", "\"others\": [], \"more\": [");
    space.write("none.jsonl", &none);
    let data = space.path("none.jsonl");
    let mut arguments = precompute("search", &model, &data, "1", &space.path("none"));
    arguments.extend(["--negative-field", "others"].map(String::from));
    fails(
        telly(&arguments),
        WRONG_INPUT,
        &["none.jsonl", "line 1", "`others` holds no text"],
    );
}

/// A model whose vocabulary has `<encoder-only>`: texts begin with it, unless told otherwise.
#[test]
fn the_mode_token_of_unixcoder() {
    let space = Workspace::new();
    let model = space.path("unixcoder");
    fs_err::create_dir(&model).expect("a folder");
    for name in support::names(&goldens().join("roberta-tiny")) {
        let bytes = fs_err::read(goldens().join("roberta-tiny").join(&name)).expect("bytes");
        let bytes = if name == "tokenizer.json" {
            let text = String::from_utf8(bytes).expect("UTF-8");
            text.replace("<mask>", "<encoder-only>").into_bytes()
        } else {
            bytes
        };
        fs_err::write(model.join(&name), bytes).expect("written");
    }
    let long = queries(0..20).replace(
        "return",
        "return the word of the file of the list of the line",
    );
    let data = space.write("data.jsonl", &long);
    let (auto, none) = (space.path("auto"), space.path("none"));
    telly_ok(&precompute("search", &model, &data, "1", &auto));
    let mut arguments = precompute("search", &model, &data, "1", &none);
    arguments.extend(["--mode-token", "none"].map(String::from));
    telly_ok(&arguments);

    let (with, plain) = (Cache::open(&auto), Cache::open(&none));
    let (with, plain) = (with.expect("a cache"), plain.expect("a cache"));
    assert_eq!(with.manifest().encoding["mode_token"], "<encoder-only>");
    assert_eq!(plain.manifest().encoding.get("mode_token"), None);
    let checkpoint = Checkpoint::open(&model).expect("a model");
    let mode = checkpoint.tokenizer.id("<encoder-only>").expect("there");
    let train_of = |cache: &Cache| cache.split("train").expect("read").expect("there");
    let (rows, plain_rows) = (train_of(&with), train_of(&plain));
    let mut cut = 0;
    for row in 0..rows.len() {
        for (column, longest) in [(0, 16), (1, 32)] {
            let ids = |cache: &Cache, sequence| cache.token_ids(&[sequence]).sequence(0).to_vec();
            let ids_with = ids(&with, rows.sequence(row, column));
            let ids_plain = ids(&plain, plain_rows.sequence(row, column));
            // <s> text </s>, cut to what is left beside four special tokens.
            let inner = &ids_plain[1..ids_plain.len() - 1];
            let inner = &inner[..inner.len().min(longest - 4)];
            let expected = [&[0, mode, 2], inner, &[2]].concat();
            assert_eq!(ids_with, expected);
            cut += usize::from(ids_with.len() == longest);
        }
    }
    assert!(cut > 0, "no text was long enough");

    // A cache keeps its own layout, and so does a run; the two are not taken for each other.
    let (run, old) = (space.path("run"), space.path("old"));
    for (cache, run) in [(&auto, &run), (&none, &old)] {
        let trained = telly_json(&train(cache, run, "--epochs 1 --batch-size 8"));
        let evaluate = ["evaluate", "--run", text(run), "--data", text(&data)];
        let fresh = telly_json(&evaluate);
        assert_eq!(fresh["rows"], 20, "{trained}");
    }
    let typed = ["--mode-token", "none"].map(String::from);
    let mut arguments = train(&auto, &space.path("other"), "--epochs 1");
    arguments.extend(typed);
    fails(
        telly(&arguments),
        WRONG_INPUT,
        &["encoding", "<encoder-only>"],
    );
    let mut arguments = precompute("search", &model, &data, "1", &space.path("third"));
    arguments.extend(["--mode-token", "<decoder-only>"].map(String::from));
    fails(
        telly(&arguments),
        WRONG_INPUT,
        &["--mode-token <decoder-only>", "vocabulary"],
    );
}
