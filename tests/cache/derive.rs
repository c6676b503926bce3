//! A cache made out of one of fewer frozen layers has the bytes of one made from nothing, or says
//! that it has not.

#![allow(
    clippy::cast_precision_loss,
    clippy::print_stdout,
    reason = "small numbers; the figures are shown"
)]

use std::path::{Path, PathBuf};

use crate::support::{
    FAMILIES, WRONG_INPUT, Workspace, content, fails, goldens, minilm, names, precompute, telly,
    telly_json, text, train, write_classification, write_search,
};
use serde_json::{Value, json};
use telly::cache::{Cache, MANIFEST, Manifest};

/// Data for one model, and the caches made from it.
struct Work {
    space: Workspace,
    model: PathBuf,
}

impl Work {
    fn new(model: PathBuf) -> Self {
        let space = Workspace::new();
        write_classification(&space.path("classify.jsonl"), 40);
        write_search(&space.path("search.jsonl"), 30);
        Self { space, model }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.space.path(name)
    }

    /// `telly precompute` into the folder `cache`.
    fn precompute(&self, task: &str, freeze: usize, cache: &Path, flags: &str) -> Vec<String> {
        let data = self.path(&format!("{task}.jsonl"));
        let mut command = precompute(task, &self.model, &data, &freeze.to_string(), cache);
        command.extend(flags.split_whitespace().map(String::from));
        command
    }

    /// A cache made from nothing.
    fn made(&self, task: &str, freeze: usize, name: &str, flags: &str) -> PathBuf {
        let cache = self.path(name);
        telly_json(&self.precompute(task, freeze, &cache, flags));
        cache
    }
}

/// `telly cache derive`.
fn derive(source: &Path, freeze: usize, out: &Path, flags: &str) -> Vec<String> {
    let freeze = freeze.to_string();
    let fixed = [
        "cache",
        "derive",
        text(source),
        "--freeze",
        &freeze,
        "--out",
        text(out),
    ];
    let fixed = fixed.into_iter().chain(flags.split_whitespace());
    fixed.map(String::from).collect()
}

fn assert_same(found: &Path, expected: &Path) {
    assert_eq!(names(found), names(expected));
    for (found, expected) in content(found).iter().zip(&content(expected)) {
        assert!(found == expected, "{} differs", found.0);
    }
}

#[test]
fn from_fp32_it_has_the_bytes_of_one_made_from_nothing() {
    for (model, task) in [
        ("bert-tiny", "classify"),
        ("roberta-tiny", "search"),
        ("mpnet-tiny", "search"),
        ("xlm-roberta-tiny", "classify"),
        ("distilbert-tiny", "classify"),
        ("modernbert-tiny", "search"),
    ] {
        let work = Work::new(goldens().join(model));
        let flags = "--precision fp32 --shard-size 2KiB";
        let made = |freeze| work.made(task, freeze, &format!("made-{freeze}"), flags);
        let (embedded, first) = (made(0), made(1));
        for (source, freeze) in [(&embedded, 2), (&first, 3)] {
            let out = work.path(&format!("derived-{freeze}"));
            let derived = telly_json(&derive(source, freeze, &out, ""));
            assert_eq!(derived["exact"], true);
            assert_same(&out, &made(freeze));
        }
        // As a step in between, and stored in less at the end.
        let out = work.path("derived-twice");
        let flags = "--precision fp16 --shard-size 2KiB";
        telly_json(&derive(&work.path("derived-2"), 3, &out, flags));
        assert_same(&out, &work.made(task, 3, "made-smaller", flags));
    }
}

/// In int8 the bits may depend on what a sequence is batched with. The batches of a cache made from
/// nothing are the same ones here, but nobody promises it.
#[test]
fn in_int8_it_is_not_called_exact() {
    for model in FAMILIES {
        let work = Work::new(goldens().join(model));
        let flags = "--precision fp32 --shard-size 2KiB --frozen-precision int8";
        let (source, out) = (work.made("search", 1, "source", flags), work.path("out"));
        let derived = telly_json(&derive(&source, 3, &out, ""));
        assert_eq!(derived["exact"], false);
        let fresh = work.made("search", 3, "fresh", flags);
        let shards = |folder: &Path| -> Vec<_> {
            let files = content(folder).into_iter();
            files
                .filter(|(name, _)| name.starts_with("shard"))
                .collect()
        };
        assert!(shards(&out).len() > 3 && shards(&out) == shards(&fresh));
        let fingerprint = Manifest::read(&out).expect("a manifest").fingerprint;
        assert_eq!(fingerprint.get("frozen_precision"), "int8");
        assert_eq!(fingerprint.get("derived_from")["precision"], "fp32");
    }
}

/// The largest and the mean difference of two caches' states, as they are read back.
fn difference(one: &Path, other: &Path) -> (f64, f64) {
    let [one, other] = [one, other].map(|folder| {
        let cache = Cache::open(folder).expect("a cache");
        let all: Vec<usize> = (0..cache.manifest().sequences).collect();
        cache.hidden_states(&all)
    });
    assert_eq!(one.offsets(), other.offsets());
    let pairs = one.values().iter().zip(other.values());
    let apart = pairs.map(|(a, b)| f64::from((a - b).abs()));
    let sum: f64 = apart.clone().sum();
    (apart.fold(0.0, f64::max), sum / one.values().len() as f64)
}

/// Exact from fp32; from anything else as close as the rounding of the states it starts from, which
/// is told.
#[test]
fn minilm_stays_as_close_as_its_precision() {
    let work = Work::new(minilm());
    let made = |freeze, precision: &str| {
        let flags = format!("--precision {precision}");
        work.made("search", freeze, &format!("{precision}-{freeze}"), &flags)
    };
    let derived = |precision: &str| {
        let out = work.path(&format!("derived-{precision}"));
        let said = telly_json(&derive(&made(2, precision), 4, &out, ""));
        (out, said)
    };
    let exact = made(4, "fp32");
    let (out, said) = derived("fp32");
    assert_same(&out, &exact);
    assert_eq!(said["exact"], true);
    for (precision, largest_mean) in [("fp16", 2e-4), ("bf16", 2e-3), ("int8", 1e-2)] {
        let (out, said) = derived(precision);
        assert_eq!(said["exact"], false);
        let (most, mean) = difference(&out, &made(4, precision));
        let (rounding, mean_rounding) = difference(&made(4, precision), &exact);
        println!(
            "{precision}, 2 -> 4 layers: against from nothing largest {most:.1e}, mean {mean:.1e}; from nothing against fp32 {rounding:.1e}, {mean_rounding:.1e}"
        );
        assert!(mean > 0.0 && mean < largest_mean, "{mean}");
        // The figures in the manifest are of what is stored, rounding of the source included.
        let parity = Manifest::read(&out).expect("a manifest").parity;
        let parity = parity.expect("measured");
        assert!(parity.max_absolute_error > 1e-4 && parity.mean_cosine > 0.999);
    }
}

#[test]
fn what_is_not_exact_says_so_and_trains() {
    let work = Work::new(goldens().join("bert-tiny"));
    let made = |freeze, precision: &str| {
        let flags = format!("--precision {precision}");
        work.made("classify", freeze, &format!("{precision}-{freeze}"), &flags)
    };
    let (source, out) = (made(1, "fp16"), work.path("derived"));
    telly_json(&derive(&source, 2, &out, "--precision fp32"));
    let origin = |cache: &Path| {
        let inspected = telly_json(&["cache", "inspect", text(cache)]);
        inspected["fingerprint"]["derived_from"].clone()
    };
    let found = origin(&out);
    assert_eq!(
        (&found["freeze"], &found["precision"]),
        (&json!(1), &json!("fp16"))
    );
    assert_eq!(origin(&made(2, "fp32")), Value::Null);

    // It is an ordinary cache to train from.
    let trained = telly_json(&train(&out, &work.path("run"), "--epochs 1 --freeze 2"));
    assert_eq!(trained["epochs"], 1);
    // It is not taken for one made from nothing, nor that for it.
    let precompute = work.precompute("classify", 2, &out, "--precision fp32");
    let words = ["does not match", "derived_from: the cache has", "now null"];
    fails(telly(&precompute), WRONG_INPUT, &words);
    let fresh = made(2, "fp32");
    let over = derive(&source, 2, &fresh, "--precision fp32");
    let words = ["does not match", "derived_from: the cache has null"];
    fails(telly(&over), WRONG_INPUT, &words);
    telly_json(&[&over[..], &["--force".into()]].concat());
    assert_same(&fresh, &out);

    // What was rounded once stays so, though it is stored in fp32 now.
    let deeper = work.path("deeper");
    telly_json(&derive(&out, 3, &deeper, ""));
    let found = origin(&deeper);
    assert_eq!(
        (&found["freeze"], &found["precision"]),
        (&json!(2), &json!("fp32"))
    );
    assert_eq!(found["derived_from"], origin(&out));
}

#[test]
fn it_goes_on_where_it_stopped() {
    let work = Work::new(goldens().join("mpnet-tiny"));
    let flags = "--precision fp32 --shard-size 2KiB";
    let (source, out) = (work.made("search", 1, "source", flags), work.path("out"));
    let whole = work.made("search", 3, "whole", flags);
    let command = derive(&source, 3, &out, "");
    let all = telly_json(&command)["computed_tokens"].clone();
    for shard in [2, 5] {
        let shard = out.join(format!("shard-{shard:05}.safetensors"));
        fs_err::remove_file(shard).expect("removed");
    }
    let computed = telly_json(&command)["computed_tokens"].as_u64();
    assert!(
        computed > Some(0) && computed < all.as_u64(),
        "{computed:?} of {all}"
    );
    assert_same(&out, &whole);
    // Another way to the same bytes goes on there too.
    fs_err::remove_file(out.join("shard-00001.safetensors")).expect("removed");
    let made = telly_json(&work.precompute("search", 3, &out, flags));
    let computed = made["computed_tokens"].as_u64();
    assert!(computed > Some(0) && computed < all.as_u64(), "{made}");
    assert_same(&out, &whole);
}

/// Writes the manifest of `cache` anew with `field` changed, in the version without a checksum.
fn change_manifest(cache: &Path, field: &str, value: Value) {
    let path = cache.join(MANIFEST);
    let manifest = fs_err::read_to_string(&path).expect("text");
    let mut manifest: Value = serde_json::from_str(&manifest).expect("JSON");
    manifest["version"] = json!(1);
    manifest[field] = value;
    fs_err::write(&path, manifest.to_string()).expect("written");
}

#[test]
fn what_cannot_be_derived_is_refused() {
    let work = Work::new(goldens().join("bert-tiny"));
    let (source, out) = (work.made("classify", 2, "source", ""), work.path("out"));
    let refused = |source: &Path, freeze, out: &Path, words: &[&str]| {
        fails(telly(&derive(source, freeze, out, "")), WRONG_INPUT, words);
    };
    refused(
        &source,
        2,
        &out,
        &["has 2 frozen layers already", "pass a number from 3 to 3"],
    );
    refused(
        &source,
        4,
        &out,
        &["has 3 layers", "pass a number from 3 to 3"],
    );
    refused(&source, 3, &source, &["`--out` is the folder"]);
    refused(&work.path("nowhere"), 3, &out, &["no activation cache"]);
    let all = work.made("classify", 3, "all", "");
    refused(&all, 3, &out, &["no layers are left"]);

    let nothing = work.path("nothing");
    let data = work.path("classify.jsonl");
    telly_json(&precompute(
        "classify",
        &work.model,
        &data,
        "none",
        &nothing,
    ));
    refused(&nothing, 3, &out, &["holds token ids alone", "--freeze K"]);

    change_manifest(&all, "complete", json!(false));
    refused(
        &all,
        3,
        &out,
        &["is incomplete", "goes on where it stopped"],
    );

    let shard = source.join("shard-00000.safetensors");
    let mut bytes = fs_err::read(&shard).expect("bytes");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(&shard, bytes).expect("written");
    refused(&source, 3, &out, &["shard-00000.safetensors", "is damaged"]);
    assert!(!out.exists());
}

#[test]
fn the_model_must_be_the_one_of_the_cache() {
    let space = Workspace::new();
    let model = space.path("model");
    fs_err::create_dir(&model).expect("a folder");
    for name in names(&goldens().join("bert-tiny")) {
        fs_err::copy(goldens().join("bert-tiny").join(&name), model.join(&name)).expect("copied");
    }
    let work = Work { space, model };
    write_classification(&work.path("classify.jsonl"), 20);
    let (source, out) = (work.made("classify", 1, "source", ""), work.path("out"));
    let moved = work.path("moved");
    fs_err::rename(&work.model, &moved).expect("renamed");
    let command = derive(&source, 2, &out, "");
    fails(telly(&command), WRONG_INPUT, &["no checkpoint folder"]);
    let command = derive(&source, 2, &out, &format!("--model {}", text(&moved)));
    telly_json(&command);
    let config = moved.join("config.json");
    let changed = fs_err::read_to_string(&config).expect("text") + "\n";
    fs_err::write(&config, changed).expect("written");
    let words = ["does not match", "config: the cache has", "--model"];
    fails(telly(&command), WRONG_INPUT, &words);
}
