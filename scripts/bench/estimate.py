#!/usr/bin/env python3
"""What `telly estimate` tells against the peak resident memory of the real commands.

    .venv-bench/bin/python scripts/bench/estimate.py --telly target/release/telly

Makes random checkpoints of five families and texts of exact lengths in a temporary folder, runs `precompute` and `train`
on the CPU, and reads each process's high-water mark (VmHWM) from its resource usage. Prints a row a shape and command, and
ends with status 1 if one is farther off than --within.

--set shown: the twelve shapes of docs/low-memory.md, none of which a constant was fitted to. fit: those that the constants of
precompute come from. composed: candle's own operations. varied: texts of any length up to the longest.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORDS = "the of and to in was for on is with".split()
SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]

# model, frozen layers, rows a batch, tokens a text
SHAPES = {
    "shown": [
        ("all-MiniLM-L6-v2", "3", 32, 96),
        ("all-MiniLM-L6-v2", "0", 16, 128),
        ("all-MiniLM-L6-v2", "none", 32, 48),
        ("all-mpnet-base-v2", "9", 8, 192),
        ("all-mpnet-base-v2", "8", 32, 64),
        ("all-mpnet-base-v2", "none", 4, 128),
        ("bert-640x6", "3", 24, 128),
        ("bert-384x12", "10", 64, 64),
        ("roberta-512x8", "6", 16, 256),
        ("distilbert-768x6", "4", 16, 128),
        ("modernbert-512x10", "6", 32, 96),
        ("modernbert-768x6", "1", 8, 256),
    ],
    "fit": [
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
    ],
    "composed": [
        ("all-MiniLM-L6-v2", "4", 16, 64),
        ("all-MiniLM-L6-v2", "none", 8, 64),
        ("all-mpnet-base-v2", "10", 8, 128),
        ("modernbert-512x10", "8", 8, 192),
    ],
    "varied": [
        ("all-MiniLM-L6-v2", "0", 32, 128),
        ("all-MiniLM-L6-v2", "2", 32, 128),
        ("all-mpnet-base-v2", "10", 16, 256),
    ],
}


def make(name, folder):
    """A random checkpoint called FAMILY-WIDTHxLAYERS.

    In a process of its own: a child's peak begins with that of the process that starts it.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    import transformers as hf

    family, size = name.split("-")
    width, layers = (int(number) for number in size.split("x"))
    sizes = dict(
        hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64, pad_token_id=1, bos_token_id=0, eos_token_id=2,
    )
    wide = dict(intermediate_size=4 * width)
    if family == "bert":
        model = hf.BertModel(hf.BertConfig(**sizes, **wide, vocab_size=20000))
    elif family == "roberta":
        positions = dict(max_position_embeddings=514, type_vocab_size=1)
        model = hf.RobertaModel(hf.RobertaConfig(**sizes, **wide, **positions, vocab_size=50265))
    elif family == "distilbert":
        config = dict(dim=width, n_layers=layers, n_heads=width // 64, hidden_dim=4 * width, pad_token_id=1)
        model = hf.DistilBertModel(hf.DistilBertConfig(**config, vocab_size=20000))
    else:
        config = dict(vocab_size=50368, intermediate_size=3 * width // 2, cls_token_id=0, sep_token_id=2)
        model = hf.ModernBertModel(hf.ModernBertConfig(**sizes, **config))
    model.save_pretrained(folder)
    tokens = SPECIAL + WORDS
    # As many as the model knows, as a real one has.
    tokens += [f"word{number}" for number in range(len(tokens), model.config.vocab_size)]
    tokenizer = Tokenizer(models.WordLevel({token: place for place, token in enumerate(tokens)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.save(str(folder / "tokenizer.json"))


def texts(path, rows, tokens, seed, varied):
    """Classified texts of `tokens` tokens, special ones included, or of any number from 16 up to that; how many in all."""
    draw = random.Random(seed)
    lengths = [draw.randint(16, tokens) if varied and row else tokens for row in range(rows)]
    with path.open("w") as file:
        for row, length in enumerate(lengths):
            text = " ".join(draw.choices(WORDS, k=length - 2))
            file.write(json.dumps({"text": text, "label": row % 2}) + "\n")
    return sum(lengths)


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
    parser.add_argument("--estimator", type=Path, help="the telly that tells [default: --telly]")
    parser.add_argument("--set", choices=SHAPES, default="shown")
    parser.add_argument("--models", type=Path, default=ROOT / "models")
    parser.add_argument("--made", type=Path, help="keep the random checkpoints in this folder")
    parser.add_argument("--measured", type=Path, help="keep what is measured in this file, and take it from there if it is there")
    parser.add_argument("--within", type=float, default=0.15)
    parser.add_argument("--only", choices=["precompute"], help="leave `train` out")
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        return make(options.make[0], Path(options.make[1]))
    measured = options.measured
    known = json.loads(measured.read_text()) if measured and measured.exists() else {}
    varied, worst = options.set == "varied", 0.0
    ops = ["--ops", "composed"] if options.set == "composed" else []
    print("| model | K | batch | command | told, MB | measured, MB | |")
    print("|---|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        made = options.made or folder
        for number, (name, freeze, batch, tokens) in enumerate(SHAPES[options.set]):
            model = options.models / name
            if not model.exists():
                model = made / name
                if not model.exists():
                    subprocess.run([sys.executable, __file__, "--make", name, model], check=True, stderr=subprocess.DEVNULL)
            train, valid = folder / "train.jsonl", folder / "valid.jsonl"
            count = 16 if varied else 4
            in_training = texts(train, count * batch, tokens, number, varied)
            texts(valid, batch, tokens, 1000 + number, varied)
            cache, run = folder / f"cache-{number}", folder / f"run-{number}"
            key = f"{options.set} {name} {freeze} {batch} {tokens}"
            if key not in known:
                precompute = peak([
                    options.telly, "precompute", "--task", "classify", "--model", model, "--train", train, "--valid", valid,
                    "--freeze", freeze, "--max-length", str(tokens), "--cache", cache, "--provider", "cpu",
                ])
                # Two epochs: the second time the best weights are kept there are some already.
                trained = None if options.only else peak([
                    options.telly, "train", "--cache", cache, "--out", run, "--epochs", "2", "--batch-size", str(batch),
                    "--device", "cpu", "--lr", "1e-4", *ops,
                ])
                known[key] = [precompute, trained]
                if measured:
                    measured.write_text(json.dumps(known))
                shutil.rmtree(cache)
                if trained:
                    shutil.rmtree(run)
            estimate = subprocess.run(
                [
                    options.estimator or options.telly, "estimate", "--task", "classify", "--model", model, "--freeze", freeze,
                    "--max-length", str(tokens), "--mean-length", str(in_training / (count * batch)), "--batch-size", str(batch),
                    "--rows", str((count + 1) * batch), "--device", "cpu", "--provider", "cpu", "--json", *ops,
                ],
                stdout=subprocess.PIPE, text=True, check=True,
            )
            told = json.loads(estimate.stdout.splitlines()[-1])
            for command, found in zip(("precompute", "train"), known[key]):
                if command == "precompute" and options.set in ("composed", "varied") or found is None:
                    continue
                peak_bytes = told[command]["peak_bytes"]
                error = peak_bytes / found - 1
                worst = max(worst, abs(error))
                print(
                    f"| {name} | {freeze} | {batch} x {tokens} | {command} | {peak_bytes / 1e6:,.0f} | {found / 1e6:,.0f}"
                    f" | {error:+.1%} |",
                    flush=True,
                )
    print(f"farthest off: {worst:.1%}")
    return worst > options.within


if __name__ == "__main__":
    sys.exit(main())
