//! Tokenizers built from vocabulary files give the ids of transformers' own.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::{Path, PathBuf};

use crate::support::{self, Classification, WRONG_INPUT, fails, goldens};
use telly::checkpoint::{Checkpoint, Family, Tokenizer};

/// Kinds of vocabulary files, and the family of models that has them.
const KINDS: [(&str, Family); 7] = [
    ("bert", Family::Bert),
    ("bert-cased", Family::Bert),
    ("bert-added", Family::Bert),
    ("mpnet", Family::Mpnet),
    ("codebert", Family::Roberta),
    ("unixcoder", Family::Roberta),
    ("newer", Family::Roberta),
];

fn read<T: serde::de::DeserializeOwned>(path: &Path) -> T {
    serde_json::from_slice(&fs_err::read(path).expect("bytes")).expect("JSON")
}

/// Compares the ids in `folder/KIND.json` with those by the tokenizer of `folder/KIND`, for the
/// strings of `folder/strings.json`; how many strings there were, and how
/// many differ.
fn compare(folder: &Path, kind: &str, family: Family) -> (usize, usize) {
    let texts: Vec<String> = read(&folder.join("strings.json"));
    let expected: Vec<Vec<u32>> = read(&folder.join(format!("{kind}.json")));
    assert_eq!(texts.len(), expected.len());
    let tokenizer = Tokenizer::of_folder(&folder.join(kind), family, 100_000);
    let tokenizer = tokenizer.expect("a tokenizer");
    let found = tokenizer.encode(texts.clone(), 1 << 20).expect("ids");
    let different = (0..texts.len()).filter(|&row| found.sequence(row) != expected[row]);
    let different: Vec<usize> = different.collect();
    for &row in different.iter().take(20) {
        println!(
            "{:?}\n  found    {:?}\n  expected {:?}",
            texts[row],
            found.sequence(row),
            expected[row]
        );
    }
    println!(
        "{kind}: {} strings, {} tokens, {} strings differ",
        texts.len(),
        found.tokens(),
        different.len()
    );
    (texts.len(), different.len())
}

#[test]
fn hard_strings() {
    let mut wrong = 0;
    for (kind, family) in KINDS {
        let (strings, different) = compare(&goldens().join("vocabularies"), kind, family);
        assert!(strings > 250);
        wrong += different;
    }
    assert_eq!(wrong, 0);
}

/// Ten thousand functions and descriptions, with the vocabularies of real models and a large one
/// trained on code; see `scripts/goldens/vocabularies.py`.
#[test]
fn real_snippets() {
    let Some(folder) = std::env::var_os("TELLY_TEST_VOCABULARIES") else {
        println!("TELLY_TEST_VOCABULARIES is not set, so no comparison on real snippets");
        return;
    };
    let folder = PathBuf::from(folder);
    for (kind, family) in [KINDS[0], KINDS[3], KINDS[4]] {
        let (strings, different) = compare(&folder, kind, family);
        assert!(strings > 10_000 && different == 0);
    }
}

/// A folder with the vocabulary files of `kind` and a model that fits none of them.
fn folder(work: &Classification, kind: &str) -> PathBuf {
    let target = work.path(kind);
    fs_err::create_dir(&target).expect("a folder");
    let source = goldens().join("vocabularies").join(kind);
    for name in support::names(&source) {
        fs_err::copy(source.join(&name), target.join(&name)).expect("copied");
    }
    for name in ["config.json", "model.safetensors"] {
        let from = goldens().join("pytorch/bert").join(name);
        fs_err::copy(from, target.join(name)).expect("copied");
    }
    target
}

#[test]
fn broken_files() {
    let work = Classification::new();
    let train = work.path("train.jsonl");
    let bytes = folder(&work, "unixcoder");
    let words = folder(&work, "bert-cased");
    let refused = |model: &Path, name: &str, content: &str, expected: &[&str]| {
        let place = model.join(name);
        let before = fs_err::read(&place).expect("bytes");
        fs_err::write(&place, content).expect("written");
        let command = work.precompute(model, &train, "1");
        fails(command, WRONG_INPUT, expected);
        assert!(!work.path("cache").exists(), "a cache was left behind");
        fs_err::write(&place, before).expect("written");
    };
    let merges = "#version: 0.2\nt h\nt h e\n";
    refused(
        &bytes,
        "merges.txt",
        merges,
        &["merges.txt", "line 3", "two pieces"],
    );
    refused(
        &bytes,
        "merges.txt",
        "t nowhere\n",
        &["vocab.json", "nowhere"],
    );
    refused(&bytes, "vocab.json", "{\"a\": -1}", &["vocab.json", "JSON"]);
    refused(&bytes, "vocab.json", "{\"a\": 0}", &["vocab.json"]);
    let huge = "{\"<s>\": 4294967295, \"</s>\": 1, \"<unk>\": 2, \"<pad>\": 3}";
    refused(&bytes, "vocab.json", huge, &["vocab.json"]);
    refused(
        &bytes,
        "added_tokens.json",
        "[]",
        &["added_tokens.json", "JSON"],
    );
    refused(
        &bytes,
        "added_tokens.json",
        "{\"a\": \"b\"}",
        &["the id \"b\""],
    );
    let special = "{\"cls_token\": 5}";
    refused(
        &bytes,
        "special_tokens_map.json",
        special,
        &["`cls_token` is 5"],
    );
    let other = "{\"tokenizer_class\": \"GPT2Tokenizer\"}";
    refused(
        &bytes,
        "tokenizer_config.json",
        other,
        &["GPT2Tokenizer", "RobertaTokenizer"],
    );
    let lower = "{\"do_lower_case\": \"yes\"}";
    refused(
        &words,
        "tokenizer_config.json",
        lower,
        &["`do_lower_case`", "true or false"],
    );
    refused(&words, "vocab.txt", "a\nb\n", &["vocab.txt"]);
    fs_err::remove_file(words.join("vocab.txt")).expect("removed");
    let command = work.precompute(&words, &train, "1");
    fails(
        command,
        WRONG_INPUT,
        &["neither `tokenizer.json`", "`vocab.txt`"],
    );
}

/// The hash covers every file that the tokenizer was built from, and no other.
#[test]
fn the_identity_covers_the_files() {
    let work = Classification::new();
    let model = folder(&work, "bert-added");
    fs_err::copy(
        goldens().join("pytorch/bert/vocab.txt"),
        model.join("vocab.txt"),
    )
    .expect("copied");
    fs_err::write(model.join("added_tokens.json"), "{}").expect("written");
    let identity = || {
        let checkpoint = Checkpoint::open(&model).expect("a checkpoint");
        checkpoint.identity().expect("hashes").tokenizer
    };
    let before = identity();
    fs_err::write(model.join("README.md"), "other").expect("written");
    assert_eq!(identity(), before);
    for name in [
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
    ] {
        let place = model.join(name);
        let text = fs_err::read(&place).expect("bytes");
        fs_err::write(&place, [&text[..], b"\n"].concat()).expect("written");
        assert_ne!(identity(), before, "{name}");
        fs_err::write(&place, text).expect("written");
    }
    assert_eq!(identity(), before);
    // `tokenizer.json` is what counts where there is one, and its hash is that of its bytes.
    let bytes = fs_err::read(goldens().join("pytorch/bert/tokenizer.json")).expect("bytes");
    fs_err::write(model.join("tokenizer.json"), &bytes).expect("written");
    assert_eq!(identity(), blake3::hash(&bytes).to_hex().to_string());
}
