"""Load what `telly export` wrote, as a user of transformers, sentence-transformers or ONNX Runtime does, and compare with
what `telly predict` says.

    python scripts/goldens/check_export.py jobs.json

A job names an `export` folder, the `input` that `telly predict` was given, its `predictions`, the `fields` that were read
(two of pairs, which are one sequence if `joined`), the most tokens of each (`max_length`), and how far off a number may be (`tolerance`; from 1e-3 on labels may
differ too). Prints one JSON line for each job and library. Needs export-requirements.txt.
"""

import argparse
import contextlib
import io
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
import transformers
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

BATCH = 6  # keeps pairs together, and does not divide the number of texts


def lines(path):
    return [json.loads(line) for line in Path(path).read_text().splitlines()]


def batches(texts):
    return [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]


def loaded(kind, folder):
    """The model, after a look at whether every tensor was found and none is left over."""
    model, report = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    missing = [name for name in report["missing_keys"] if "pooler" not in name or kind != "AutoModel"]
    if missing or report["unexpected_keys"] or report["mismatched_keys"]:
        sys.exit(f"{folder}: {kind} finds tensors missing, left over or of another shape: {report}")
    return model.eval()


def of_transformers(folder, marker, texts, max_length):
    """One row a text: logits, or embeddings of unit length."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    kind = "AutoModel" + (f"For{marker['class'].split('For')[1]}" if "For" in marker["class"] else "")
    model = loaded(kind, folder)
    if type(model).__name__ != marker["class"]:
        sys.exit(f"{folder}: {kind} gives a {type(model).__name__}, not a {marker['class']}")
    rows = []
    for batch in batches(texts):
        batch = list(zip(*batch)) if isinstance(batch[0], tuple) else [batch]
        inputs = tokenizer(*map(list, batch), truncation=True, max_length=max_length, padding=True, return_tensors="pt")
        with torch.no_grad():
            output = model(**inputs)
        states = output.last_hidden_state if kind == "AutoModel" else output.logits
        if marker["reading"] == "first-token":
            states = states[:, 0]
        elif marker["reading"] == "mean-of-tokens":
            mask = inputs["attention_mask"].unsqueeze(-1)
            states = (states * mask).sum(1) / mask.sum(1)
        rows.append(torch.nn.functional.normalize(states) if kind == "AutoModel" else states)
    names = [model.config.id2label[label] for label in range(len(model.config.id2label))]
    return torch.cat(rows).double().numpy(), names


def of_sentence_transformers(folder, texts, max_length):
    model = SentenceTransformer(str(folder), device="cpu")
    model.max_seq_length = max_length
    return model.encode(texts, batch_size=BATCH).astype(np.float64)


def of_onnx(folder, texts, max_length):
    path = folder / "model.onnx"
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_truncation(max_length)
    tokenizer.enable_padding(pad_id=json.loads((folder / "config.json").read_text()).get("pad_token_id", 0))
    rows = []
    for batch in batches(texts):
        encoded = tokenizer.encode_batch(batch)
        ids = np.array([text.ids for text in encoded], np.int64)
        mask = np.array([text.attention_mask for text in encoded], np.int64)
        rows.append(session.run(None, {"input_ids": ids, "attention_mask": mask})[0])
    labels = json.loads(metadata.get("id2label", "{}"))
    return np.concatenate(rows).astype(np.float64), [labels[str(label)] for label in range(len(labels))]


def log_softmax(logits):
    largest = logits.max(-1, keepdims=True)
    return logits - largest - np.log(np.exp(logits - largest).sum(-1, keepdims=True))


def compare(job, found, names, predictions):
    """The largest difference, the least cosine, and whether every label is the same."""
    labels = True
    if "embedding" in predictions[0]:
        expected = np.array([line["embedding"] for line in predictions])
    elif "logits" not in predictions[0]:
        found = (found[0::2] * found[1::2]).sum(-1, keepdims=True)
        expected = np.array([[line["score"]] for line in predictions])
    else:
        expected = np.array([line["logits"] for line in predictions])
        if "label" in predictions[0]:
            labels = [names[label] for label in found.argmax(-1)] == [str(line["label"]) for line in predictions]
        told = np.exp(log_softmax(expected))
        if "label" in predictions[0] and "probabilities" in predictions[0]:
            told = np.array([[line["probabilities"][name] for name in names] for line in predictions])
        if np.abs(np.exp(log_softmax(expected)) - told).max() > 1e-6:
            sys.exit(f"{job['export']}: the probabilities are not those of the logits")
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(expected, axis=-1)
    cosine = float(((found * expected).sum(-1) / lengths).min())
    return float(np.abs(found - expected).max()), cosine, labels


def run_card(folder):
    """Runs every piece of Python in the model card where it lies."""
    pieces = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    if not pieces:
        sys.exit(f"{folder}: the model card says nothing of how to load it")
    here = Path.cwd()
    os.chdir(folder)
    try:
        for piece in pieces:
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(piece, f"{folder}/README.md", "exec"), {})
    finally:
        os.chdir(here)


def check(job):
    folder = Path(job["export"])
    marker = json.loads((folder / "telly.json").read_text())
    texts = [tuple(" ".join(line[field].split()) for field in job["fields"]) for line in lines(job["input"])]
    if not job["joined"]:
        texts = [text for row in texts for text in row]
    predictions = lines(job["predictions"])
    found = {}
    if marker["format"] == "onnx":
        found["onnxruntime"] = of_onnx(folder, texts, job["max_length"])
    else:
        found["transformers"] = of_transformers(folder, marker, texts, job["max_length"])
        if (folder / "modules.json").exists():
            found["sentence-transformers"] = of_sentence_transformers(folder, texts, job["max_length"]), []
    run_card(folder)
    for loader, (rows, names) in found.items():
        difference, cosine, labels = compare(job, rows, names, predictions)
        report = {"export": folder.name, "loader": loader, "class": marker["class"], "texts": len(texts)}
        print(json.dumps(report | {"difference": difference, "least_cosine": cosine, "same_labels": labels}), flush=True)
        if difference > job["tolerance"] or not labels and job["tolerance"] < 1e-3:
            sys.exit(f"{folder}: {loader} does not give what telly predict gives")


def main():
    parser = argparse.ArgumentParser(description="Compare exports in other libraries with telly predict.")
    parser.add_argument("jobs", type=Path, metavar="JOBS", help="a JSON list of jobs")
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    for job in json.loads(parser.parse_args().jobs.read_text()):
        check(job)


if __name__ == "__main__":
    main()
