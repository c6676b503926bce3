//! Bad input and bad luck: one clear error that says what, where, found, expected and what to
//! do; the exit status of the contract; nothing left behind.

#![allow(clippy::print_stdout, reason = "the errors are shown")]

mod support;

use std::path::{Path, PathBuf};
use std::process::Command;

use support::{goldens, stderr, telly, telly_json, text, write_classification, write_search};

/// Something failed while running.
const FAILED: i32 = 1;
/// The input or the command line was wrong.
const WRONG_INPUT: i32 = 2;

struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        write_classification(&folder.path().join("train.jsonl"), 30);
        write_classification(&folder.path().join("other.jsonl"), 24);
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs_err::write(&path, content).expect("written");
        path
    }

    /// A copy of a tiny checkpoint that a test may spoil.
    fn model(&self, name: &str) -> PathBuf {
        let target = self.path(&format!("model-{name}"));
        fs_err::create_dir_all(&target).expect("a folder");
        for entry in fs_err::read_dir(goldens().join(name)).expect("a model") {
            let entry = entry.expect("an entry");
            fs_err::copy(entry.path(), target.join(entry.file_name())).expect("copied");
        }
        target
    }

    fn precompute(&self, model: &Path, train: &Path, freeze: &str) -> Command {
        telly(&[
            "precompute",
            "--task",
            "classify",
            "--model",
            text(model),
            "--train",
            text(train),
            "--freeze",
            freeze,
            "--max-length",
            "32",
            "--cache",
            text(&self.path("cache")),
            "--provider",
            "cpu",
        ])
    }

    /// A good cache and a run from it.
    fn trained(&self) -> (PathBuf, PathBuf) {
        let model = goldens().join("bert-tiny");
        assert!(
            self.precompute(&model, &self.path("train.jsonl"), "1")
                .status()
                .expect("telly runs")
                .success()
        );
        let (cache, run) = (self.path("cache"), self.path("run"));
        telly_json(&[
            "train",
            "--cache",
            text(&cache),
            "--out",
            text(&run),
            "--epochs",
            "1",
        ]);
        (cache, run)
    }

    fn names(&self) -> Vec<String> {
        let entries = fs_err::read_dir(self.folder.path()).expect("a folder");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}

/// Runs `command`, which must fail with `status` and say all of `words` on stderr, a hint among
/// them, without a panic.
fn fails(mut command: Command, status: i32, words: &[&str]) {
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

/// As `fails`, for a `precompute` that must not leave a cache behind.
fn refused(work: &Work, command: Command, words: &[&str]) {
    fails(command, WRONG_INPUT, words);
    assert!(!work.path("cache").exists(), "a cache was left behind");
}

#[test]
fn data_files() {
    let work = Work::new();
    let model = goldens().join("bert-tiny");
    let precompute = |path: &Path| work.precompute(&model, path, "1");

    let missing = work.path("nothing.jsonl");
    let output = precompute(&missing).output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));
    assert!(
        stderr(&output).contains("nothing.jsonl"),
        "{}",
        stderr(&output)
    );

    let empty = work.write("empty.jsonl", "\n\n");
    refused(&work, precompute(&empty), &["empty.jsonl", "no records"]);

    let good = fs_err::read_to_string(work.path("train.jsonl")).expect("text");
    let mut lines: Vec<&str> = good.lines().collect();
    lines[16] = "{\"text\": \"cut off";
    let broken = work.write("broken.jsonl", &lines.join("\n"));
    refused(
        &work,
        precompute(&broken),
        &["broken.jsonl", "line 17", "JSON object"],
    );

    lines[16] = "{\"texts\": \"a\", \"label\": \"code\"}";
    let renamed = work.write("renamed.jsonl", &lines.join("\n"));
    refused(
        &work,
        precompute(&renamed),
        &["line 17", "`text`", "`texts`", "--text-field"],
    );

    lines[16] = "{\"text\": 5, \"label\": \"code\"}";
    let number = work.write("number.jsonl", &lines.join("\n"));
    refused(
        &work,
        precompute(&number),
        &["line 17", "`text` is 5", "a string"],
    );

    let one_class = work.write(
        "one.jsonl",
        "{\"text\": \"a\", \"label\": 1}\n{\"text\": \"b\", \"label\": 1}\n",
    );
    refused(
        &work,
        precompute(&one_class),
        &["one.jsonl", "label 1", "at least two"],
    );

    let unseen = work.write(
        "unseen.jsonl",
        "{\"text\": \"a\", \"label\": \"code\"}\n{\"text\": \"b\", \"label\": \"poetry\"}\n",
    );
    let mut command = precompute(&work.path("train.jsonl"));
    command.args(["--valid", text(&unseen)]);
    refused(
        &work,
        command,
        &[
            "unseen.jsonl",
            "line 2",
            "\"poetry\"",
            "\"code\", \"prose\"",
        ],
    );
}

#[test]
fn checkpoints() {
    let work = Work::new();
    let train = work.path("train.jsonl");

    refused(
        &work,
        work.precompute(&work.path("nowhere"), &train, "1"),
        &["nowhere", "setup.sh"],
    );
    refused(
        &work,
        work.precompute(&goldens().join("bert-tiny"), &train, "4"),
        &["--freeze 4", "3 layers", "0 to 3"],
    );

    let model = work.model("bert-tiny");
    let weights = model.join("model.safetensors");
    let whole = fs_err::read(&weights).expect("weights");
    fs_err::write(&weights, &whole[..whole.len() - 1000]).expect("written");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["model.safetensors", "not a whole safetensors file"],
    );

    fs_err::remove_file(&weights).expect("removed");
    fs_err::write(model.join("pytorch_model.bin"), b"PK").expect("written");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["no `model.safetensors`", "pytorch_model.bin"],
    );

    // Another layer than the weights have.
    let model = work.model("roberta-tiny");
    let config = fs_err::read_to_string(model.join("config.json")).expect("text");
    let spoil = |from: &str, to: &str| {
        assert!(config.contains(from), "{from} in {config}");
        fs_err::write(model.join("config.json"), config.replace(from, to)).expect("written");
    };
    spoil("\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["no tensor `encoder.layer.3.", "`roberta.`"],
    );
    spoil("\"intermediate_size\": 64", "\"intermediate_size\": 65");
    refused(
        &work,
        work.precompute(&model, &train, "1"),
        &["intermediate.dense.weight", "[64, 32]", "[65, 32]"],
    );
    for (from, to, words) in [
        (
            "\"model_type\": \"roberta\"",
            "\"model_type\": \"t5\"",
            ["`model_type` is \"t5\"", "bert, roberta"],
        ),
        (
            "\"hidden_act\": \"gelu\"",
            "\"hidden_act\": \"relu\"",
            ["`hidden_act` is \"relu\"", "\"gelu\""],
        ),
        (
            "\"hidden_size\": 32",
            "\"position_embedding_type\": \"relative_key\", \"hidden_size\": 32",
            ["relative_key", "\"absolute\""],
        ),
    ] {
        spoil(from, to);
        let output = work
            .precompute(&model, &train, "1")
            .output()
            .expect("telly runs");
        assert_eq!(output.status.code(), Some(WRONG_INPUT));
        let said = stderr(&output);
        println!("{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{said}");
    }
}

#[test]
fn a_cache_of_something_else() {
    let work = Work::new();
    let (cache, _) = work.trained();
    let train = |more: &[&str]| {
        let out = work.path("refused");
        let mut command = telly(&["train", "--cache", text(&cache), "--out", text(&out)]);
        command.args(more);
        command
    };
    fails(
        train(&["--freeze", "2"]),
        WRONG_INPUT,
        &["freeze: the cache has 1, now 2"],
    );

    let model = work.model("bert-tiny");
    let weights = model.join("model.safetensors");
    let mut bytes = fs_err::read(&weights).expect("weights");
    *bytes.last_mut().expect("not empty") ^= 1;
    fs_err::write(&weights, bytes).expect("written");
    fails(
        train(&["--model", text(&model)]),
        WRONG_INPUT,
        &["weights: the cache has \"", ", now \""],
    );

    let other = work.path("other.jsonl");
    fails(
        train(&["--train", text(&other)]),
        WRONG_INPUT,
        &["train: the cache has \"", ", now \""],
    );
    fails(
        train(&["--max-length", "16"]),
        WRONG_INPUT,
        &["encoding: the cache has"],
    );
    assert!(!work.path("refused").exists(), "a run was left behind");
    assert!(
        train(&[
            "--train",
            text(&work.path("train.jsonl")),
            "--freeze",
            "1",
            "--epochs",
            "1"
        ])
        .status()
        .expect("telly runs")
        .success()
    );

    // The same folder for another cache is refused too, and the good one stays.
    let before = fs_err::read(cache.join("manifest.json")).expect("bytes");
    fails(
        work.precompute(&goldens().join("bert-tiny"), &work.path("train.jsonl"), "2"),
        WRONG_INPUT,
        &["freeze: the cache has 1, now 2", "--force"],
    );
    assert_eq!(
        fs_err::read(cache.join("manifest.json")).expect("bytes"),
        before
    );
}

#[test]
fn runs() {
    let work = Work::new();
    let (cache, run) = work.trained();
    fails(
        telly(&["train", "--cache", text(&cache), "--out", text(&run)]),
        WRONG_INPUT,
        &["not empty", "--force"],
    );
    fails(
        telly(&[
            "evaluate",
            "--run",
            text(&cache),
            "--data",
            text(&work.path("train.jsonl")),
        ]),
        WRONG_INPUT,
        &["no finished run"],
    );
    let wrong = work.write("wrong.jsonl", "{\"text\": \"a\", \"label\": 3}\n");
    fails(
        telly(&["evaluate", "--run", text(&run), "--data", text(&wrong)]),
        WRONG_INPUT,
        &["label 3", "\"code\""],
    );
    fails(
        telly(&["train", "--cache", text(&work.path("none"))]),
        WRONG_INPUT,
        &["no activation cache", "telly precompute"],
    );
    fails(telly(&["train"]), WRONG_INPUT, &["`--cache` is missing"]);
    fails(
        telly(&[
            "train",
            "--cache",
            text(&cache),
            "--out",
            text(&work.path("x")),
            "--dropout",
            "1.5",
        ]),
        WRONG_INPUT,
        &["--dropout 1.5"],
    );
    let recipe = work.write("recipe.toml", "epoch = 3\n");
    fails(
        telly(&["train", "--recipe", text(&recipe)]),
        WRONG_INPUT,
        &["recipe.toml", "`--epoch`"],
    );
    assert!(!work.path("x").exists());
}

#[test]
fn providers_and_libraries() {
    let work = Work::new();
    let model = goldens().join("bert-tiny");
    let mut command = work.precompute(&model, &work.path("train.jsonl"), "1");
    command.args(["--provider", "cuda"]);
    // The last `--provider` would clash with the first: the command line itself is wrong.
    let output = command.output().expect("telly runs");
    assert_eq!(output.status.code(), Some(WRONG_INPUT));

    let cuda = telly(&[
        "precompute",
        "--task",
        "classify",
        "--model",
        text(&model),
        "--train",
        text(&work.path("train.jsonl")),
        "--freeze",
        "1",
        "--max-length",
        "32",
        "--cache",
        text(&work.path("cache")),
        "--provider",
        "cuda",
    ]);
    fails(cuda, FAILED, &["--provider cuda", "setup.sh --gpu"]);
    assert!(!work.path("cache").exists());

    let library = work.write("libonnxruntime.so", "no library");
    let mut command = work.precompute(&model, &work.path("train.jsonl"), "1");
    command.args(["--onnxruntime", text(&library)]);
    fails(
        command,
        FAILED,
        &["cannot load ONNX Runtime", "libonnxruntime.so"],
    );

    // No `.onnxruntime/` beside the binary or in the folder it runs in.
    let binary = work.path("telly");
    fs_err::copy(env!("CARGO_BIN_EXE_telly"), &binary).expect("copied");
    let mut doctor = Command::new(&binary);
    doctor
        .arg("doctor")
        .current_dir(work.folder.path())
        .env_remove("ORT_DYLIB_PATH");
    let output = doctor.output().expect("telly runs");
    assert_eq!(output.status.code(), Some(FAILED));
    let said = stderr(&output);
    assert!(
        said.contains("no ONNX Runtime library") && said.contains("scripts/setup.sh"),
        "{said}"
    );
    assert!(String::from_utf8_lossy(&output.stdout).contains("missing"));
}

/// A folder that cannot be written to. Root may write anywhere but to the kernel's own folders.
fn read_only_folder(work: &Work) -> PathBuf {
    let folder = work.path("read-only");
    fs_err::create_dir(&folder).expect("a folder");
    let mut permissions = fs_err::metadata(&folder).expect("there").permissions();
    permissions.set_readonly(true);
    fs_err::set_permissions(&folder, permissions).expect("set");
    match fs_err::write(folder.join("probe"), "") {
        Ok(()) => PathBuf::from("/sys/kernel"),
        Err(_) => folder,
    }
}

#[test]
fn read_only_output_folders() {
    let work = Work::new();
    let (cache, run) = work.trained();
    let folder = read_only_folder(&work);
    let out = folder.join("out");
    fails(
        telly(&["train", "--cache", text(&cache), "--out", text(&out)]),
        FAILED,
        &["cannot write", "may write to"],
    );
    let mut command = work.precompute(&goldens().join("bert-tiny"), &work.path("train.jsonl"), "1");
    command.args(["--graph", text(&out)]);
    assert_eq!(command.status().expect("telly runs").code(), Some(FAILED));
    let predict = telly(&[
        "predict",
        "--run",
        text(&run),
        "--input",
        text(&work.path("train.jsonl")),
        "--output",
        text(&out),
    ]);
    let mut predict = predict;
    let output = predict.output().expect("telly runs");
    assert_eq!(output.status.code(), Some(FAILED), "{}", stderr(&output));
    assert!(!out.exists());
}

/// The disk fills up while the cache is written: here the limit on a file's size plays the disk.
/// Nothing half-written stays, and with room again the same command ends the work.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk() {
    let work = Work::new();
    let data = work.path("search.jsonl");
    write_search(&data, 200);
    let precompute = |limit: &str| {
        let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$0\" \"$@\"");
        let mut command = Command::new("bash");
        command
            .args(["-c", &script, env!("CARGO_BIN_EXE_telly")])
            .args([
                "precompute",
                "--task",
                "search",
                "--model",
                text(&goldens().join("roberta-tiny")),
                "--train",
                text(&data),
                "--freeze",
                "1",
                "--max-query-length",
                "16",
                "--max-code-length",
                "32",
                "--cache",
                text(&work.path("cache")),
                "--provider",
                "cpu",
            ]);
        command.current_dir(support::project());
        command
    };
    // In KiB: enough for the manifest and the index, not for the shard.
    let output = precompute("40").output().expect("bash runs");
    let said = stderr(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(
        said.contains("cannot write the cache") && said.contains("shard-00000"),
        "{said}"
    );
    let left: Vec<String> = fs_err::read_dir(work.path("cache"))
        .expect("a folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    assert!(
        left.iter()
            .all(|name| !name.starts_with(".telly") && !name.starts_with("shard")),
        "{left:?}"
    );
    let train = telly(&[
        "train",
        "--cache",
        text(&work.path("cache")),
        "--out",
        text(&work.path("run")),
    ]);
    fails(
        train,
        WRONG_INPUT,
        &["incomplete", "goes on where it stopped"],
    );
    assert!(
        precompute("unlimited")
            .status()
            .expect("bash runs")
            .success()
    );
    telly_json(&["cache", "verify", text(&work.path("cache"))]);
}

/// A disk that is too small is noticed before anything is computed.
#[cfg(target_os = "linux")]
#[test]
fn a_disk_that_is_too_small() {
    let work = Work::new();
    let data = work.path("search.jsonl");
    write_search(&data, 400);
    let small = work.path("small");
    fs_err::create_dir(&small).expect("a folder");
    let script = "mount -t tmpfs -o size=64k none \"$0\" || exit 99; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args([
        "--user",
        "--map-root-user",
        "--mount",
        "bash",
        "-c",
        script,
        text(&small),
    ]);
    command.args([
        env!("CARGO_BIN_EXE_telly"),
        "precompute",
        "--task",
        "search",
        "--model",
        text(&goldens().join("roberta-tiny")),
        "--train",
        text(&data),
        "--freeze",
        "1",
        "--max-query-length",
        "16",
        "--max-code-length",
        "32",
        "--cache",
        text(&small.join("cache")),
        "--provider",
        "cpu",
    ]);
    let output = command.current_dir(support::project()).output();
    let Some(output) = output
        .ok()
        .filter(|output| output.status.code() != Some(99) && !stderr(output).contains("unshare"))
    else {
        println!("left out: this machine lets nobody mount a small disk");
        return;
    };
    let said = stderr(&output);
    println!("{said}");
    assert_eq!(output.status.code(), Some(FAILED), "{said}");
    assert!(
        said.contains("bytes and the disk of") && said.contains("hint: "),
        "{said}"
    );
}

#[test]
fn nothing_is_left_behind() {
    let work = Work::new();
    let before = work.names();
    for freeze in ["9", "x"] {
        let command = work.precompute(
            &goldens().join("bert-tiny"),
            &work.path("train.jsonl"),
            freeze,
        );
        let mut command = command;
        assert_eq!(
            command.output().expect("telly runs").status.code(),
            Some(WRONG_INPUT)
        );
    }
    assert_eq!(work.names(), before);
}
