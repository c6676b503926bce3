//! An activation cache: its manifest, shards and splits.

use std::path::Path;

use serde_json::{Value, json};
use telly::cache::{
    Cache, EncodedStates, Fingerprint, Manifest, Precision, SplitRows, Writer, verify,
};
use telly::ragged::Ragged;
use telly::targets::Targets;

use crate::harness::{bytes_in, folder, fuzz};
use crate::support::names;

const WIDTH: usize = 3;

fn sequences() -> Ragged<u32> {
    [&[1, 2, 3][..], &[4, 5], &[6], &[7, 8, 9, 10], &[11, 12]]
        .into_iter()
        .collect()
}

fn plan(precision: Option<Precision>) -> (Manifest, [SplitRows; 1]) {
    let mut fingerprint = Fingerprint::default();
    fingerprint.set("weights", "ab");
    fingerprint.set("train", 5);
    let mut manifest = Manifest::new(fingerprint);
    manifest.precision = precision;
    manifest.width = if precision.is_some() { WIDTH } else { 0 };
    manifest.data = json!({ "train": "train.jsonl" });
    Writer::plan_shards(&mut manifest, &sequences(), 80).expect("a plan");
    let split = SplitRows {
        name: "train".into(),
        columns: 1,
        rows: vec![0, 1, 2, 3, 4, 0],
        targets: Targets::Classes(vec![0, 1, 0, 1, 0, 0]),
        tokens: 15,
    };
    (manifest, [split])
}

/// A small cache in `folder`.
fn write_cache(folder: &Path, precision: Option<Precision>) {
    let (manifest, splits) = plan(precision);
    let mut writer =
        Writer::open(folder, manifest, &sequences(), &splits, false).expect("a writer");
    for (number, range) in writer.missing() {
        let ids = sequences().gather(&range.collect::<Vec<_>>());
        let states = precision.map(|precision| {
            let mut states = EncodedStates::new(precision, WIDTH, ids.tokens());
            assert!(states.put(0, &vec![0.5; ids.tokens() * WIDTH]), "finite");
            states
        });
        let written = writer.write_shard(number, &ids, states.as_ref());
        written.expect("written");
    }
    writer.finish().expect("finished");
}

/// Everything that can be done with a cache; whether it and its splits open.
fn use_cache(folder: &Path) -> bool {
    let _ = verify(folder, |_| ());
    let Ok(cache) = Cache::open(folder) else {
        return false;
    };
    let manifest = cache.manifest();
    let all: Vec<usize> = (0..manifest.sequences).collect();
    assert_eq!(cache.token_ids(&all).len(), all.len());
    if manifest.precision.is_some() {
        assert_eq!(cache.hidden_states(&all).width(), manifest.width);
    }
    for entry in &manifest.splits {
        let Ok(Some(split)) = cache.split(&entry.name) else {
            return false;
        };
        for row in 0..split.len() {
            for column in 0..split.columns {
                assert!(split.sequence(row, column) < all.len());
            }
            assert!(split.targets.is_empty() || split.targets.len() == split.len());
        }
    }
    assert_eq!(cache.identity().len(), 64);
    true
}

/// `text` with the checksum that a manifest ends with made right.
fn signed(text: &str) -> String {
    let start = ",\n  \"blake3\": \"";
    let fields = text.rsplit_once(start).map_or(text, |(fields, _)| fields);
    let checksum = blake3::hash(fields.as_bytes()).to_hex();
    format!("{fields}{start}{checksum}\"\n}}\n")
}

/// Makes the manifest in `folder` say that its file `name` has these `bytes`.
fn sign_file(folder: &Path, name: &str, manifest: &Value, bytes: &[u8]) {
    let mut manifest = manifest.clone();
    for list in ["shards", "splits"] {
        let entries = manifest[list].as_array_mut().expect("a list").iter_mut();
        for entry in entries.filter(|entry| entry["file"] == name) {
            entry["bytes"] = bytes.len().into();
            entry["blake3"] = blake3::hash(bytes).to_hex().as_str().into();
        }
    }
    let fields = manifest.as_object_mut().expect("an object");
    fields.remove("blake3");
    let text = serde_json::to_string_pretty(&manifest).expect("JSON");
    let text = signed(text.strip_suffix("\n}").expect("an object's end"));
    fs_err::write(folder.join("manifest.json"), text).expect("written");
}

#[test]
fn manifests() {
    for precision in [Some(Precision::Int8), None] {
        let (space, cut) = (folder(), folder());
        let cache = space.path().join("cache");
        write_cache(&cache, precision);
        let place = cache.join("manifest.json");
        let valid = vec![fs_err::read(&place).expect("bytes")];
        let others = bytes_in(&cache);
        fuzz(&place, valid, others, 1, |bytes| {
            let whole = use_cache(&cache);
            let text = signed(&String::from_utf8_lossy(bytes));
            fs_err::write(&place, text).expect("written");
            let signed = use_cache(&cache);
            // A run that goes on, or takes in what is there.
            let going_on = cut.path().join("cache");
            fs_err::create_dir(&going_on).expect("a folder");
            for name in names(&cache) {
                fs_err::copy(cache.join(&name), going_on.join(&name)).expect("copied");
            }
            let (manifest, splits) = plan(precision);
            let writer = Writer::open(&going_on, manifest, &sequences(), &splits, false);
            if let Ok(mut writer) = writer {
                writer.take_previous();
                assert!(writer.missing().len() <= 5);
            }
            fs_err::remove_dir_all(&going_on).expect("removed");
            whole || signed
        });
    }
}

/// Shards and split files, the manifest's checksum right and wrong.
fn files_of_a_cache(name: &str, precision: Precision) {
    let space = folder();
    let cache = space.path().join("cache");
    write_cache(&cache, Some(precision));
    let place = cache.join(name);
    let text = fs_err::read_to_string(cache.join("manifest.json")).expect("text");
    let manifest: Value = serde_json::from_str(&text).expect("JSON");
    let valid = vec![fs_err::read(&place).expect("bytes")];
    let others = bytes_in(&cache);
    fuzz(&place, valid, others, 1, |bytes| {
        fs_err::write(cache.join("manifest.json"), &text).expect("written");
        let whole = use_cache(&cache);
        sign_file(&cache, name, &manifest, bytes);
        use_cache(&cache) || whole
    });
}

#[test]
fn shards() {
    files_of_a_cache("shard-00000.safetensors", Precision::Fp16);
    files_of_a_cache("shard-00001.safetensors", Precision::Int8);
}

#[test]
fn split_files() {
    files_of_a_cache("train.safetensors", Precision::Fp16);
}
