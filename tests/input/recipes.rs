//! Every recipe of `recipes/` is read, and those for small machines run from end to end.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::support::{
    Workspace, goldens, names, project, telly_json, text, write_classification, write_search,
};

fn recipes() -> Vec<PathBuf> {
    let folder = project().join("recipes");
    let names = names(&folder).into_iter();
    let paths = names.map(|name| folder.join(name));
    let is_recipe = |path: &PathBuf| path.extension().is_some_and(|end| end == "toml");
    paths.filter(is_recipe).collect()
}

/// Pairs, a group and its text, as each task's data has them, named as it comes.
fn write_data(space: &Workspace, task: &str, split: &str) -> PathBuf {
    let path = space.path(&format!("{split}.jsonl"));
    let word = |row: usize| ["sort", "count", "read", "write"][row % 4];
    let mut lines = String::new();
    for row in 0..24 {
        match task {
            "clone" => writeln!(
                lines,
                "{{\"func1\": \"def {}(x{row})\", \"func2\": \"def {}(y)\", \"label\": {}}}",
                word(row),
                word(row * row),
                i32::from(row % 4 == row * row % 4)
            ),
            "poj104" => writeln!(
                lines,
                "{{\"code\": \"def {}(x{row})\", \"label\": \"{}\", \"index\": {row}}}",
                word(row),
                row % 4
            ),
            _ => Ok(()),
        }
        .expect("written");
    }
    match task {
        "search" => write_search(&path, 24),
        "clone" | "poj104" => fs_err::write(&path, lines).expect("written"),
        _ => {
            write_classification(&path, 24);
            let names = match task {
                "defect" => ["\"func\"", "\"target\""],
                _ => ["\"sentence\"", "\"label\""],
            };
            let data = fs_err::read_to_string(&path).expect("text");
            let data = data.replace("\"text\"", names[0]);
            fs_err::write(&path, data.replace("\"label\"", names[1])).expect("written");
        }
    }
    path
}

#[test]
fn every_recipe_is_read_by_both_commands() {
    let recipes = recipes();
    assert!(recipes.len() >= 10, "{recipes:?}");
    for recipe in recipes {
        for command in ["precompute", "train"] {
            let read = telly::cli::check_recipe(command, &recipe);
            assert!(read.is_ok(), "{}: {:?}", recipe.display(), read.err());
        }
        let content = fs_err::read_to_string(&recipe).expect("text");
        let source = content.contains("Source: ");
        let small = recipe.to_string_lossy().ends_with("-small.toml");
        assert!(source != small, "{}", recipe.display());
    }
}

#[test]
fn those_for_small_machines_run() {
    let small = recipes().into_iter().filter_map(|recipe| {
        let name = recipe.file_name()?.to_string_lossy().into_owned();
        Some((name.strip_suffix("-small.toml")?.to_owned(), recipe))
    });
    let mut run = 0;
    for (task, recipe) in small {
        let space = Workspace::new();
        let [train, valid, test] =
            ["train", "valid", "test"].map(|split| write_data(&space, &task, split));
        let (cache, out) = (space.path("cache"), space.path("run"));
        let model = goldens().join("bert-tiny");
        // What a tiny model of 3 layers and 64 positions cannot do.
        let lengths: &[&str] = match task.as_str() {
            "search" => &["--max-query-length", "16", "--max-code-length", "32"],
            _ => &["--max-length", "32"],
        };
        let recipe = ["--recipe", text(&recipe), "--cache", text(&cache)];
        let splits = ["--train", text(&train), "--valid", text(&valid), "--test"];
        let rest = [text(&test), "--model", text(&model), "--freeze", "1"];
        let provider = ["--provider", "cpu"];
        let fixed = [&["precompute"], &recipe[..], &splits, &rest, &provider];
        telly_json(&[&fixed.concat()[..], lengths].concat());
        let flags = ["--out", text(&out), "--epochs", "1", "--freeze", "1"];
        let trained = telly_json(&[&["train"], &recipe[..], &flags, lengths].concat());
        assert!(trained["test"]["loss"].is_number(), "{task}: {trained}");
        run += 1;
    }
    assert_eq!(run, 5);
}
