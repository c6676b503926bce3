//! A split of several files is that of one file with all their rows.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::Path;

use crate::support::{
    WRONG_INPUT, Workspace, fails, goldens, names, precompute, telly, telly_json, telly_ok, text,
    train, write_classification,
};
use serde_json::Value;

fn manifest(cache: &Path) -> Value {
    let text = fs_err::read_to_string(cache.join("manifest.json")).expect("a manifest");
    serde_json::from_str(&text).expect("JSON")
}

/// `all.jsonl` and its rows in `a.jsonl` and `b.csv`.
fn write(space: &Workspace) {
    let all = space.path("all.jsonl");
    write_classification(&all, 30);
    let text = fs_err::read_to_string(&all).expect("rows");
    let lines: Vec<&str> = text.lines().collect();
    space.write("a.jsonl", &lines[..20].join("\n"));
    let rows = lines[20..].iter().map(|line| {
        let row: Value = serde_json::from_str(line).expect("JSON");
        format!(
            "\"{}\",{}\n",
            row["text"].as_str().expect("text"),
            row["label"]
        )
    });
    let table = format!("text,label\n{}", rows.collect::<String>());
    space.write("b.csv", &table);
}

#[test]
fn several_files_are_one_split() {
    let space = Workspace::new();
    write(&space);
    let paths = ["all.jsonl", "a.jsonl", "b.csv"].map(|name| space.path(name));
    let [all, first, second] = paths.each_ref().map(|path| text(path));
    let model = goldens().join("bert-tiny");
    let (one, cache) = (space.path("one"), space.path("cache"));
    telly_json(&precompute("classify", &model, &paths[0], "1", &one));
    let several = |cache: &Path, files: &[&str]| {
        let mut command = precompute("classify", &model, &paths[0], "1", cache);
        let place = command
            .iter()
            .position(|word| word == all)
            .expect("the file");
        command.splice(place..=place, files.iter().map(|file| (*file).to_owned()));
        command
    };
    telly_json(&several(&cache, &[first, second]));
    let (expected, found) = (manifest(&one), manifest(&cache));
    assert_eq!(found["fingerprint"], expected["fingerprint"]);
    assert_eq!(found["shards"], expected["shards"]);
    assert_eq!(found["data"]["train"].as_array().map(Vec::len), Some(2));
    // In another order it is another split; the flag may be repeated too.
    let other = space.path("other");
    telly_json(&several(&other, &[second, "--train", first]));
    let other = manifest(&other);
    assert_ne!(other["fingerprint"]["train"], found["fingerprint"]["train"]);

    let shard = cache.join("shard-00000.safetensors");
    let whole = fs_err::read(&shard).expect("a shard");
    fs_err::write(&shard, &whole[..whole.len() / 2]).expect("cut short");
    telly_ok(&["cache", "verify", text(&cache), "--repair"]);
    assert_eq!(fs_err::read(&shard).expect("a shard"), whole);
    assert_eq!(manifest(&cache), found);

    // Checked against the cache, kept with the run, and in a recipe.
    let run = space.path("run");
    let checked = |files: [&str; 2]| {
        let mut command = train(&cache, &run, "--epochs 1");
        command.extend(["--train", files[0], files[1]].map(String::from));
        command
    };
    fails(telly(&checked([second, first])), WRONG_INPUT, &["train: "]);
    telly_json(&checked([first, second]));
    let recipe = space.write(
        "recipe.toml",
        &format!(
            "train = [{first:?}, {second:?}]\ntask = \"classify\"\nfreeze = 1\nmax_length = 32\n"
        ),
    );
    let again = space.path("again");
    let command = [
        "precompute",
        "--recipe",
        text(&recipe),
        "--model",
        text(&model),
    ];
    let command: Vec<&str> = command
        .into_iter()
        .chain(["--cache", text(&again)])
        .collect();
    telly_json(&command);
    assert_eq!(manifest(&again)["fingerprint"], found["fingerprint"]);
    let exported = space.path("exported");
    telly_json(&[
        "export",
        "--run",
        text(&run),
        "--format",
        "hf",
        "--out",
        text(&exported),
    ]);
    let card = fs_err::read_to_string(exported.join("README.md")).expect("a card");
    assert!(!card.contains(text(space.folder())), "{card}");
}

#[test]
fn errors_name_the_file() {
    let space = Workspace::new();
    write(&space);
    let model = goldens().join("bert-tiny");
    let cache = space.path("cache");
    let several = |second: &str| {
        let mut command = precompute("classify", &model, &space.path("a.jsonl"), "1", &cache);
        command.extend(["--train", text(&space.path(second))].map(String::from));
        telly(&command)
    };
    space.write(
        "broken.jsonl",
        "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"a\"}\n",
    );
    fails(
        several("broken.jsonl"),
        WRONG_INPUT,
        &["broken.jsonl", "line 2"],
    );
    fails(several("nothing.jsonl"), WRONG_INPUT, &["nothing.jsonl"]);
    let negatives = |name: &str, negatives: &str| {
        let line = "{\"docstring\": \"a\", \"code\": \"b\", \"others\": ";
        space.write(
            name,
            &format!("{line}[\"c\", \"d\"]}}\n{line}{negatives}}}\n"),
        )
    };
    let first = negatives("first.jsonl", "[\"c\"]");
    let second = negatives("second.jsonl", "[]");
    let mut command = precompute("search", &model, &first, "1", &cache);
    command.extend(["--train", text(&second), "--negative-field", "others"].map(String::from));
    fails(
        telly(&command),
        WRONG_INPUT,
        &["second.jsonl`, line 2: `others` holds no text"],
    );
    space.write("pairs.txt", "1\t2\t0\n");
    fails(
        several("pairs.txt"),
        WRONG_INPUT,
        &["pairs.txt", "several files"],
    );
    assert!(!names(space.folder()).contains(&"cache".to_owned()));
}
