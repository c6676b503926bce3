//! Looking after caches: what one will take, finding, checking, mending and removing them.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::Path;

use crate::support::{
    self, Classification, WRONG_INPUT, content, fails, goldens, names, precompute, telly,
    telly_json, telly_ok, text, train, write_classification,
};
use serde_json::Value;

fn command(work: &Classification, cache: &Path, more: &[&str]) -> Vec<String> {
    let model = goldens().join("bert-tiny");
    let data = work.path("train.jsonl");
    let mut command = precompute("classify", &model, &data, "2", cache);
    command.extend(more.iter().map(ToString::to_string));
    command
}

#[test]
fn a_dry_run_tells_the_size_and_writes_nothing() {
    let work = Classification::new();
    let other = work.path("other.jsonl");
    for precision in ["fp16", "fp32", "bf16", "int8"] {
        let cache = work.path(precision);
        let flags = ["--valid", text(&other), "--precision", precision];
        let told =
            telly_json(&[&command(&work, &cache, &flags)[..], &["--dry-run".into()]].concat());
        println!("{told}");
        assert!(!cache.exists());
        let made = telly_json(&command(&work, &cache, &flags));
        for field in ["sequences", "unique_sequences", "tokens", "bytes"] {
            assert_eq!(told[field], made[field], "{field}");
        }
        // The shards' headers and paddings are all that the splits' own bytes leave out.
        let splits = ["train", "valid"].map(|name| told["splits"][name]["bytes"].as_u64());
        let splits: u64 = splits.map(|bytes| bytes.expect("bytes")).iter().sum();
        let bytes = made["bytes"].as_u64().expect("bytes");
        assert!(
            splits <= bytes && bytes - splits < 512,
            "{splits} of {bytes}"
        );
        // The second split is a part of the first.
        assert_eq!(told["splits"]["valid"]["new_sequences"], 0);
        assert!(told["deduplication"].as_f64().expect("a ratio") > 1.5);
        for field in ["precompute_seconds", "read_seconds_per_epoch", "free_bytes"] {
            assert!(told[field].as_f64().expect("measured") > 0.0, "{field}");
        }
    }
}

/// The line that starts with `cache: `, of a command that may fail.
fn freshness(arguments: &[String]) -> String {
    let said = support::stderr(&telly(arguments).output().expect("telly runs"));
    let mut lines = said.lines().filter_map(|line| line.strip_prefix("cache: "));
    let line = lines.next().expect("a line").to_owned();
    assert!(lines.next().is_none(), "{said}");
    println!("{line}");
    line
}

/// Field by field, with both values, where a cache is not what is wanted.
#[test]
fn freshness_is_told_in_a_line() {
    let work = Classification::new();
    let (cache, run) = (work.path("cache"), work.path("run"));
    let train = |flags: &str| freshness(&train(&cache, &run, &format!("--epochs 1 {flags}")));
    assert_eq!(train(""), "Missing");
    assert_eq!(
        freshness(&command(&work, &cache, &["--dry-run"])),
        "Missing"
    );
    assert_eq!(freshness(&command(&work, &cache, &[])), "Missing");
    assert_eq!(freshness(&command(&work, &cache, &[])), "Fresh");
    assert_eq!(train(""), "Fresh");
    let other = work.path("other.jsonl");
    let stale = train(&format!("--freeze 1 --train {}", text(&other)));
    let fields: Vec<&str> = stale.split("; ").collect();
    assert_eq!(fields[0], "Stale (freeze: the cache has 2, now 1");
    assert!(fields[1].starts_with("train: the cache has \"") && fields.len() == 2);
    let stale = freshness(&command(&work, &cache, &["--precision", "fp32"]));
    assert_eq!(
        stale,
        "Stale (precision: the cache has \"fp16\", now \"fp32\")"
    );
}

/// Whether the model that a cache was made from is still what it was.
#[test]
fn a_list_tells_what_became_of_the_model() {
    let work = Classification::new();
    let (model, cache) = (work.path("model"), work.path("cache"));
    fs_err::create_dir(&model).expect("a folder");
    for name in names(&goldens().join("bert-tiny")) {
        fs_err::copy(goldens().join("bert-tiny").join(&name), model.join(&name)).expect("copied");
    }
    telly_json(&precompute(
        "classify",
        &model,
        &work.path("train.jsonl"),
        "1",
        &cache,
    ));
    let listed = || {
        let listed = telly_json(&["cache", "list", text(&cache)]);
        let lines = telly_ok(&["cache", "list", text(&cache)]).stdout;
        let told = listed["caches"][0]["freshness"]
            .as_str()
            .expect("told")
            .to_owned();
        let lines = String::from_utf8(lines).expect("UTF-8");
        println!("{lines}");
        assert!(lines.trim_end().ends_with(&told), "{lines}");
        told
    };
    assert_eq!(listed(), "fresh");
    let config = model.join("config.json");
    let text = fs_err::read_to_string(&config).expect("text");
    fs_err::write(&config, format!("{text} ")).expect("written");
    assert_eq!(listed(), "model changed since: config");
    fs_err::write(&config, "{").expect("written");
    assert_eq!(listed(), "model cannot be read");
    fs_err::remove_dir_all(&model).expect("removed");
    assert_eq!(listed(), "model gone");
}

#[test]
fn a_damaged_shard_is_mended_by_the_same_command() {
    let work = Classification::new();
    let cache = work.path("cache");
    telly_json(&command(&work, &cache, &[]));
    let whole = content(&cache);
    let shard = cache.join("shard-00000.safetensors");
    let mut bytes = fs_err::read(&shard).expect("bytes");
    bytes[200] ^= 4;
    fs_err::write(&shard, bytes).expect("written");
    let verify = telly(&["cache", "verify", text(&cache)]);
    fails(
        verify,
        WRONG_INPUT,
        &["shard-00000.safetensors", "is damaged", "made anew"],
    );
    telly_json(&command(&work, &cache, &[]));
    assert_eq!(content(&cache), whole);
    assert_eq!(telly_json(&["cache", "verify", text(&cache)])["damaged"], 0);
}

#[test]
fn caches_are_listed_and_removed_unless_a_run_needs_them() {
    let work = Classification::new();
    let (caches, runs) = (work.path("caches"), work.path("runs"));
    let (used, unused) = (caches.join("used"), caches.join("deeper/unused"));
    for cache in [&used, &unused] {
        fs_err::create_dir_all(cache).expect("a folder");
        telly_json(&command(&work, cache, &[]));
    }
    fs_err::create_dir(&runs).expect("a folder");
    telly_json(&train(&used, &runs.join("mine"), "--epochs 1"));
    assert!(used.join("CACHEDIR.TAG").is_file());

    let catalog = |verb: &'static str| {
        ["cache", verb, text(&caches), "--runs", text(&runs)].map(String::from)
    };
    let listed = telly_json(&catalog("list"));
    let listed = listed["caches"].as_array().expect("a list").clone();
    println!("{listed:#?}");
    assert_eq!(listed.len(), 2);
    let runs_of = |index: usize| listed[index]["runs"].as_array().map(Vec::len);
    assert_eq!((runs_of(0), runs_of(1)), (Some(0), Some(1)));
    assert_eq!(listed[1]["complete"], Value::Bool(true));
    let output = telly_ok(&catalog("list"));
    let lines = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(
        lines.contains("used by no run") && lines.contains("freeze 2"),
        "{lines}"
    );

    let prune = |flags: &[&str]| {
        let flags = flags.iter().map(ToString::to_string);
        telly_json(
            &catalog("prune")
                .into_iter()
                .chain(flags)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(prune(&["--older-than", "1"])["kept"], 2);
    assert_eq!(prune(&["--dry-run"])["kept"], 1);
    assert!(unused.exists());
    assert_eq!(prune(&[])["kept"], 1);
    assert!(!unused.exists() && used.exists());

    let remove = ["cache", "remove", text(&used), "--runs", text(&runs)];
    fails(
        telly(&remove),
        WRONG_INPUT,
        &["was trained from the cache", "--force"],
    );
    // Somebody else's file is left alone.
    fs_err::write(used.join("notes.txt"), "mine").expect("written");
    telly_ok(&[&remove[..], &["--force"]].concat());
    assert_eq!(names(&used), ["notes.txt"]);
    fails(telly(&remove), WRONG_INPUT, &["no activation cache"]);
}

/// Only new sequences are computed when the data has changed, and the cache has the bytes of one
/// made from nothing.
#[test]
fn changed_data_is_taken_in_by_content() {
    let work = Classification::new();
    let data = work.path("train.jsonl");
    for precision in ["fp16", "int8"] {
        write_classification(&data, 30);
        let (cache, anew) = (
            work.path(precision),
            work.path(&format!("{precision}-anew")),
        );
        let flags = ["--precision", precision, "--shard-size", "4KiB"];
        telly_json(&command(&work, &cache, &flags));

        // Ten more rows, one fewer, another order.
        write_classification(&data, 41);
        let text = fs_err::read_to_string(&data).expect("text");
        let lines: Vec<&str> = text.lines().skip(1).collect();
        let turned = [&lines[12..], &lines[..12]].concat().join("\n");
        fs_err::write(&data, turned).expect("written");
        let changed = telly_json(&command(&work, &cache, &flags));
        let whole = telly_json(&command(&work, &anew, &flags));
        let computed = |value: &Value| value["computed_tokens"].as_u64().expect("tokens");
        println!(
            "{precision}: {} of {} tokens computed",
            computed(&changed),
            computed(&whole)
        );
        assert_eq!(computed(&whole), whole["tokens"]);
        assert!(computed(&changed) * 2 < computed(&whole));
        assert_eq!(content(&cache), content(&anew));

        // Other texts may be another's data.
        let lines =
            (0..30).map(|row| format!("{{\"text\": \"y{row}\", \"label\": \"{}\"}}\n", row % 2));
        fs_err::write(&data, lines.collect::<String>()).expect("written");
        fails(
            telly(&command(&work, &cache, &flags)),
            WRONG_INPUT,
            &["does not match", "train: the cache has"],
        );
        assert_eq!(content(&cache), content(&anew));
    }
}

/// A NaN in the weights stops the run and names the record; nothing is published.
#[test]
fn what_is_not_finite_names_its_record() {
    let work = Classification::new();
    let model = work.path("model");
    fs_err::create_dir(&model).expect("a folder");
    for name in names(&goldens().join("bert-tiny")) {
        fs_err::copy(goldens().join("bert-tiny").join(&name), model.join(&name)).expect("copied");
    }
    let weights = model.join("model.safetensors");
    let mut bytes = fs_err::read(&weights).expect("bytes");
    let (header, metadata) = safetensors::SafeTensors::read_metadata(&bytes).expect("a header");
    let tensors = metadata.tensors();
    let (_, words) = tensors
        .iter()
        .find(|(name, _)| name.ends_with("word_embeddings.weight"))
        .expect("embeddings");
    let start = 8 + header + words.data_offsets.0;
    bytes[start..words.data_offsets.1 + 8 + header].fill(0xFF);
    fs_err::write(&weights, bytes).expect("written");
    let cache = work.path("cache");
    let command = precompute("classify", &model, &work.path("train.jsonl"), "1", &cache);
    let output = telly(&command).output().expect("telly runs");
    let said = support::stderr(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(support::FAILED));
    assert!(said.contains("not finite for record"), "{said}");
    assert!(said.contains("of the train split"), "{said}");
    assert!(!cache.join("shard-00000.safetensors").exists());
}
