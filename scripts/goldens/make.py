"""Make everything in tests/goldens with Hugging Face transformers, PyTorch, scikit-learn, pandas and pyarrow.

    python scripts/goldens/make.py --minilm models/all-MiniLM-L6-v2 --older-python .venv-older/bin/python
    python scripts/goldens/make.py --only decoders

Everything is seeded and runs on one thread, so a second run writes the same bytes (on the same machine and versions), but
for the files of `pytorch/` in the older form: torch.save puts addresses in memory into them.
`vocabularies/` is made with an older transformers, so it takes a Python of its own (older-requirements.txt); without
`--older-python` it is left as it is, and what the installed transformers makes of it is printed beside it.
What each file holds is told in tests/goldens/README.md. `cache-v1/` was written by an older Telly and is not made again.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import sklearn
import tokenizers
import torch
import transformers

import classifier_metrics
import clones
import decoders
import decoding
import language_training
import metrics
import pairs
import reference
import rotary
import schedules
import tiny
import tiny_decoders
import training

VERSIONS = {
    "numpy": numpy.__version__,
    "scikit-learn": sklearn.__version__,
    "tokenizers": tokenizers.__version__,
    "torch": torch.__version__.split("+")[0],
    "transformers": transformers.__version__,
}


def run(script, *arguments, python=sys.executable):
    """Run a script that lies beside this one, in a process of its own: pytorch_files.py changes torch."""
    subprocess.run([python, Path(__file__).with_name(script), *arguments], check=True)


def make_checkpoint(out, name, make):
    """A fresh folder with a checkpoint in it."""
    shutil.rmtree(out / name, ignore_errors=True)
    (out / name).mkdir(parents=True)
    make(out / name)
    for path in (out / name).iterdir():
        path.chmod(0o644)  # transformers leaves the weights readable by their owner only
    return out / name


def make_encoders(out, arguments):
    """The models that read text: checkpoints, hidden states and training."""
    for name, make, length in (
        ("bert-tiny", tiny.make_bert, tiny.LENGTH),
        ("roberta-tiny", tiny.make_roberta, tiny.LENGTH),
        ("mpnet-tiny", tiny.make_mpnet, tiny.MPNET_LENGTH),
        ("xlm-roberta-tiny", tiny.make_xlm_roberta, tiny.LENGTH),
        ("distilbert-tiny", tiny.make_distilbert, tiny.LENGTH),
        ("modernbert-tiny", tiny.make_modernbert, tiny.LENGTH),
        ("modernbert-biased-tiny", tiny.make_modernbert_biased, tiny.LENGTH),
    ):
        folder = make_checkpoint(out, name, make)
        path = out / f"{name}.hidden.safetensors"
        reference.make_hidden(folder, reference.TINY_TEXTS, length, path, VERSIONS)
    path = out / "bert-tiny.pairs.hidden.safetensors"
    reference.make_hidden_of_pairs(out / "bert-tiny", reference.TINY_PAIRS, path, VERSIONS)
    path = out / "minilm-l6.hidden.safetensors"
    reference.make_hidden(arguments.minilm, reference.MINILM_TEXTS, 256, path, VERSIONS)
    reference.make_buckets(out / "mpnet-buckets.json", VERSIONS)
    (out / "training").mkdir(exist_ok=True)
    for model, task, pooling, frozen in training.TRAININGS:
        path = out / "training" / training.training_name(model, task, pooling, frozen)
        training.make_training(out / model, task, pooling, frozen, path, VERSIONS)
    for model, task, pooling, frozen, option in training.VARIANTS:
        path = out / "training" / training.training_name(model, task, pooling, frozen, option)
        training.make_training(out / model, task, pooling, frozen, path, VERSIONS, option)
    pairs.make_pairs(out, out / "pairs.json", VERSIONS)
    clones.make_clones(out, VERSIONS)


def make_decoders(out, _):
    """The models that write text: checkpoints, hidden states, training and decoding."""
    for name, make in (
        ("llama-tiny", tiny_decoders.make_llama),
        ("llama-scaled-tiny", tiny_decoders.make_llama_scaled),
        ("qwen2-tiny", tiny_decoders.make_qwen2),
        ("starcoder2-tiny", tiny_decoders.make_starcoder2),
    ):
        folder = make_checkpoint(out, name, make)
        decoders.make_causal_hidden(folder, out / f"{name}.hidden.safetensors", VERSIONS)
    folder = make_checkpoint(out, "unixcoder-tiny", tiny_decoders.make_unixcoder)
    decoders.make_unixcoder_hidden(folder, out, VERSIONS)
    rotary.make_rotary_scaling(out / "rotary-scaling.json", VERSIONS)
    (out / "training").mkdir(exist_ok=True)
    for model, task, frozen in language_training.CASES:
        path = out / "training" / language_training.file_name(model, task, frozen)
        language_training.make_language_training(out / model, task, frozen, path, VERSIONS)
    decoding.make_decoding(out, out / "decoding.json", VERSIONS)


def make_others(out, arguments):
    """What needs no model of this project: schedules, metrics, file formats, vocabularies."""
    schedules.make_schedules(out / "schedules.json", VERSIONS)
    metrics.make_metrics(out / "metrics.json", VERSIONS)
    classifier_metrics.make_classifier_metrics(out / "classifier-metrics.json", VERSIONS)
    run("formats.py", "--out", out / "formats")
    run("pytorch_files.py", "--out", out / "pytorch")
    run("text_metrics.py", "--out", out / "text-metrics.json")
    run("rsa.py", "--out", out)
    if arguments.older_python:
        run("vocabularies.py", "--out", out / "vocabularies", python=arguments.older_python)
    else:
        run("vocabularies.py", "--check", "--out", out / "vocabularies")


GROUPS = {"encoders": make_encoders, "decoders": make_decoders, "others": make_others}


def main():
    parser = argparse.ArgumentParser(description="Make the reference values in tests/goldens.")
    parser.add_argument("--minilm", type=Path, help="folder of the all-MiniLM-L6-v2 checkpoint, for the encoders")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens"), help="folder to write (tests/goldens)")
    parser.add_argument("--only", choices=GROUPS, help="make one group of them; all if left out")
    older = "a Python with older-requirements.txt, for vocabularies/"
    parser.add_argument("--older-python", type=Path, help=older)
    arguments = parser.parse_args()
    groups = [arguments.only] if arguments.only else list(GROUPS)
    if "encoders" in groups and arguments.minilm is None:
        parser.error("the encoders need --minilm")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    for group in groups:
        GROUPS[group](arguments.out, arguments)


if __name__ == "__main__":
    main()
