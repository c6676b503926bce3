//! CUDA where it cannot be used: the piece that is missing is named, with what to do, and nobody
//! who did not ask for CUDA is stopped.

#![allow(clippy::print_stdout, reason = "says what it left out")]

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{
    Classification, WRONG_INPUT, fails, goldens, precompute, stderr, telly, telly_ok, text,
};
use serde_json::Value;

/// Whether this machine has NVIDIA's driver: then nothing is missing that could be named.
fn has_driver() -> bool {
    let there = telly::cuda::load_driver().is_ok();
    if there {
        println!("left out: this machine has NVIDIA's driver");
    }
    there
}

/// The library of `onnxruntime-gpu`, in the folder that `scripts/setup.sh --gpu` makes.
fn gpu_library() -> Option<PathBuf> {
    let library = std::env::var_os("TELLY_TEST_GPU_LIBRARY").map(PathBuf::from);
    if library.is_none() {
        println!(
            "left out: TELLY_TEST_GPU_LIBRARY does not name the libonnxruntime.so that `scripts/setup.sh --gpu` brings"
        );
    }
    library
}

/// `telly precompute` on `provider`, by the library at hand or by `library`.
fn on_provider(work: &Classification, provider: &str, library: Option<&Path>) -> Command {
    let (model, data) = (goldens().join("bert-tiny"), work.path("train.jsonl"));
    let mut arguments = precompute("classify", &model, &data, "1", &work.path("cache"));
    let places = arguments.iter_mut().filter(|argument| *argument == "cpu");
    places.for_each(|place| *place = provider.into());
    let mut command = telly(&arguments);
    if let Some(library) = library {
        command.args(["--onnxruntime", text(library)]);
    }
    command
}

/// The JSON and the lines on stderr of `telly doctor`.
fn doctor(library: Option<&Path>) -> (Value, Vec<String>) {
    let mut arguments = vec!["doctor", "--json"];
    if let Some(library) = library {
        arguments.extend(["--onnxruntime", text(library)]);
    }
    let output = telly_ok(&arguments);
    let found = serde_json::from_slice(&output.stdout).expect("JSON");
    (found, stderr(&output).lines().map(String::from).collect())
}

/// What `doctor` says is missing, each with what to do.
fn missing(found: &Value) -> Vec<String> {
    let pieces = found["cuda_missing"].as_array().expect("pieces").iter();
    pieces
        .map(|piece| {
            assert!(piece["hint"].is_string(), "{piece}");
            piece["piece"].as_str().expect("a sentence").to_owned()
        })
        .collect()
}

#[test]
fn a_provider_that_the_library_lacks() {
    let work = Classification::new();
    let words = ["--provider cuda", "built without CUDA", "setup.sh --gpu"];
    fails(on_provider(&work, "cuda", None), WRONG_INPUT, &words);
    assert!(!work.path("cache").exists());
    let output = on_provider(&work, "auto", None).output().expect("runs");
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!stderr(&output).contains("CUDA"), "{}", stderr(&output));
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_device_that_the_binary_lacks() {
    let work = Classification::new();
    let (cache, _) = work.trained();
    let out = work.path("on-a-card");
    let train = ["train", "--cache", text(&cache), "--out", text(&out)];
    let words = ["--device cuda", "built without CUDA", "cuda-build.sh"];
    let command = telly(&[&train[..], &["--device", "cuda"]].concat());
    fails(command, WRONG_INPUT, &words);
    assert!(!out.exists());
    let auto = telly_ok(&[&train[..], &["--epochs", "1", "--device", "auto"]].concat());
    assert!(!stderr(&auto).contains("CUDA"), "{}", stderr(&auto));
}

#[cfg(feature = "cuda")]
#[test]
fn a_device_without_a_driver() {
    if has_driver() {
        return;
    }
    let work = Classification::new();
    let (cache, _) = work.trained();
    let out = work.path("on-a-card");
    let train = ["train", "--cache", text(&cache), "--out", text(&out)];
    let words = ["--device cuda", "NVIDIA's driver is not installed"];
    let command = telly(&[&train[..], &["--device", "cuda"]].concat());
    fails(command, WRONG_INPUT, &words);
    assert!(!out.exists());
    let auto = telly_ok(&[&train[..], &["--epochs", "1", "--device", "auto"]].concat());
    let said = stderr(&auto);
    assert_eq!(said.matches("CUDA cannot be used").count(), 1, "{said}");
}

#[test]
fn doctor_names_the_pieces() {
    let (found, said) = doctor(None);
    let cuda = &found["cuda"];
    for field in [
        "driver",
        "needed",
        "libraries",
        "frozen_half",
        "trainable_half",
    ] {
        assert!(cuda[field].is_string(), "{field}: {found}");
    }
    if has_driver() {
        return;
    }
    assert_eq!(cuda["ready"], false);
    assert_eq!(cuda["driver"], "missing");
    assert_eq!(cuda["cards"], Value::Array(Vec::new()));
    let missing = missing(&found);
    assert!(missing[0].contains("NVIDIA's driver"), "{missing:?}");
    assert!(missing[1].contains("built without CUDA"), "{missing:?}");
    // Nothing here is meant for CUDA, so nothing is missed.
    if !cfg!(feature = "cuda") {
        assert_eq!(said, ["everything that is needed is here"]);
    }
}

/// A library by the driver's name that can do nothing, in a folder of its own.
#[cfg(target_os = "linux")]
fn empty_driver(work: &Classification) -> Option<PathBuf> {
    let source = work.0.write(
        "driver.c",
        "int cuTensorMapEncodeTiled(void) { return 100; }\n",
    );
    let folder = work.path("driver");
    fs_err::create_dir(&folder).expect("a folder");
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"]);
    command.arg(folder.join("libcuda.so.1")).arg(source);
    let compiled = command.status().is_ok_and(|status| status.success());
    if !compiled {
        println!("left out: there is no C compiler");
    }
    compiled.then_some(folder)
}

/// Every library but the driver is found by its path: none is missing any more once something by
/// the driver's name is there.
#[cfg(target_os = "linux")]
#[test]
fn the_libraries_are_found_by_their_paths() {
    let (Some(library), work) = (gpu_library(), Classification::new()) else {
        return;
    };
    if has_driver() {
        return;
    }
    let Some(driver) = empty_driver(&work) else {
        return;
    };
    let command = || {
        let mut command = on_provider(&work, "cuda", Some(&library));
        command.env("LD_LIBRARY_PATH", &driver);
        command
    };
    let output = command().output().expect("telly runs");
    let said = stderr(&output);
    println!("{said}");
    assert!(!said.contains("cannot open shared object file"), "{said}");
    fails(command(), WRONG_INPUT, &["--provider cuda", "CUDA"]);
    assert!(!work.path("cache").exists());

    // Without the folder the system's loader has to find them.
    let alone = work.path("onnxruntime");
    fs_err::create_dir(&alone).expect("a folder");
    for entry in fs_err::read_dir(library.parent().expect("a folder")).expect("names") {
        let entry = entry.expect("an entry");
        if entry.path().is_file() {
            let link = alone.join(entry.file_name());
            std::os::unix::fs::symlink(entry.path(), link).expect("linked");
        }
    }
    let mut command = on_provider(&work, "cuda", Some(&alone));
    command.env("LD_LIBRARY_PATH", &driver);
    let words = ["cannot open shared object file", "scripts/setup.sh --gpu"];
    fails(command, WRONG_INPUT, &words);
}

#[test]
fn a_library_with_cuda_and_no_driver() {
    let Some(library) = gpu_library() else {
        return;
    };
    if has_driver() {
        return;
    }
    let library = Some(library.as_path());
    let work = Classification::new();
    let words = [
        "--provider cuda",
        "NVIDIA's driver is not installed",
        "libcuda.so.1",
    ];
    fails(on_provider(&work, "cuda", library), WRONG_INPUT, &words);
    assert!(!work.path("cache").exists());

    let output = on_provider(&work, "auto", library).output().expect("runs");
    let said = stderr(&output);
    println!("{said}");
    assert!(output.status.success(), "{said}");
    let lines: Vec<&str> = said.lines().filter(|line| line.contains("CUDA")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    assert!(
        lines[0].contains("NVIDIA's driver is not installed"),
        "{said}"
    );
    assert!(!said.contains("onnxruntime::"), "no log of its own: {said}");

    let (found, said) = doctor(library);
    assert_eq!(found["providers"], "cpu, cuda");
    assert_eq!(found["cuda"]["ready"], false);
    let piece = missing(&found).remove(0);
    assert!(piece.contains("NVIDIA's driver"), "{piece}");
    assert_eq!(said[0], "CPU: everything that is needed is here");
    assert!(
        said[1].starts_with("CUDA: missing: NVIDIA's driver") && said[2].starts_with("hint: "),
        "{said:?}"
    );
}
