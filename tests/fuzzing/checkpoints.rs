//! A checkpoint: its configuration, weights and tokenizer.

use std::path::PathBuf;

use telly::checkpoint::{Checkpoint, EncoderConfig, Family, Tokenizer, Weights};

use crate::harness::{bytes_in, folder, fuzz};
use crate::support::{self, goldens, names};

/// A model's folder, whose file `name` is to be broken, and that file's content.
pub(crate) fn model(name: &str) -> (tempfile::TempDir, PathBuf, Vec<u8>) {
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
