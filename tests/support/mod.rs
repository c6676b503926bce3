//! What several test files need: the goldens, the real binary, a Python for outside checks.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::print_stderr,
    clippy::print_stdout,
    reason = "each test file uses its own part, on numbers and files that it made"
)]

#[cfg(target_os = "linux")]
pub mod fake_library;

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Debug;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use candle_core::{Device, Tensor};
use serde_json::Value;
use telly::ragged::Ragged;

/// The project's folder.
pub fn project() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub fn goldens() -> PathBuf {
    project().join("tests/goldens")
}

/// A checkpoint of each family in [`goldens`], with random weights.
pub const FAMILIES: [&str; 6] = [
    "bert-tiny",
    "roberta-tiny",
    "xlm-roberta-tiny",
    "mpnet-tiny",
    "distilbert-tiny",
    "modernbert-tiny",
];
/// Those, and one with the biases that its family may have.
pub const TINY_MODELS: [&str; 7] = {
    let [a, b, c, d, e, f] = FAMILIES;
    [a, b, c, d, e, f, "modernbert-biased-tiny"]
};

/// Tiny decoders: of each family, and one with scaled rotary positions and tied matrices.
pub const DECODERS: [&str; 4] = [
    "llama-tiny",
    "llama-scaled-tiny",
    "qwen2-tiny",
    "starcoder2-tiny",
];

/// all-MiniLM-L6-v2, as `scripts/setup.sh` brings it.
pub fn minilm() -> PathBuf {
    let folder = project().join("models/all-MiniLM-L6-v2");
    assert!(
        folder.is_dir(),
        "no {}: run scripts/setup.sh",
        folder.display()
    );
    folder
}

/// A golden file: its tensors, and its metadata.
pub struct Golden {
    pub tensors: HashMap<String, Tensor>,
    pub metadata: HashMap<String, String>,
}

impl Golden {
    pub fn read(name: &str) -> Self {
        let bytes = std::fs::read(goldens().join(name)).expect("a golden file");
        let (_, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("safetensors");
        Self {
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).expect("tensors"),
            metadata: header.metadata().clone().unwrap_or_default(),
        }
    }

    /// What a training golden was told.
    pub fn hyperparameters(&self) -> Value {
        serde_json::from_str(&self.metadata["hyperparameters"]).expect("JSON")
    }

    pub fn floats(&self, name: &str) -> Vec<f64> {
        let tensor = self.tensors[name].flatten_all().expect("flat");
        let tensor = tensor.to_dtype(candle_core::DType::F64).expect("numbers");
        tensor.to_vec1().expect("numbers")
    }

    pub fn integers(&self, name: &str) -> Vec<i64> {
        let tensor = self.tensors[name].flatten_all().expect("flat");
        tensor.to_vec1().expect("integers")
    }

    /// `ids` and `offsets` as sequences.
    pub fn sequences(&self) -> Ragged<u32> {
        let ids = self
            .integers("ids")
            .into_iter()
            .map(|id| id as u32)
            .collect();
        let offsets = self
            .integers("offsets")
            .into_iter()
            .map(|offset| offset as usize);
        Ragged::from_parts(ids, offsets.collect(), 1)
    }
}

/// Where training is tested: on the CPU, or on the first card where `TELLY_TEST_DEVICE` is `cuda`.
pub fn device() -> Device {
    let wanted = std::env::var("TELLY_TEST_DEVICE").unwrap_or_else(|_| "cpu".into());
    match wanted.as_str() {
        "cpu" => Device::Cpu,
        "cuda" => telly::cuda::open_device(0, telly::frozen::cuda_folder(None).as_deref())
            .unwrap_or_else(|error| panic!("TELLY_TEST_DEVICE=cuda: {error}")),
        other => panic!("TELLY_TEST_DEVICE is {other:?}, expected \"cpu\" or \"cuda\""),
    }
}

/// The binary under test.
pub fn telly<S: AsRef<OsStr>>(arguments: &[S]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_telly"));
    command.args(arguments).current_dir(project());
    command.env_remove("ORT_DYLIB_PATH");
    command
}

/// Runs the binary, which must succeed; the JSON object at the end of its stdout.
pub fn telly_json<S: AsRef<OsStr> + Debug>(arguments: &[S]) -> Value {
    let output = telly(arguments).arg("--json").output().expect("telly runs");
    assert!(
        output.status.success(),
        "telly {arguments:?}: {}",
        stderr(&output)
    );
    let stdout = String::from_utf8(output.stdout).expect("UTF-8");
    serde_json::from_str(stdout.lines().last().expect("a line")).expect("JSON")
}

/// Runs the binary, which must succeed.
pub fn telly_ok<S: AsRef<OsStr> + Debug>(arguments: &[S]) -> Output {
    let output = telly(arguments).output().expect("telly runs");
    assert!(
        output.status.success(),
        "telly {arguments:?}: {}",
        stderr(&output)
    );
    output
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The Python that `scripts/test.sh` sets up, with NumPy, onnx and safetensors. Without it the
/// caller says so and leaves its check out, unless `CI` is set: there it must be.
pub fn python() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("TELLY_TEST_PYTHON") {
        return Some(project().join(path));
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "TELLY_TEST_PYTHON is not set: run scripts/test.sh"
    );
    eprintln!("TELLY_TEST_PYTHON is not set, so no check from outside: run scripts/test.sh");
    None
}

/// Runs a script of `scripts/goldens/`, which must succeed; its stdout.
pub fn run_python(python: &Path, script: &str, arguments: &[&Path]) -> String {
    let script = project().join("scripts/goldens").join(script);
    let output = Command::new(python)
        .arg(script)
        .args(arguments)
        .output()
        .expect("Python runs");
    assert!(output.status.success(), "{}", stderr(&output));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// A path as an argument.
pub fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Forty short texts of two classes that a tiny model can tell apart, as JSON Lines.
pub fn write_classification(path: &Path, rows: usize) {
    let lines: Vec<String> = (0..rows)
        .map(|row| {
            let (word, label) = if row % 2 == 0 {
                ("return", "code")
            } else {
                ("the", "prose")
            };
            let count = 1 + row % 7;
            format!(
                "{{\"text\": \"{} x{row}\", \"label\": \"{label}\"}}\n",
                vec![word; count].join(" ")
            )
        })
        .collect();
    std::fs::write(path, lines.concat()).expect("written");
}

/// Texts of 40 words of two classes, no two of the first 65,536 equal, as JSON Lines.
pub fn write_long_classification(path: &Path, rows: usize) {
    let line = |row: usize| {
        let label = ["code", "prose"][row % 2];
        // The row's number in binary: the tiny models' tokenizers know few words.
        let words = (0..40).map(|place| ["return", "the"][row >> (place % 16) & 1]);
        let text = words.collect::<Vec<_>>().join(" ");
        format!("{{\"text\": \"{text}\", \"label\": \"{label}\"}}\n")
    };
    let lines: Vec<String> = (0..rows).map(line).collect();
    std::fs::write(path, lines.concat()).expect("written");
}

/// Pairs of a description and a function, as JSON Lines.
pub fn write_search(path: &Path, rows: usize) {
    let words = [
        "sort", "count", "read", "write", "list", "number", "file", "word", "line", "print",
    ];
    let lines: Vec<String> = (0..rows)
        .map(|row| {
            let (verb, noun) = (words[row % words.len()], words[(row * 3 + 1) % words.len()]);
            format!("{{\"docstring\": \"{verb} the {noun}\", \"code\": \"def {verb}_{noun}(x{row}): return x{row}\"}}\n")
        })
        .collect();
    std::fs::write(path, lines.concat()).expect("written");
}

/// Made-up functions and what they do.
pub const FUNCTIONS: [[&str; 2]; 8] = [
    ["def add(a, b):\n    return a + b", "adds two numbers"],
    [
        "def last(words):\n    return words[-1]",
        "returns the last word",
    ],
    [
        "def count(lines):\n    return len(lines)",
        "counts the lines",
    ],
    [
        "def empty(words):\n    return not words",
        "tells whether there are no words",
    ],
    [
        "def first(words):\n    return words[0]",
        "returns the first word",
    ],
    [
        "def negate(a):\n    return -a",
        "turns the sign of a number",
    ],
    [
        "def join(words):\n    return ' '.join(words)",
        "joins words by spaces",
    ],
    ["def half(a):\n    return a / 2", "halves a number"],
];

/// One record for each of [`FUNCTIONS`], `times` over, as JSON Lines.
pub fn write_functions(path: &Path, times: usize, record: impl Fn(&str, &str) -> Value) {
    let records = FUNCTIONS
        .iter()
        .map(|[code, summary]| record(code, summary).to_string() + "\n");
    let records: String = records.collect();
    std::fs::write(path, records.repeat(times)).expect("written");
}

/// A folder of its own for one test, gone afterwards.
pub struct Workspace(tempfile::TempDir);

impl Workspace {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub fn folder(&self) -> &Path {
        self.0.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder().join(name)
    }

    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        self.write_bytes(name, content.as_bytes())
    }

    pub fn write_bytes(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }
}

/// The names in `folder`, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name())
        .map(|name| name.to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Every file of `folder`, by name, with its bytes.
pub fn content(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let bytes = std::fs::read(folder.join(&name)).expect("bytes");
        (name, bytes)
    };
    names(folder).into_iter().map(read).collect()
}

/// `telly precompute` on the CPU with lengths that fit the tiny models.
pub fn precompute(
    task: &str,
    model: &Path,
    train: &Path,
    freeze: &str,
    cache: &Path,
) -> Vec<String> {
    let lengths: &[&str] = match task {
        "search" => &["--max-query-length", "16", "--max-code-length", "32"],
        "summarize" | "generate" | "complete" => &[],
        _ => &["--max-length", "32"],
    };
    let fixed = ["precompute", "--task", task, "--model", text(model)];
    let fixed = fixed
        .into_iter()
        .chain(["--train", text(train), "--freeze", freeze]);
    let fixed = fixed.chain(["--cache", text(cache), "--provider", "cpu"]);
    fixed
        .chain(lengths.iter().copied())
        .map(String::from)
        .collect()
}

/// `telly train` from `cache` to `run` with whatever else `flags` says, split at spaces.
pub fn train(cache: &Path, run: &Path, flags: &str) -> Vec<String> {
    let fixed = ["train", "--cache", text(cache), "--out", text(run)];
    fixed
        .into_iter()
        .chain(flags.split_whitespace())
        .map(String::from)
        .collect()
}

/// Exit status when something failed while running.
pub const FAILED: i32 = 1;
/// Exit status when the input or the command line was wrong.
pub const WRONG_INPUT: i32 = 2;

/// Runs `command`, which must fail with `status` and say all of `words` on stderr, a hint among
/// them, without a panic.
pub fn fails(mut command: Command, status: i32, words: &[&str]) {
    let output = command.output().expect("telly runs");
    let said = stderr(&output);
    println!("--- exit status {:?}\n{said}", output.status.code());
    assert_eq!(output.status.code(), Some(status), "{said}");
    for word in words.iter().chain(&["error: ", "hint: "]) {
        assert!(said.contains(word), "no {word:?} in: {said}");
    }
    assert!(!said.contains("panicked"), "{said}");
    assert!(output.stdout.is_empty(), "an error leaves stdout empty");
}

/// A workspace with data to classify, and what the tests of errors do with it.
pub struct Classification(pub Workspace);

impl Classification {
    pub fn new() -> Self {
        let space = Workspace::new();
        write_classification(&space.path("train.jsonl"), 30);
        write_classification(&space.path("other.jsonl"), 24);
        Self(space)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path(name)
    }

    pub fn precompute(&self, model: &Path, train: &Path, freeze: &str) -> Command {
        telly(&precompute(
            "classify",
            model,
            train,
            freeze,
            &self.path("cache"),
        ))
    }

    /// A good cache and a run from it.
    pub fn trained(&self) -> (PathBuf, PathBuf) {
        let mut command =
            self.precompute(&goldens().join("bert-tiny"), &self.path("train.jsonl"), "1");
        assert!(command.status().expect("telly runs").success());
        let (cache, run) = (self.path("cache"), self.path("run"));
        telly_json(&train(&cache, &run, "--epochs 1"));
        (cache, run)
    }
}
