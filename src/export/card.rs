//! The model card: what the model is, where it comes from, and how to load it.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use super::classes::Target;
use super::disguise::Disguise;
use super::trained::file_name;
use super::{Error, Format, Reading, TrainedModel, folder, text_model};
use crate::frozen::FrozenPrecision;
use crate::task::{Encoding, HeadSettings, Objective, TextEncoding, TextLayout};
use crate::trainable::Pooling;

/// The keys of a recipe that name files of one machine: their last names are kept.
const PATHS: [&str; 7] = [
    "cache",
    "model",
    "train",
    "valid",
    "test",
    "code_base",
    "onnxruntime",
];

/// Writes `README.md`; `target` is the class of `transformers` that loads the folder, if one does.
pub(super) fn write(
    folder: &Path,
    trained: &TrainedModel,
    format: Format,
    target: Option<&Target>,
) -> Result<(), Error> {
    let mut text = front_matter(trained, format);
    let base = file_name(&trained.checkpoint.folder);
    let identity = &trained.identity;
    let frozen = match identity.freeze.layers() {
        _ if identity.freeze == crate::checkpoint::Freeze::Nothing => "nothing frozen".into(),
        0 => "the embeddings frozen".into(),
        layers => format!("the embeddings and the bottom {layers} layers frozen"),
    };
    let _ = write!(
        text,
        "# {}\n\n`{base}`, trained for `{}` with {frozen}, by [Telly](https://arxiv.org/abs/2304.05216)'s way of\nfine-tuning. Frozen and trained weights are one model here.\n\n## How to load it\n\n",
        trained.name,
        identity.encoding.task(),
    );
    text.push_str(&how_to_load(trained, target));
    let as_they_stand = matches!(
        identity.encoding.text(),
        Some((
            _,
            TextEncoding {
                layout: TextLayout::Prompt { .. },
                ..
            }
        ))
    );
    text.push_str(if as_they_stand {
        "\nThe texts were read as they stand. More tokens than the recipe's lengths were cut off.\n"
    } else {
        "\nThe texts were read with every run of white space as one space, as above. More tokens than the\nlengths above were cut off.\n"
    });
    let rounded = match identity.frozen_precision {
        FrozenPrecision::Fp32 => None,
        FrozenPrecision::Tf32 => Some("TF32"),
        FrozenPrecision::Fp16 => Some("16-bit floats"),
        FrozenPrecision::Bf16 => Some("16-bit floats (bfloat16)"),
        FrozenPrecision::Int8 => Some("8-bit integers"),
    };
    if let Some(rounded) = rounded {
        let _ = write!(
            text,
            "\nThe frozen layers were computed in {rounded} while the others were trained. Here they are\ncomputed as all others are: the outputs are close to those in training, not equal.\n",
        );
    }
    let _ = write!(text, "\n{}{}", metrics(trained), recipe(trained));
    text.push_str(
        "\n## Licence\n\nThat of the base model applies. Put it here, and into `license:` above.\n",
    );
    folder::write_text(folder, "README.md", &text)
}

fn front_matter(trained: &TrainedModel, format: Format) -> String {
    let (pipeline, library) = match (trained.gives_embeddings(), format) {
        (true, Format::HuggingFace { .. }) => ("sentence-similarity", "sentence-transformers"),
        (true, Format::Onnx { .. }) => ("sentence-similarity", "onnx"),
        (false, Format::HuggingFace { .. }) if trained.writes_text() => {
            ("text-generation", "transformers")
        }
        (false, Format::Onnx { .. }) if trained.writes_text() => ("text-generation", "onnx"),
        (false, Format::HuggingFace { .. }) => ("text-classification", "transformers"),
        (false, Format::Onnx { .. }) => ("text-classification", "onnx"),
    };
    // Quoted as JSON is, which YAML reads.
    let base = Value::from(file_name(&trained.checkpoint.folder));
    format!(
        "---\nlibrary_name: {library}\npipeline_tag: {pipeline}\nbase_model: {base}\nlicense: other\nlicense_name: that-of-the-base-model\ntags:\n- telly\n---\n\n"
    )
}

/// A piece of Python that can be copied.
fn how_to_load(trained: &TrainedModel, target: Option<&Target>) -> String {
    match target {
        target if trained.writes_text() => text_model::how_to_load(trained, target),
        Some(_) if trained.gives_embeddings() => embedding(trained),
        Some(target) => classifier(trained, target),
        None => onnx(trained),
    }
}

fn classifier(trained: &TrainedModel, target: &Target) -> String {
    let class = &target.class;
    let auto = match class.rsplit_once("For") {
        Some((_, kind)) => format!("AutoModelFor{kind}"),
        None => "AutoModel".into(),
    };
    let logits = match target.reading {
        Reading::Output => "    logits = model(**inputs).logits",
        Reading::FirstToken => {
            "    logits = model(**inputs).logits[:, 0]  # those of the first token"
        }
        Reading::MeanOfTokens => {
            "    by_token = model(**inputs).logits  # their mean over all tokens is what was trained\n    mask = inputs[\"attention_mask\"].unsqueeze(-1)\n    logits = (by_token * mask).sum(1) / mask.sum(1)"
        }
    };
    let result = match trained.objective() {
        Objective::SingleLabel => {
            "print([model.config.id2label[label] for label in logits.argmax(-1).tolist()])"
        }
        Objective::MultiLabel => {
            "for row in logits.sigmoid():\n    print([model.config.id2label[label] for label, likely in enumerate(row) if likely >= 0.5])"
        }
        Objective::Regression => "print(logits[:, 0].tolist())",
    };
    let second = if trained.identity.encoding.joins_texts() {
        "texts, "
    } else {
        ""
    };
    let mut text = format!(
        "```python
import torch
from transformers import AutoTokenizer, {auto}

folder = \".\"
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {auto}.from_pretrained(folder).eval()

texts = [\" \".join(text.split()) for text in [\"def add(a, b): return a + b\", \"some other text\"]]
inputs = tokenizer(texts, {second}truncation=True, max_length={}, padding=True, return_tensors=\"pt\")
with torch.no_grad():
{logits}
{result}
```
",
        trained.longest()
    );
    if !second.is_empty() {
        text.push_str(
            "\nIt was trained on pairs: put the second texts in the place of the second `texts`.\n",
        );
    }
    match target.disguise {
        Some(Disguise::SmallTanh) => {
            let _ = write!(
                text,
                "\nWhat was trained is one linear layer on the first token's state. `{class}` has a square layer and\na tanh before it: here they multiply by 2⁻¹⁴, and the last layer's weights by 2¹⁴, which leaves the\nlogits as they are. To train on, begin with a new head.\n"
            );
        }
        Some(Disguise::LastNorm(_)) => {
            let _ = write!(
                text,
                "\nWhat was trained is one linear layer on the encoder's states. `{class}` has a square layer, an\nactivation and a norm before it: here the square layer is 1, `config.json` says that there is no\nactivation, and the norm is the encoder's last one, in whose place is one of weight 1. The logits are\nthose of the run; the encoder alone (`AutoModel`) gives states that are not yet weighted.\n"
            );
        }
        None => {}
    }
    text
}

/// What a text's kinds are called, and the most tokens of each.
fn lengths(encoding: &Encoding) -> Vec<(&'static str, usize)> {
    let lengths = encoding.lengths().into_iter();
    lengths
        .map(|(flag, length)| match flag {
            "--max-query-length" => ("queries", length),
            "--max-code-length" => ("codes", length),
            _ => ("texts", length),
        })
        .collect()
}

fn embedding(trained: &TrainedModel) -> String {
    let mut text = String::from(
        "```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer(\".\")

def embed(texts, max_length):
    model.max_seq_length = max_length
    return model.encode([\" \".join(text.split()) for text in texts], normalize_embeddings=True)

",
    );
    for (name, length) in lengths(&trained.identity.encoding) {
        let _ = writeln!(
            text,
            "{name} = embed([\"def add(a, b): return a + b\"], {length})"
        );
    }
    text.push_str("```\n");
    let pooling = match trained.identity.pooling {
        Pooling::Cls => "the first token's state",
        Pooling::Mean => "the mean of all tokens' states",
        Pooling::Scored => "the state of each token that is scored",
    };
    if let HeadSettings::Cosine { threshold, .. } = trained.head {
        let _ = writeln!(
            text,
            "\nTwo functions are clones where the cosine of their embeddings is above {threshold}."
        );
    }
    let _ = writeln!(
        text,
        "\nAn embedding is {pooling}, scaled to unit length. `transformers.AutoModel` loads the model alone."
    );
    text
}

fn onnx(trained: &TrainedModel) -> String {
    let embeddings = trained.gives_embeddings();
    let result = if embeddings {
        "print(result.shape)  # each of unit length"
    } else if trained.objective() != Objective::SingleLabel {
        "print(labels, result)"
    } else {
        "print([labels[str(label)] for label in result.argmax(-1)])"
    };
    let mut imports = String::from("import numpy as np\nimport onnxruntime\n");
    let mut labels = String::new();
    if !embeddings {
        imports.insert_str(0, "import json\n");
        labels = "labels = json.loads(session.get_modelmeta().custom_metadata_map[\"id2label\"])\n"
            .into();
    }
    let padding = trained.checkpoint.config.padding_id;
    let (pairs, given) = if trained.head == HeadSettings::Concat {
        ("  # two that follow each other are a pair", "texts)")
    } else if trained.identity.encoding.joins_texts() {
        (
            "",
            "list(zip(texts, texts)))  # put the second texts in the place of the second `texts`",
        )
    } else {
        ("", "texts)")
    };
    let all = lengths(&trained.identity.encoding);
    let said: Vec<String> = all
        .iter()
        .map(|(name, length)| format!("{length} for {name}"))
        .collect();
    format!(
        "```python
{imports}from tokenizers import Tokenizer

max_length = {}  # {}
session = onnxruntime.InferenceSession(\"model.onnx\")
{labels}tokenizer = Tokenizer.from_file(\"tokenizer.json\")
tokenizer.enable_truncation(max_length)
tokenizer.enable_padding(pad_id={padding})

texts = [\" \".join(text.split()) for text in [\"def add(a, b): return a + b\", \"some other text\"]]{pairs}
encoded = tokenizer.encode_batch({given}
inputs = {{
    \"input_ids\": np.array([text.ids for text in encoded], np.int64),
    \"attention_mask\": np.array([text.attention_mask for text in encoded], np.int64),
}}
result = session.run(None, inputs)[0]
{result}
```
",
        trained.longest(),
        said.join(", "),
    )
}

/// Every metric of the run's summary.
fn metrics(trained: &TrainedModel) -> String {
    let mut rows = String::new();
    for split in ["valid", "test"] {
        let metrics = trained
            .summary
            .as_ref()
            .and_then(|summary| summary.get(split)?.as_object());
        for (name, value) in metrics.into_iter().flatten() {
            if let Some(value) = value.as_f64() {
                let _ = writeln!(rows, "| {split} | {name} | {value:.4} |");
            }
        }
    }
    if rows.is_empty() {
        return "## Metrics\n\nNone were measured while it was trained.\n".into();
    }
    format!("## Metrics\n\n| split | metric | value |\n|---|---|---|\n{rows}")
}

/// Recipe, and hashes of all that went in.
fn recipe(trained: &TrainedModel) -> String {
    let identity = &trained.identity;
    let mut text = String::from("\n## Where it comes from\n\n| what | BLAKE3 |\n|---|---|\n");
    let _ = writeln!(text, "| run | `{}` |", trained.hash);
    let _ = writeln!(text, "| base model's weights | `{}` |", identity.weights);
    let _ = writeln!(
        text,
        "| base model's tokenizer | `{}` |",
        identity.tokenizer
    );
    for (split, hash) in &identity.data {
        let _ = writeln!(text, "| tokens and labels of {split} | `{hash}` |");
    }
    if let Some(recipe) = &trained.recipe {
        let _ = write!(
            text,
            "\nThe recipe:\n\n```toml\n{}```\n",
            without_paths(recipe)
        );
    }
    text
}

/// `recipe` with the last names of what lies on one machine only.
fn without_paths(recipe: &str) -> String {
    let Ok(mut table) = recipe.parse::<toml::Table>() else {
        return String::new();
    };
    for (key, value) in &mut table {
        if !PATHS.contains(&key.as_str()) {
            continue;
        }
        let paths = match value {
            toml::Value::Array(paths) => paths.as_mut_slice(),
            path => std::slice::from_mut(path),
        };
        for path in paths {
            if let toml::Value::String(path) = path {
                *path = file_name(Path::new(path));
            }
        }
    }
    table.to_string()
}
