//! Files that are broken in every way: whatever they hold, reading them is an error or a result,
//! never a panic, and takes no more memory than a small multiple of their size.
//!
//! `TELLY_TEST_FUZZ_CASES` says how many inputs each kind of file gets. They are the same in every
//! run: more cases only go on from where fewer stop. A hang shows as a test that does not end.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

mod support;

use std::cell::Cell;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use peak_alloc::PeakAlloc;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use serde_json::{Value, json};
use support::{goldens, names};
use telly::cache::{
    Cache, EncodedStates, Fingerprint, Manifest, Precision, SplitRows, Writer, verify,
};
use telly::checkpoint::{Checkpoint, EncoderConfig, Family, Tokenizer, Weights};
use telly::dataset::{Dataset, FieldChoice, Functions, PairFile, Records};
use telly::ragged::Ragged;
use telly::targets::Targets;
use telly::task::Encoding;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// Inputs of each kind of file, unless `TELLY_TEST_FUZZ_CASES` says how many.
const CASES: u32 = 5000;
/// Most bytes that reading may take, for each byte of the files, and in any case.
const BYTES_A_BYTE: usize = 64;
const BYTES_IN_ANY_CASE: usize = 256 << 10;
/// Put in the place of numbers: none is what stood there.
const NUMBERS: [&str; 14] = [
    "0",
    "-1",
    "1",
    "2",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "18446744073709551616",
    "1e19",
    "1e999",
    "0.5",
    "NaN",
    "null",
    "\"x\"",
];

/// One way to break a file.
#[derive(Debug, Clone)]
enum Mutation {
    FlipBit(Index, u8),
    Truncate(Index),
    Remove(Index, u8),
    /// So many bytes from one place, over those at another.
    Splice(Index, Index, u8),
    Insert(Index, Vec<u8>),
    /// Another number in the place of this run of digits.
    Number(Index, Index),
    /// Eight bytes overwritten.
    Word(Index, u64),
}

impl Mutation {
    fn apply(&self, bytes: &mut Vec<u8>) {
        let length = bytes.len();
        if length < 8 {
            return;
        }
        match self {
            Self::FlipBit(place, bit) => bytes[place.index(length)] ^= 1 << bit,
            Self::Truncate(place) => bytes.truncate(place.index(length)),
            Self::Remove(place, count) => {
                let start = place.index(length);
                bytes.drain(start..length.min(start + usize::from(*count)));
            }
            Self::Splice(from, to, count) => {
                let count = usize::from(*count).min(length);
                let from = from.index(length - count + 1);
                let to = to.index(length - count + 1);
                bytes.copy_within(from..from + count, to);
            }
            Self::Insert(place, inserted) => {
                let place = place.index(length);
                bytes.splice(place..place, inserted.iter().copied());
            }
            Self::Number(place, number) => {
                let runs = runs_of_digits(bytes);
                if !runs.is_empty() {
                    let run = runs[place.index(runs.len())].clone();
                    bytes.splice(run, number.get(&NUMBERS).bytes());
                }
            }
            Self::Word(place, word) => {
                let place = place.index(length - 7);
                bytes[place..place + 8].copy_from_slice(&word.to_le_bytes());
            }
        }
    }
}

fn runs_of_digits(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let digit = |place: usize| bytes.get(place).is_some_and(u8::is_ascii_digit);
    let starts =
        (0..bytes.len()).filter(|&place| digit(place) && (place == 0 || !digit(place - 1)));
    let runs = starts.map(|start| {
        let length = bytes[start..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        start..start + length.count()
    });
    runs.collect()
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let place = any::<Index>;
    let word = prop_oneof![
        Just(0),
        Just(u64::MAX),
        Just(1 << 63),
        Just(f64::NAN.to_bits()),
        (0u32..64).prop_map(|bit| 1u64 << bit),
        any::<u64>(),
    ];
    prop_oneof![
        3 => (place(), 0u8..8).prop_map(|(place, bit)| Mutation::FlipBit(place, bit)),
        1 => place().prop_map(Mutation::Truncate),
        1 => (place(), any::<u8>()).prop_map(|(place, count)| Mutation::Remove(place, count)),
        2 => (place(), place(), any::<u8>())
            .prop_map(|(from, to, count)| Mutation::Splice(from, to, count)),
        1 => (place(), prop::collection::vec(any::<u8>(), 1..20))
            .prop_map(|(place, bytes)| Mutation::Insert(place, bytes)),
        5 => (place(), place()).prop_map(|(place, number)| Mutation::Number(place, number)),
        2 => (place(), word).prop_map(|(place, word)| Mutation::Word(place, word)),
    ]
}

/// What a file is made to hold.
#[derive(Clone)]
struct Input(Vec<u8>);

impl fmt::Debug for Input {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "b\"{}\"", self.0.escape_ascii())
    }
}

/// One of the `valid` contents, broken in one to four ways; now and then bytes at random.
fn input(valid: Vec<Vec<u8>>) -> impl Strategy<Value = Input> {
    let mutated = (any::<Index>(), prop::collection::vec(mutation(), 1..5));
    let mutated = mutated.prop_map(move |(which, mutations)| {
        let mut bytes = which.get(&valid).clone();
        for mutation in mutations {
            mutation.apply(&mut bytes);
        }
        bytes
    });
    let random = prop::collection::vec(any::<u8>(), 0..600);
    prop_oneof![19 => mutated, 1 => random].prop_map(Input)
}

/// Reads inputs made from `valid` by `read`, which is given each as the content of the file
/// `place`, and says whether it was taken for a good one; `others` are the bytes of all other files that it reads. `expansion` is how much
/// larger than itself the file may rightly become when it is unpacked.
fn fuzz(
    place: &Path,
    valid: Vec<Vec<u8>>,
    others: usize,
    expansion: usize,
    read: impl Fn(&[u8]) -> bool,
) {
    // The peak of memory is that of the whole process: one kind of file at a time.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    for bytes in &valid {
        fs_err::write(place, bytes).expect("written");
        assert!(read(bytes), "a valid file");
    }
    let cases = std::env::var("TELLY_TEST_FUZZ_CASES");
    let cases = cases.map_or(CASES, |cases| cases.parse().expect("a number"));
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let (most, slowest, good) = (Cell::new(0.0f64), Cell::new(0.0f64), Cell::new(0));
    let started = Instant::now();
    let mut runner = TestRunner::new_with_rng(config, random);
    let outcome = runner.run(&input(valid), |Input(bytes)| {
        fs_err::write(place, &bytes).expect("written");
        let size = (others + bytes.len()) * expansion;
        let before = MEMORY.current_usage();
        MEMORY.reset_peak_usage();
        let reading = Instant::now();
        good.set(good.get() + u32::from(read(&bytes)));
        slowest.set(slowest.get().max(reading.elapsed().as_secs_f64()));
        let taken = MEMORY.peak_usage().saturating_sub(before);
        let above = taken.saturating_sub(BYTES_IN_ANY_CASE);
        most.set(most.get().max(above as f64 / size.max(1) as f64));
        if above > BYTES_A_BYTE * size {
            let problem = format!("{taken} bytes of memory for files of {size}");
            return Err(TestCaseError::fail(problem));
        }
        Ok(())
    });
    let name = place.file_name().unwrap_or_default().display();
    if let Err(error) = outcome {
        panic!("{name}: {error}");
    }
    println!(
        "{name}: {cases} inputs in {:.1} s, {} of them taken for good, the slowest {:.3} s; at most 256 KiB and {:.1} bytes a byte",
        started.elapsed().as_secs_f64(),
        good.get(),
        slowest.get(),
        most.get()
    );
    assert!(
        (1..cases).contains(&good.get()),
        "broken files, and files that are still read"
    );
}

/// Else no limit on memory would mean anything.
#[test]
fn memory_is_counted() {
    let space = folder();
    let valid = vec![b"eight by".to_vec()];
    let fuzzing = std::panic::catch_unwind(|| {
        fuzz(&space.path().join("file"), valid, 0, 1, |bytes| {
            let reserved: Vec<u8> = Vec::with_capacity((300 << 10) + 64 * bytes.len());
            reserved.capacity() > 0
        });
    });
    let problem = fuzzing.expect_err("too much memory");
    let problem = problem.downcast_ref::<String>().expect("a message");
    assert!(
        problem.contains("bytes of memory for files of"),
        "{problem}"
    );
}

/// A folder in memory where there is such a disk: the files are many.
fn folder() -> tempfile::TempDir {
    let memory = tempfile::tempdir_in("/dev/shm");
    memory.or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn bytes_in(folder: &Path) -> usize {
    let sizes = names(folder).into_iter().map(|name| {
        let size = fs_err::metadata(folder.join(name)).expect("there").len();
        usize::try_from(size).expect("small")
    });
    sizes.sum()
}

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

/// A model's folder, whose file `name` is to be broken, and that file's content.
fn model(name: &str) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
    let (space, source) = (folder(), goldens().join("bert-tiny"));
    for name in names(&source) {
        fs_err::copy(source.join(&name), space.path().join(&name)).expect("copied");
    }
    let place = space.path().join(name);
    let bytes = fs_err::read(&place).expect("bytes");
    (space, place, bytes)
}

#[test]
fn checkpoint_configs() {
    let (space, place, bytes) = model("config.json");
    let others = bytes_in(space.path());
    let roberta = fs_err::read(goldens().join("roberta-tiny/config.json")).expect("bytes");
    let mpnet = fs_err::read(goldens().join("mpnet-tiny/config.json")).expect("bytes");
    let distilbert = fs_err::read(goldens().join("distilbert-tiny/config.json")).expect("bytes");
    let modernbert = fs_err::read(goldens().join("modernbert-tiny/config.json")).expect("bytes");
    let seeds = vec![bytes, roberta, mpnet, distilbert, modernbert];
    fuzz(&place, seeds, others, 1, |_| {
        let Ok(config) = EncoderConfig::read(&place) else {
            return false;
        };
        assert!(config.longest_sequence() > 2 && config.head_size() > 0);
        let _ = Checkpoint::open(space.path());
        true
    });
}

#[test]
fn checkpoint_weights() {
    let space = folder();
    let place = space.path().join("model.safetensors");
    let values: Vec<u8> = (0..48).collect();
    let view = |dtype, shape| {
        safetensors::tensor::TensorView::new(dtype, shape, &values).expect("a tensor")
    };
    let tensors = [
        (
            "bert.embeddings.word_embeddings.weight",
            view(safetensors::Dtype::F32, vec![4, 3]),
        ),
        (
            "pooler.dense.weight",
            view(safetensors::Dtype::BF16, vec![4, 6]),
        ),
    ];
    let weights = safetensors::serialize(tensors, None).expect("bytes");
    fuzz(&place, vec![weights.clone()], 0, 1, |_| {
        let Ok(weights) = Weights::open(space.path(), Family::Bert) else {
            return false;
        };
        let names = ["embeddings.word_embeddings.weight", "pooler.dense.weight"];
        for (name, shape) in names.into_iter().zip([[4, 3], [4, 6]]) {
            if let Ok(numbers) = weights.tensor(name, &shape) {
                assert_eq!(numbers.len(), shape[0] * shape[1]);
            }
        }
        weights.hash().is_ok()
    });
    let index = space.path().join("model.safetensors.index.json");
    fs_err::remove_file(&place).expect("removed");
    fs_err::write(space.path().join("part-1.safetensors"), &weights).expect("written");
    let text = r#"{"metadata": {"total_size": 96}, "weight_map": {"a": "part-1.safetensors", "b": "part-1.safetensors"}}"#;
    fuzz(&index, vec![text.into()], weights.len(), 1, |_| {
        Weights::open(space.path(), Family::Bert).is_ok()
    });
}

/// Both forms of what `torch.save` writes.
#[test]
fn pytorch_weights() {
    let space = folder();
    let place = space.path().join("pytorch_model.bin");
    let golden = |name: &str| fs_err::read(goldens().join("pytorch").join(name)).expect("bytes");
    let expected = support::Golden::read("pytorch/layouts.safetensors");
    for form in ["layouts.zip.bin", "layouts.legacy.bin"] {
        fuzz(&place, vec![golden(form)], 0, 1, |_| {
            let Ok(weights) = Weights::open(space.path(), Family::Bert) else {
                return false;
            };
            for (name, tensor) in &expected.tensors {
                if let Ok(numbers) = weights.tensor(name, tensor.dims()) {
                    assert_eq!(numbers.len(), tensor.elem_count());
                }
            }
            weights.hash().is_ok()
        });
    }
    let index = space.path().join("pytorch_model.bin.index.json");
    fs_err::remove_file(&place).expect("removed");
    let part = golden("layouts.legacy.bin");
    fs_err::write(space.path().join("part-1.bin"), &part).expect("written");
    let text = r#"{"metadata": {}, "weight_map": {"a": "part-1.bin", "b": "part-1.bin"}}"#;
    fuzz(&index, vec![text.into()], part.len(), 1, |_| {
        Weights::open(space.path(), Family::Bert).is_ok()
    });
}

#[test]
fn tokenizers() {
    let (space, place, bytes) = model("tokenizer.json");
    let others = bytes_in(space.path());
    let byte_level = fs_err::read(goldens().join("roberta-tiny/tokenizer.json")).expect("bytes");
    fuzz(&place, vec![bytes, byte_level], others, 1, |_| {
        let Ok(tokenizer) = Tokenizer::open(&place, 400) else {
            return false;
        };
        let texts = ["return x", "", "ünïcode \u{1F600}"].map(String::from);
        if let Ok(ids) = tokenizer.encode(texts.to_vec(), 8) {
            assert!(ids.iter().all(|ids| ids.len() <= 8));
        }
        true
    });
}

/// Each of the files that a tokenizer is built from, the others whole.
#[test]
fn vocabulary_files() {
    for (kind, family, files) in [
        (
            "unixcoder",
            Family::Roberta,
            &[
                "vocab.json",
                "merges.txt",
                "tokenizer_config.json",
                "special_tokens_map.json",
                "added_tokens.json",
            ][..],
        ),
        ("newer", Family::Roberta, &["tokenizer_config.json"]),
        ("mpnet", Family::Mpnet, &["vocab.txt"]),
        (
            "bert-added",
            Family::Bert,
            &["vocab.txt", "tokenizer_config.json"],
        ),
    ] {
        let (space, source) = (folder(), goldens().join("vocabularies").join(kind));
        for name in names(&source) {
            fs_err::copy(source.join(&name), space.path().join(&name)).expect("copied");
        }
        let others = bytes_in(space.path());
        for name in files {
            let place = space.path().join(name);
            let whole = fs_err::read(&place).expect("bytes");
            fuzz(&place, vec![whole.clone()], others, 1, |_| {
                let Ok(tokenizer) = Tokenizer::of_folder(space.path(), family, 1000) else {
                    return false;
                };
                let texts = ["return x", "", "ünïcode \u{1F600} <mask>"].map(String::from);
                if let Ok(ids) = tokenizer.encode(texts.to_vec(), 8) {
                    assert!(ids.iter().all(|ids| ids.len() <= 8));
                }
                true
            });
            fs_err::write(&place, whole).expect("written");
        }
    }
}

#[test]
fn data_files() {
    let space = folder();
    let (_model, place, _) = model("config.json");
    let checkpoint = Checkpoint::open(place.parent().expect("a folder")).expect("a model");
    let encodings = [
        json!({"task": "classify", "text_field": null, "label_field": null, "max_length": 16}),
        json!({"task": "search", "query_field": null, "code_field": null, "max_query_length": 8, "max_code_length": 16}),
        json!({"task": "search", "query_field": null, "code_field": null, "negative_field": "other", "max_query_length": 8, "max_code_length": 16}),
        json!({"task": "clone", "form": "pairs", "max_length": 16}),
        json!({"task": "clone", "form": "groups", "max_length": 16}),
    ];
    let encodings: Vec<Encoding> = encodings
        .map(|encoding| serde_json::from_value(encoding).expect("an encoding"))
        .into();
    let read = |path: &Path| {
        let Ok(data) = Dataset::read(path) else {
            return false;
        };
        for encoding in &encodings {
            let records = Records::open(path).expect("read before");
            if let Ok((encoded, _)) = encoding.encode_training(records, &checkpoint) {
                assert_eq!(encoded.rows(), data.records.len());
            }
        }
        true
    };
    let classify = "{\"text\": \"return x1\", \"label\": 1}\n{\"text\": [\"the\", \"y\"], \"label\": 22}\n\n{\"text\": \"\", \"label\": 1}\n";
    let search = "\u{feff}{\"docstring\": \"sort 1 list\", \"code\": \"def f(): return 10\"}\r\n{\"docstring_tokens\": [\"a\"], \"code_tokens\": [\"b\", \"2\"]}";
    let negatives = "{\"query\": \"sort\", \"code\": \"f\", \"other\": [\"g\", [\"h\", \"1\"]]}\n{\"query\": \"b\", \"code\": \"g\", \"other\": \"f\"}";
    let pairs = "{\"func1\": \"return x\", \"func2\": \"the y\", \"label\": 1}\n{\"func1\": \"a\", \"func2\": \"a\", \"label\": \"0\"}";
    let lines = [classify, search, negatives, pairs];
    let lines: Vec<Vec<u8>> = lines.map(|text| text.as_bytes().to_vec()).into();
    let place = space.path().join("data.jsonl");
    fuzz(&place, lines.clone(), 0, 1, |_| read(&place));

    let array =
        "[{\"text\": \"return x1\", \"label\": 1},\n{\"text\": [\"the\", \"]y\"], \"label\": 22}]";
    let place = space.path().join("data.json");
    fuzz(&place, vec![array.into()], 0, 1, |_| read(&place));

    let table = "\u{feff}text,label\r\n\"return \"\"x1\"\"\",1\r\n\r\n\"the\ny\",22\n,1";
    for name in ["data.csv", "data.tsv"] {
        let table = table.replace(',', if name == "data.tsv" { "\t" } else { "," });
        let place = space.path().join(name);
        fuzz(&place, vec![table.into()], 0, 1, |_| read(&place));
    }

    let packed = lines
        .iter()
        .map(|bytes| zstd::encode_all(&bytes[..], 3).expect("packed"));
    let place = space.path().join("data.jsonl.zst");
    // A block of one byte again and again, at the very most.
    fuzz(&place, packed.collect(), 0, 1 << 15, |_| read(&place));

    let packed = lines.into_iter().map(|bytes| {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        std::io::Write::write_all(&mut packed, &bytes).expect("packed");
        packed.finish().expect("packed")
    });
    let place = space.path().join("data.jsonl.gz");
    // What DEFLATE can make of a byte at the very most.
    fuzz(&place, packed.collect(), 0, 1032, |_| read(&place));
}

/// Pairs of functions, and places in Devign's array.
#[test]
fn data_files_beside_others() {
    let space = folder();
    let field = FieldChoice::new("--text-field", None, &["func"]);
    let place = space.path().join("train.txt");
    let functions = "{\"func\": \"a\", \"idx\": \"17\"}\n{\"func\": \"b\", \"idx\": 5}\n";
    let beside = space.path().join("data.jsonl");
    fs_err::write(&beside, functions).expect("written");
    let table = Functions::read(&beside, &field).expect("functions");
    let valid = vec![b"17\t5\t1\n5 5 0 3\n".to_vec()];
    fuzz(&place, valid, 0, 1, |_| {
        PairFile::read(&place, &table).is_ok_and(|file| {
            let places = file.pairs.iter().flat_map(|pair| [pair.first, pair.second]);
            assert!(places.max() < Some(2));
            true
        })
    });
    fuzz(&beside, vec![functions.into()], 0, 1, |_| {
        Functions::read(&beside, &field).is_ok()
    });
    let array = "[{\"func\": \"a\", \"target\": 1}, {\"func\": \"b\", \"target\": 0}]";
    fs_err::write(space.path().join("function.json"), array).expect("written");
    fuzz(
        &place,
        vec![b"1\n0\n\n 0\r\n1".to_vec()],
        array.len(),
        1,
        |_| Dataset::read(&place).is_ok_and(|data| (1..=2).contains(&data.records.len())),
    );
}

#[test]
fn parquet_files() {
    let space = folder();
    let golden = |name: &str| fs_err::read(goldens().join("formats").join(name)).expect("bytes");
    let valid = [
        "rows.snappy",
        "rows.gzip",
        "rows.zstd",
        "rows.plain",
        "tokens",
    ];
    let valid = valid.map(|name| golden(&format!("{name}.parquet")));
    let place = space.path().join("data.parquet");
    // A page may say that it unpacks to 4 MiB and 2¹⁵ times its size: so much is reserved first.
    let reserved = (4 << 20) / BYTES_A_BYTE;
    fuzz(
        &place,
        valid.into(),
        reserved,
        (1 << 15) / BYTES_A_BYTE,
        |_| Records::open(&place).is_ok_and(|mut records| records.all(|record| record.is_ok())),
    );
}

#[test]
fn recipes() {
    let space = folder();
    let place = space.path().join("recipe.toml");
    let precompute = "task = \"search\"\nmodel = \"models/m\"\ntrain = \"a.jsonl\"\nfreeze = 4\nmax_code_length = 256\nshard_size = \"128MiB\"\nprecision = \"fp16\"\nthreads = 2\n";
    let train = "cache = \"cache/mine\"\nepochs = 3\nbatch-size = 32\nlr = 5e-5\nseed = 1\nmemory_budget = \"2GiB\"\nfreeze = \"none\"\n";
    let valid = vec![precompute.into(), train.into()];
    // What clap takes for the flags themselves, whatever the recipe holds.
    let flags = 4 << 10;
    fuzz(&place, valid, flags, 1, |_| {
        let read = |command| telly::cli::check_recipe(command, &place).is_ok();
        [read("precompute"), read("train")].contains(&true)
    });
}
