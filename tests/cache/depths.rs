//! Caches of several depths: filled in one pass, each has the bytes of one that is filled alone.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::{Path, PathBuf};

use crate::support::{
    self, Workspace, content, fails, goldens, minilm, names, precompute, python, run_python,
    stderr, telly, telly_json, text, train, write_classification,
};
use serde_json::Value;

/// Data, and what is done with it for one model.
struct Work {
    space: Workspace,
    model: PathBuf,
}

impl Work {
    fn new(model: PathBuf) -> Self {
        let space = Workspace::new();
        write_classification(&space.path("train.jsonl"), 40);
        write_classification(&space.path("valid.jsonl"), 12);
        Self { space, model }
    }

    fn tiny(model: &str) -> Self {
        Self::new(goldens().join(model))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    /// `telly precompute` into the folder `cache`, in some ten shards.
    fn precompute(&self, freeze: &str, cache: &Path, flags: &str) -> Vec<String> {
        let data = self.path("train.jsonl");
        let mut command = precompute("classify", &self.model, &data, freeze, cache);
        let valid = self.path("valid.jsonl");
        command.extend(["--valid", text(&valid), "--shard-size", "1KiB"].map(String::from));
        command.extend(flags.split_whitespace().map(String::from));
        command
    }

    /// A cache made from nothing at each of `depths`, by its K.
    fn alone(&self, depths: &[usize], flags: &str) -> Vec<(usize, PathBuf)> {
        let make = |&depth: &usize| {
            let cache = self.path(&format!("alone-{depth}{flags}"));
            telly_json(&self.precompute(&depth.to_string(), &cache, flags));
            assert!(names(&cache).len() > 8, "several shards");
            (depth, cache)
        };
        depths.iter().map(make).collect()
    }
}

fn assert_same(folder: &Path, alone: &[(usize, PathBuf)]) {
    for (depth, cache) in alone {
        let found = content(&folder.join(format!("freeze-{depth}")));
        assert!(found == content(cache), "depth {depth} differs");
    }
    assert_eq!(names(folder).len(), alone.len(), "{:?}", names(folder));
}

/// A number of a command's JSON object.
fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().expect("a number")
}

#[test]
fn each_depth_has_the_bytes_of_a_lone_run() {
    let fp32 = "--precision fp32";
    let in_int8 = "--precision fp32 --frozen-precision int8";
    for (model, flags) in [
        ("bert-tiny", fp32),
        ("bert-tiny", in_int8),
        ("bert-tiny", "--precision int8"),
        ("roberta-tiny", fp32),
        ("roberta-tiny", in_int8),
        ("mpnet-tiny", fp32),
        ("mpnet-tiny", in_int8),
        ("mpnet-tiny", "--precision fp16"),
    ] {
        let work = Work::tiny(model);
        let alone = work.alone(&[0, 1, 3], flags);
        let folder = work.path("several");
        let made = telly_json(&work.precompute("3,0,1", &folder, flags));
        assert_same(&folder, &alone);
        assert_eq!(made["cache"], text(&folder));
        assert_eq!(made["complete"], true);
        let caches = made["caches"].as_array().expect("a list");
        let freezes: Vec<&Value> = caches.iter().map(|cache| &cache["freeze"]).collect();
        assert_eq!(freezes, [0, 1, 3]);
        let bytes = caches.iter().map(|cache| number(cache, "bytes"));
        assert_eq!(bytes.sum::<u64>(), number(&made, "bytes"));
        assert_eq!(caches[1]["cache"], text(&folder.join("freeze-1")));
        let again = telly_json(&work.precompute("0,1,3", &folder, flags));
        assert_eq!(again["computed_tokens"], 0);
        assert_same(&folder, &alone);
    }
}

#[test]
fn each_depth_of_minilm_has_the_bytes_of_a_lone_run() {
    let work = Work::new(minilm());
    let command = |freeze: &str, cache: &Path| {
        let data = work.path("train.jsonl");
        let mut command = precompute("classify", &work.model, &data, freeze, cache);
        command.extend(["--precision", "fp32"].map(String::from));
        command
    };
    let folder = work.path("several");
    telly_json(&command("2,4,5", &folder));
    let alone = [2usize, 4, 5].map(|depth| {
        let cache = work.path(&format!("alone-{depth}"));
        telly_json(&command(&depth.to_string(), &cache));
        (depth, cache)
    });
    assert_same(&folder, &alone);
}

#[test]
fn only_what_some_depth_lacks_is_computed() {
    let work = Work::tiny("bert-tiny");
    let alone = work.alone(&[1, 2], "");
    let folder = work.path("several");
    let command = work.precompute("1,2", &folder, "");
    let made = telly_json(&command);
    // As a run leaves it that was stopped between the writers of one shard.
    fs_err::remove_file(folder.join("freeze-2/shard-00003.safetensors")).expect("removed");
    let kept = folder.join("freeze-1/shard-00003.safetensors");
    let before = fs_err::metadata(&kept).and_then(|file| file.modified());
    let mended = telly_json(&command);
    let (computed, all) = (
        number(&mended, "computed_tokens"),
        number(&made, "computed_tokens"),
    );
    assert!(computed > 0 && computed * 4 < all, "{computed} of {all}");
    assert_same(&folder, &alone);
    let after = fs_err::metadata(&kept).and_then(|file| file.modified());
    assert_eq!(before.expect("a time"), after.expect("a time"));

    // A depth that is there already, and one that is not.
    fs_err::remove_dir_all(folder.join("freeze-1")).expect("removed");
    let added = telly_json(&command);
    assert_eq!(added["computed_tokens"], added["tokens"]);
    assert_same(&folder, &alone);
}

#[test]
fn changed_data_is_taken_in_at_every_depth() {
    let work = Work::tiny("mpnet-tiny");
    let folder = work.path("several");
    let command = work.precompute("1,2", &folder, "");
    write_classification(&work.path("train.jsonl"), 18);
    telly_json(&command);
    write_classification(&work.path("train.jsonl"), 40);
    // One depth has the new data already.
    let one = folder.join("freeze-2");
    telly_json(&work.precompute("2", &one, ""));
    let changed = telly_json(&command);
    let computed = number(&changed, "computed_tokens");
    let all = number(&changed, "tokens");
    assert!(computed > 0 && computed * 2 < all, "{computed} of {all}");
    assert_same(&folder, &work.alone(&[1, 2], ""));
}

#[test]
fn shares_of_every_depth_are_put_together() {
    let work = Work::tiny("bert-tiny");
    let folder = work.path("several");
    let first = telly_json(&work.precompute("1,3", &folder, "--shard 1/2"));
    assert_eq!(first["complete"], false);
    assert!(folder.join("freeze-3/share-1-of-2").is_dir());
    let last = telly_json(&work.precompute("1,3", &folder, "--shard 2/2"));
    assert_eq!(last["complete"], true);
    assert_same(&folder, &work.alone(&[1, 3], ""));
}

#[test]
fn a_dry_run_adds_the_depths_up() {
    let work = Work::tiny("bert-tiny");
    let folder = work.path("several");
    let command = |freeze| work.precompute(freeze, &folder, "--dry-run");
    let (one, three) = (telly_json(&command("2")), telly_json(&command("1,2,3")));
    assert!(!folder.exists());
    for field in ["/bytes", "/splits/train/bytes"] {
        let bytes = |told: &Value| told.pointer(field).and_then(Value::as_u64).expect("bytes");
        assert_eq!(bytes(&three), 3 * bytes(&one), "{field}");
    }
    assert_eq!(one["tokens"], three["tokens"]);
}

#[test]
fn a_graph_has_an_output_for_each_depth() {
    let Some(python) = python() else { return };
    let work = Work::tiny("mpnet-tiny");
    let graph = work.path("frozen.onnx");
    let flags = format!("--graph {}", text(&graph));
    telly_json(&work.precompute("0,2", &work.path("several"), &flags));
    println!("{}", run_python(&python, "check_onnx.py", &[&graph]));
    let bytes = fs_err::read(&graph).expect("bytes");
    let holds = |name: &str| {
        bytes
            .windows(name.len())
            .any(|window| window == name.as_bytes())
    };
    assert!(holds("hidden_states.0") && holds("hidden_states.2") && !holds("hidden_states.1"));
}

#[test]
fn a_recipe_names_several_depths() {
    let work = Work::tiny("bert-tiny");
    let folder = work.path("several");
    for (line, caches) in [
        ("freeze = [1, 2]", vec!["freeze-1", "freeze-2"]),
        ("freeze = \"3,1\"", vec!["freeze-1", "freeze-2", "freeze-3"]),
    ] {
        let recipe = work.space.write("recipe.toml", line);
        let command = work.precompute("1", &folder, &format!("--recipe {}", text(&recipe)));
        let is_freeze = |argument: &String| argument == "--freeze";
        let place = command.iter().position(is_freeze).expect("there");
        let command = [&command[..place], &command[place + 2..]].concat();
        telly_json(&command);
        assert_eq!(names(&folder), caches, "{line}");
    }
    // One of them is an ordinary cache, and the folder of all of them is none.
    let cache = folder.join("freeze-2");
    telly_json(&train(&cache, &work.path("run"), "--epochs 1"));
    let several = telly(&train(&folder, &work.path("other"), "--epochs 1"));
    let words = ["no activation cache", "several depths", "several/freeze-1`"];
    fails(several, support::WRONG_INPUT, &words);
}

#[test]
fn lists_that_cannot_be_are_refused() {
    let work = Work::tiny("bert-tiny");
    let folder = work.path("several");
    for (freeze, words) in [
        ("2,2", "2 is there twice"),
        ("none,2", "`none` is one of several"),
        (
            "2,",
            "expected none, a number of layers, or a range as 2..5",
        ),
        ("2,9", "has 3 layers"),
    ] {
        let output = telly(&work.precompute(freeze, &folder, "")).output();
        let output = output.expect("telly runs");
        let said = stderr(&output);
        println!("{said}");
        assert_eq!(output.status.code(), Some(support::WRONG_INPUT));
        assert!(said.contains(words), "{said}");
        assert!(!folder.exists());
    }
    telly_json(&work.precompute("1", &folder, ""));
    let inside = telly(&work.precompute("1,2", &folder, ""));
    fails(inside, support::WRONG_INPUT, &["is a cache itself"]);
    assert!(!folder.join("freeze-1").exists());
}
