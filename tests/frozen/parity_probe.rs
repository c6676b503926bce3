//! The probe before a cache is filled: it agrees with a good frozen half, refuses a spoiled one,
//! and leaves its figures in the manifest.

#![allow(clippy::print_stdout, reason = "the figures are shown")]

use std::path::Path;

use crate::support::{
    self, Classification, FAILED, Golden, fails, goldens, minilm, telly_json, telly_ok, text,
};
use telly::cache::{MANIFEST, Manifest, Parity};
use telly::checkpoint::Checkpoint;
use telly::error::Explain as _;
use telly::frozen::{FrozenEncoder, FrozenPrecision, ProviderChoice, Runtime, SessionOptions};
use telly::precompute::{FromTokens, Records, check_parity, probe};

const MODELS: [&str; 3] = ["bert-tiny", "roberta-tiny", "mpnet-tiny"];

/// The frozen half of `running`, probed against the layers of `checkpoint`.
fn probed(
    running: &Path,
    checkpoint: &Path,
    layers: usize,
    golden: &str,
    precision: FrozenPrecision,
) -> Parity {
    let options = SessionOptions {
        provider: ProviderChoice::Cpu,
        precision,
        ..SessionOptions::default()
    };
    let open = |folder| Checkpoint::open(folder).expect("a checkpoint");
    let runtime = Runtime::load(None).expect("ONNX Runtime");
    let frozen = FrozenEncoder::new(&runtime, &open(running), &[layers], &options);
    let sequences = Golden::read(golden).sequences();
    let mut states = FromTokens {
        frozen: &mut frozen.expect("a session"),
        sequences: &sequences,
    };
    let parity = probe(&mut states, &open(checkpoint), &sequences, Records(&[]));
    let parity = parity.expect("comparable").expect("tokens")[0];
    println!(
        "{}, {layers} layers, {precision}: {parity:?}",
        running.display()
    );
    parity
}

#[test]
fn good_halves_agree_after_every_layer() {
    let tiny = MODELS.map(|model| (goldens().join(model), format!("{model}.hidden.safetensors")));
    for (folder, golden) in &tiny {
        for layers in 0..=3 {
            let float = probed(folder, folder, layers, golden, FrozenPrecision::Fp32);
            assert!(float.max_absolute_error < 1e-4, "{float:?}");
            let int8 = probed(folder, folder, layers, golden, FrozenPrecision::Int8);
            assert!(
                check_parity(&int8, FrozenPrecision::Int8).is_ok(),
                "{int8:?}"
            );
        }
    }
    let golden = "minilm-l6.hidden.safetensors";
    let float = probed(&minilm(), &minilm(), 4, golden, FrozenPrecision::Fp32);
    assert!(float.max_absolute_error < 1e-4, "{float:?}");
}

/// A copy of bert-tiny in which one matrix of layer 0 has its sign turned.
fn spoiled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for name in support::names(&goldens().join("bert-tiny")) {
        let from = goldens().join("bert-tiny").join(&name);
        fs_err::copy(from, folder.path().join(&name)).expect("copied");
    }
    let path = folder.path().join("model.safetensors");
    let mut bytes = fs_err::read(&path).expect("bytes");
    let (header_length, header) = safetensors::SafeTensors::read_metadata(&bytes).expect("read");
    let name = header
        .tensors()
        .into_keys()
        .find(|name| name.ends_with("layer.0.output.dense.weight"));
    let info = header.info(&name.expect("the matrix")).expect("its place");
    let data = size_of::<u64>() + header_length;
    for number in bytes[data + info.data_offsets.0..data + info.data_offsets.1].chunks_exact_mut(4)
    {
        number[3] ^= 0x80;
    }
    fs_err::write(&path, bytes).expect("written");
    folder
}

#[test]
fn a_spoiled_graph_is_refused() {
    let (good, spoiled) = (goldens().join("bert-tiny"), spoiled());
    for precision in [FrozenPrecision::Fp32, FrozenPrecision::Int8] {
        let golden = "bert-tiny.hidden.safetensors";
        // Its embeddings are whole.
        let parity = probed(spoiled.path(), &good, 0, golden, precision);
        assert!(check_parity(&parity, precision).is_ok());
        let parity = probed(spoiled.path(), &good, 1, golden, precision);
        let error = check_parity(&parity, precision).expect_err("spoiled");
        let message = error.to_string();
        assert!(message.contains(&precision.to_string()), "{message}");
        assert!(error.hint().is_some() && !error.is_input());
    }
}

/// Through all six layers, what 8 bits lose in MiniLM adds up.
#[test]
fn a_model_that_int8_spoils_leaves_nothing_behind() {
    let work = Classification::new();
    let mut command = work.precompute(&minilm(), &work.path("train.jsonl"), "6");
    let graph = work.path("frozen.onnx");
    command.args(["--frozen-precision", "int8", "--graph", text(&graph)]);
    let words = ["int8", "mean cosine", "expected at least 0.999"];
    fails(command, FAILED, &words);
    assert!(!work.path("cache").exists() && !graph.exists());
}

#[test]
fn the_manifest_keeps_the_figures() {
    let work = Classification::new();
    let model = goldens().join("bert-tiny");
    let cache = work.path("cache");
    let precompute = |freeze| work.precompute(&model, &work.path("train.jsonl"), freeze);
    let first = precompute("2").output().expect("telly runs");
    assert!(first.status.success(), "{}", support::stderr(&first));
    assert!(support::stderr(&first).contains("frozen half against fp32: max error"));
    let found = telly_json(&["cache", "inspect", text(&cache)]);
    assert!(
        found["parity"]["mean_cosine"].as_f64().expect("a number") > 0.9999,
        "{found}"
    );

    // What was measured first stays.
    let manifest = cache.join(MANIFEST);
    let before = fs_err::read_to_string(&manifest).expect("text");
    let mut value: serde_json::Value = serde_json::from_str(&before).expect("JSON");
    // Version 1 has no checksum that would have to be made anew.
    value["version"] = serde_json::json!(1);
    value["parity"]["max_absolute_error"] = serde_json::json!(1.25e-5);
    fs_err::write(&manifest, value.to_string()).expect("written");
    assert!(precompute("2").status().expect("telly runs").success());
    let parity = Manifest::read(&cache).expect("a manifest").parity;
    assert!((parity.expect("kept").max_absolute_error - 1.25e-5).abs() < f64::EPSILON);

    // A cache of before the probe is read, and measured when it is made again.
    value.as_object_mut().expect("an object").remove("parity");
    fs_err::write(&manifest, value.to_string()).expect("written");
    assert!(Manifest::read(&cache).expect("a manifest").parity.is_none());
    telly_ok(&["cache", "verify", text(&cache)]);
    assert!(precompute("2").status().expect("telly runs").success());
    assert_eq!(fs_err::read_to_string(&manifest).expect("text"), before);

    let nothing = precompute("none").arg("--force").output();
    let nothing = nothing.expect("telly runs");
    assert!(nothing.status.success());
    assert!(!support::stderr(&nothing).contains("against fp32"));
    assert!(Manifest::read(&cache).expect("a manifest").parity.is_none());
}
