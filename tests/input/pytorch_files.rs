//! `pytorch_model.bin`, in both forms, holds the numbers that safetensors holds, and whatever else
//! such a file may carry is an error: nothing of it is run.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Classification, Golden, WRONG_INPUT, content, fails, goldens, names, precompute, telly_ok,
};
use telly::checkpoint::{Family, Weights};

fn folder() -> PathBuf {
    goldens().join("pytorch")
}

/// A checkpoint folder in `target` with these files of the golden one, under these names.
fn checkpoint(target: &Path, files: &[(&str, &str)]) -> PathBuf {
    fs_err::create_dir_all(target).expect("a folder");
    for (from, to) in files {
        fs_err::copy(folder().join("bert").join(from), target.join(to)).expect("copied");
    }
    target.to_owned()
}

/// The golden file `name` as the only weights of a folder.
fn weights(name: &str) -> (tempfile::TempDir, Weights) {
    let space = tempfile::tempdir().expect("a folder");
    let target = space.path().join("pytorch_model.bin");
    fs_err::copy(folder().join(name), target).expect("copied");
    let weights = Weights::open(space.path(), Family::Bert).expect("weights");
    (space, weights)
}

#[test]
fn every_layout_is_read_as_safetensors_has_it() {
    let golden = Golden::read("pytorch/layouts.safetensors");
    assert_eq!(golden.tensors.len(), 13);
    for form in ["layouts.zip.bin", "layouts.legacy.bin"] {
        let (_space, weights) = weights(form);
        for (name, tensor) in &golden.tensors {
            let found = weights.tensor(name, tensor.dims()).expect("numbers");
            let flat = tensor.flatten_all().expect("flat");
            let expected: Vec<f32> = flat.to_vec1().expect("numbers");
            assert_eq!(found, expected, "{form}: {name}");
        }
        let shape = weights.check("plain", &[6, 4]).expect_err("another shape");
        assert!(shape.to_string().contains("[4, 6]"), "{shape}");
        let buffer = weights.check("position_ids", &[1, 5]);
        let buffer = buffer.expect_err("no weights").to_string();
        assert!(buffer.contains("stored as I64"), "{buffer}");
    }
}

/// A cache from each kind of checkpoint files, which must be the same to the byte.
#[test]
fn a_checkpoint_in_any_form_gives_the_same_cache() {
    let work = Classification::new();
    let train = work.path("train.jsonl");
    let safetensors = checkpoint(
        &work.path("safetensors"),
        &[
            ("config.json", "config.json"),
            ("model.safetensors", "model.safetensors"),
            ("tokenizer.json", "tokenizer.json"),
        ],
    );
    let zip = checkpoint(
        &work.path("zip"),
        &[
            ("config.json", "config.json"),
            ("pytorch_model.bin", "pytorch_model.bin"),
            ("tokenizer.json", "tokenizer.json"),
        ],
    );
    let parts = [
        "config.json",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "tokenizer.json",
    ];
    let older = checkpoint(&work.path("older"), &parts.map(|name| (name, name)));
    // Where both are there, safetensors is read: these weights would be refused.
    let both = checkpoint(
        &work.path("both"),
        &[
            ("config.json", "config.json"),
            ("model.safetensors", "model.safetensors"),
            ("config.json", "pytorch_model.bin"),
            ("tokenizer.json", "tokenizer.json"),
        ],
    );
    let shards = |model: &Path| {
        let cache = model.join("cache");
        telly_ok(&precompute("classify", model, &train, "1", &cache));
        let files = content(&cache).into_iter();
        let shards: Vec<_> = files
            .filter(|(name, _)| name.starts_with("shard"))
            .collect();
        assert!(!shards.is_empty());
        shards
    };
    let expected = shards(&safetensors);
    for model in [zip, older, both] {
        assert!(shards(&model) == expected, "{}", model.display());
    }
}

/// Each of these files runs code when Python loads it; see `scripts/goldens/pytorch_files.py`.
#[test]
fn nothing_is_run() {
    let files = names(&folder().join("hostile"));
    assert_eq!(files.len(), 20);
    for file in files {
        let work = Classification::new();
        let model = checkpoint(
            &work.path("model"),
            &[
                ("config.json", "config.json"),
                ("tokenizer.json", "tokenizer.json"),
            ],
        );
        let target = model.join("pytorch_model.bin");
        fs_err::copy(folder().join("hostile").join(&file), target).expect("copied");
        let mut command = work.precompute(&model, &work.path("train.jsonl"), "1");
        command.current_dir(work.0.folder());
        let wanted = match file.split('.').next().expect("a name") {
            "posix-system-reduce" => "`posix.system`",
            "builtins-eval" => "`builtins.eval`",
            "obj" => "`subprocess.Popen`",
            "newobj" => "`__main__.RunsItsArgument`",
            "build" => "`__main__.RunsItsState`",
            "extension" => "`copyreg extension 240`",
            "torch-function" => "`torch.hub._run_command`",
            _ => "`os.system`",
        };
        fails(
            command,
            WRONG_INPUT,
            &["pytorch_model.bin", wanted, "nothing was run", "torch.load"],
        );
        let left = names(work.0.folder());
        assert_eq!(left, ["model", "other.jsonl", "train.jsonl"], "{file}");
    }
}

fn refused(work: &Classification, command: Command, words: &[&str]) {
    fails(command, WRONG_INPUT, words);
    assert!(!work.path("cache").exists(), "a cache was left behind");
}

#[test]
fn damaged_files() {
    let work = Classification::new();
    let train = work.path("train.jsonl");
    let parts = [
        "config.json",
        "pytorch_model.bin.index.json",
        "pytorch_model-00001-of-00002.bin",
        "pytorch_model-00002-of-00002.bin",
        "tokenizer.json",
    ];
    let older = checkpoint(&work.path("older"), &parts.map(|name| (name, name)));
    let part = older.join("pytorch_model-00002-of-00002.bin");
    let whole = fs_err::read(&part).expect("bytes");
    fs_err::write(&part, &whole[..whole.len() - 5]).expect("written");
    let cut = work.precompute(&older, &train, "1");
    refused(&work, cut, &["-00002-of-00002.bin", "ends too early"]);

    let zip = checkpoint(
        &work.path("zip"),
        &[
            ("config.json", "config.json"),
            ("tokenizer.json", "tokenizer.json"),
        ],
    );
    let place = zip.join("pytorch_model.bin");
    let whole = fs_err::read(folder().join("bert/pytorch_model.bin")).expect("bytes");
    let spoiled = |bytes: &[u8], words: &[&str]| {
        fs_err::write(&place, bytes).expect("written");
        refused(&work, work.precompute(&zip, &train, "1"), words);
    };
    spoiled(&whole[..whole.len() - 1000], &["zip archive is damaged"]);
    spoiled(b"PK", &["zip archive is damaged"]);
    spoiled(b"", &["breaks off at byte 0"]);
    spoiled(b"\x80\x02K\x05.", &["PyTorch's number"]);
    let position = whole.windows(6).position(|word| word == b"little");
    let position = position.expect("the byte order");
    let mut big = whole.clone();
    big.splice(position..position + 6, *b"big   ");
    spoiled(&big, &["most significant byte first"]);
    // A storage that says it has more numbers than there are.
    let embedding = whole.windows(3).position(|word| word == b"M\x80\x0c");
    let embedding = embedding.expect("400 times 8");
    let mut longer = whole.clone();
    longer[embedding + 2] = 0x7f;
    spoiled(&longer, &["word_embeddings.weight", "12800 bytes", "32640"]);
}

#[test]
fn an_index_names_files_of_its_folder() {
    let work = Classification::new();
    let train = work.path("train.jsonl");
    for index in [
        "pytorch_model.bin.index.json",
        "model.safetensors.index.json",
    ] {
        let model = checkpoint(
            &work.path(index),
            &[
                ("config.json", "config.json"),
                ("tokenizer.json", "tokenizer.json"),
            ],
        );
        for name in [
            "../x.bin",
            "/etc/passwd",
            "a/../../x",
            "",
            ".",
            "..",
            "a\\b",
            "C:x",
            "a\0b",
        ] {
            let map = serde_json::json!({"weight_map": {"embeddings.LayerNorm.weight": name}});
            fs_err::write(model.join(index), map.to_string()).expect("written");
            let command = work.precompute(&model, &train, "1");
            refused(&work, command, &[index, "no plain file name"]);
        }
        fs_err::write(model.join(index), "{\"weight_map\": {}}").expect("written");
        refused(
            &work,
            work.precompute(&model, &train, "1"),
            &["names no weight file"],
        );
        fs_err::write(model.join(index), "{\"weight_map\": {\"a\": \"gone.bin\"}}")
            .expect("written");
        refused(&work, work.precompute(&model, &train, "1"), &["gone.bin"]);
    }
}
