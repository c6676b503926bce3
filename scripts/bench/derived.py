#!/usr/bin/env python3
"""What `telly cache derive` costs from a cache that is not fp32: in hidden states, and in the final metric.

    .venv-test/bin/python scripts/bench/derived.py --model models/all-MiniLM-L6-v2 --train train.jsonl --test test.jsonl \\
        --task classify --from 2 --to 4 -- --epochs 1 --lr 1e-4

For each precision, caches of both depths are made from nothing, and the deeper one once more by deriving it from the
other. Printed are the differences of the deeper two as they are read back; beside them, as a measure, those of the one
made from nothing to fp32; and the metric of the test split after training from each, seed by seed. What follows `--` goes
to `telly train`; --precompute takes flags for `telly precompute`. Needs NumPy, safetensors and ml_dtypes.
"""

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 once this is imported
import numpy as np
from safetensors.numpy import load_file

ROOT = Path(__file__).resolve().parents[2]
LOSSY = ("fp16", "bf16", "int8")


def run(telly, *arguments):
    """The JSON object that a command ends with."""
    command = [str(argument) for argument in (telly, *arguments, "--json")]
    print(f"$ {shlex.join(command)}", file=sys.stderr)
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    if done.returncode != 0:
        sys.exit(f"error: {command[1]} ended with status {done.returncode}: do what it says above")
    return json.loads(done.stdout.splitlines()[-1])


def shards(cache):
    """The hidden states of each shard in float64, `[tokens, width]`."""
    manifest = json.loads((cache / "manifest.json").read_text())
    for shard in manifest["shards"]:
        tensors = load_file(cache / shard["file"])
        states = tensors["hidden"].astype("float64")
        if "scales" in tensors:
            states *= tensors["scales"][:, None]
        yield states


def rows(cache):
    """All of them, however they are laid out in shards."""
    return np.concatenate(list(shards(cache)))


def difference(one, other):
    """The largest and the mean absolute difference of two caches' states, and the mean cosine of their tokens."""
    one, other = rows(one), rows(other)
    apart = np.abs(one - other)
    cosines = (one * other).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(other, axis=1)
    return apart.max(), apart.mean(), cosines.mean()


def metrics(options, cache, run_folder):
    """The metric of the test split for each seed."""
    found = []
    for seed in options.seeds:
        flags = ["--cache", cache, "--out", run_folder, "--seed", seed, "--force", *options.flags]
        found.append(100 * run(options.telly, "train", *flags)["test"][options.metric])
    return ", ".join(f"{value:.2f}" for value in found) + f" (mean {np.mean(found):.2f})"


def measure(options, folder):
    """Makes the caches in `folder` and prints both tables."""
    first, last = options.first, options.last

    def precompute(precision):
        flags = ["--model", options.model, "--train", options.train, "--test", options.test, "--task", options.task]
        flags += ["--freeze", f"{first},{last}", "--precision", precision, "--cache", folder / precision]
        run(options.telly, "precompute", *flags, *shlex.split(options.precompute))
        return folder / precision / f"freeze-{first}", folder / precision / f"freeze-{last}"

    _, exact = precompute("fp32")
    table = [("fp32, from nothing", metrics(options, exact, folder / "run"))]
    print(f"| precision | derived {first} -> {last}, against from nothing: largest, mean, cosine | from nothing, against fp32 |")
    print("|---|---|---|")
    for precision in LOSSY:
        source, fresh = precompute(precision)
        derived = folder / f"derived-{precision}"
        run(options.telly, "cache", "derive", source, "--freeze", last, "--out", derived)
        cells = (f"{most:.1e}, {mean:.1e}, {cosine:.6f}" for most, mean, cosine in
                 (difference(derived, fresh), difference(fresh, exact)))
        print(f"| {precision} | {' | '.join(cells)} |", flush=True)
        for name, cache in ((f"{precision}, from nothing", fresh), (f"{precision}, derived", derived)):
            table.append((name, metrics(options, cache, folder / "run")))
    print(f"\n| {options.metric}, seeds {', '.join(map(str, options.seeds))} | |\n|---|---|")
    for row in table:
        print(f"| {' | '.join(row)} |")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--task", default="classify")
    parser.add_argument("--metric", default="accuracy")
    parser.add_argument("--from", dest="first", type=int, default=2, metavar="K")
    parser.add_argument("--to", dest="last", type=int, default=4, metavar="K")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--precompute", default="", metavar="FLAGS", help="as '--max-length 64'")
    parser.add_argument("--telly", type=Path, default=ROOT / "target/release/telly")
    parser.add_argument("flags", nargs="*", help="of telly train, after --")
    options = parser.parse_args()
    for name in ("model", "train", "test", "telly"):
        setattr(options, name, getattr(options, name).resolve())
    with tempfile.TemporaryDirectory() as folder:
        measure(options, Path(folder))


if __name__ == "__main__":
    main()
