#!/usr/bin/env python3
"""What `telly estimate` predicts against the peak resident memory of the real commands, over 12 shapes.

    .venv-bench/bin/python scripts/bench/estimate.py --telly target/release/telly

Makes random checkpoints of four families and texts of exact lengths in a temporary folder, runs `precompute` and `train`
on the CPU, and reads each process's VmHWM from its resource usage. Prints one row a shape and command, and ends with
status 1 if one is farther off than --within.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the of and to in was for on is with".split()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]

# model, frozen layers, rows a batch, tokens a text
SHAPES = [
    ("all-MiniLM-L6-v2", "4", 32, 64),
    ("all-MiniLM-L6-v2", "2", 64, 128),
    ("all-MiniLM-L6-v2", "none", 16, 64),
    ("all-mpnet-base-v2", "10", 16, 128),
    ("all-mpnet-base-v2", "6", 8, 64),
    ("all-mpnet-base-v2", "11", 16, 256),
    ("bert-512x8", "4", 32, 128),
    ("bert-256x4", "0", 64, 64),
    ("roberta-768x6", "4", 16, 128),
    ("roberta-512x6", "2", 64, 32),
    ("modernbert-768x8", "4", 16, 256),
    ("modernbert-384x6", "none", 8, 128),
]


def make(name, folder):
    """A random checkpoint called FAMILY-WIDTHxLAYERS.

    In a process of its own: a child's peak begins with that of the process that starts it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, ModernBertConfig, ModernBertModel, RobertaConfig, RobertaModel

    family, size = name.split("-")
    width, layers = (int(number) for number in size.split("x"))
    sizes = dict(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )
    if family == "bert":
        model = BertModel(BertConfig(**sizes, vocab_size=20000, intermediate_size=4 * width))
    elif family == "roberta":
        model = RobertaModel(
            RobertaConfig(**sizes, vocab_size=50265, intermediate_size=4 * width, max_position_embeddings=514, type_vocab_size=1)
        )
    else:
        model = ModernBertModel(
            ModernBertConfig(**sizes, vocab_size=50368, intermediate_size=3 * width // 2, cls_token_id=0, sep_token_id=2)
        )
    model.save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({token: place for place, token in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))


def texts(path, rows, tokens, seed):
    """Classified texts of `tokens` tokens, special ones included."""
    draw = random.Random(seed)
    with path.open("w") as file:
        for row in range(rows):
            text = " ".join(draw.choices(WORDS, k=tokens - 2))
            file.write(json.dumps({"text": text, "label": row % 2}) + "\n")


def peak(command):
    """Runs `command`; its VmHWM in bytes."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            log.seek(0)
            sys.exit(f"error: {' '.join(map(str, command))}\n{log.read().decode()}")
    return usage.ru_maxrss * 1024


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--telly", type=Path, default=ROOT / "target/release/telly")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--measured", type=Path, help="keep what is measured in this file, and take it from there if it is there")
    parser.add_argument("--within", type=float, default=0.15)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make(options.make[0], Path(options.make[1]))
    known = json.loads(options.measured.read_text()) if options.measured and options.measured.exists() else {}
    rows, worst = [], 0.0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for number, (name, freeze, batch, tokens) in enumerate(SHAPES):
            model = options.models / name
            if not model.exists():
                model = folder / name
                if not model.exists():
                    subprocess.run([sys.executable, __file__, "--make", name, model], check=True)
            train, valid = folder / "train.jsonl", folder / "valid.jsonl"
            texts(train, 4 * batch, tokens, number)
            texts(valid, batch, tokens, 1000 + number)
            cache, run = folder / f"cache-{number}", folder / f"run-{number}"
            key = f"{name} {freeze} {batch} {tokens}"
            if key not in known:
                precompute = peak([
                    options.telly, "precompute", "--task", "classify", "--model", model, "--train", train, "--valid", valid,
                    "--freeze", freeze, "--max-length", str(tokens), "--cache", cache, "--provider", "cpu",
                ])
                trained = peak([
                    options.telly, "train", "--cache", cache, "--out", run, "--epochs", "1", "--batch-size", str(batch), "--device", "cpu",
                ])
                known[key] = [precompute, trained]
                if options.measured:
                    options.measured.write_text(json.dumps(known))
            estimate = subprocess.run(
                [
                    options.telly, "estimate", "--task", "classify", "--model", model, "--freeze", freeze, "--max-length", str(tokens),
                    "--batch-size", str(batch), "--rows", str(5 * batch), "--device", "cpu", "--provider", "cpu", "--json",
                ],
                stdout=subprocess.PIPE, text=True, check=True,
            )
            predicted = json.loads(estimate.stdout.splitlines()[-1])
            for command, measured in zip(("precompute", "train"), known[key]):
                found = predicted[command]["peak_bytes"]
                error = found / measured - 1
                worst = max(worst, abs(error))
                rows.append((name, freeze, f"{batch} x {tokens}", command, found, measured, error))
                print("| {} | {} | {} | {} | {:.0f} | {:.0f} | {:+.1%} |".format(
                    *rows[-1][:4], found / 1e6, measured / 1e6, error), flush=True)
    print(f"farthest off: {worst:.1%}")
    return worst > options.within


if __name__ == "__main__":
    sys.exit(main())
