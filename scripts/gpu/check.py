#!/usr/bin/env python3
"""What scripts/gpu-check.sh measures once everything is there: both halves on a card against the CPU, and against PyTorch.

The data are functions of this machine's Python standard library, to be told apart by the package they come from: no
network is needed. Every comparison has a bound, and fails the whole check where it is passed.

frozen half   precompute on the device in fp32 and fp16 against precompute on the CPU in fp32: the largest difference of a
              number, and the lowest cosine of a token's vector
training      the same steps on the device and on the CPU, dropout 0: the largest relative difference of a step's loss
benchmark     an epoch of Telly, its frozen pass first, beside PyTorch with nothing frozen, with frozen layers run again in
              every step, and over activations cached by hand; with the most device memory that each took

Device memory is what the driver reports for the card less what was in use before, asked ten times a second: CUDA's own
share counts, for everyone alike. On the CPU it is the process's resident memory.
"""

import argparse
import collections
import json
import os
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "bench"))

import numpy as np
from compare import CASES, Case, precompute_command, pytorch_command, train_command
from measuring import InputError, exit_with, machine, run_process, telly_versions
from safetensors.numpy import load_file

CASE = Case("packages", "text", "label", freeze=4, max_length=128, batch_size=32, learning_rate=1e-4, train_rows=0, test_rows=None)
assert CASE.name not in CASES

CLASSES = 16
"""Of the packages with the most functions."""

TEST_SHARE = 8
"""One row in so many is for the test split."""

LOWEST_COSINE = {"fp32": 0.99999, "fp16": 0.999}
"""Of a token's vector with that of the CPU in fp32: bounds for frozen passes in these precisions."""

LOSS_BOUND = 1e-2
"""Relative, of any step of the training that is compared."""

PARITY_ROWS, PARITY_EPOCHS = 256, 3
"""The training that is compared: 24 steps."""


# --- data


def write_rows(data, folder, limit):
    """Rows `text`, `label` out of the functions in `data`; paths of both splits, and one of few rows for parity."""
    rows = []
    for split in ("train", "valid", "test"):
        for line in (data / f"{split}.jsonl").read_text(encoding="utf-8").splitlines():
            pair = json.loads(line)
            rows.append({"text": pair["code"], "label": pair["module"].partition(".")[0]})
    counts = collections.Counter(row["label"] for row in rows)
    labels = {label for label, _ in counts.most_common(CLASSES)}
    rows = [row for row in rows if row["label"] in labels]
    random.Random(1).shuffle(rows)
    rows = rows[:limit]
    test, train = rows[:: TEST_SHARE], [row for place, row in enumerate(rows) if place % TEST_SHARE]
    # A label that no training row has would be an error of the data, not of what is checked.
    known = {row["label"] for row in train}
    test = [row for row in test if row["label"] in known]
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": train, "test": test, "parity": train[:PARITY_ROWS]}
    for name, part in parts.items():
        text = "".join(json.dumps(row) + "\n" for row in part)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")
    return {name: folder / f"{name}.jsonl" for name in parts}


# --- running


class Failed(Exception):
    """A command failed; the message is what it said last."""


def run(name, command, options):
    """Run a command to its end; its record, with the most device memory it took."""
    print(f"{name} ...", end=" ", file=sys.stderr, flush=True)
    with device_memory(options) as memory:
        record = run_process(command, options.out / "logs" / name.replace(" ", "-").replace(",", ""))
    if "result" not in record:
        print("failed", file=sys.stderr)
        raise Failed(f"{name} ended with exit status {record['exit_status']}: {' '.join(record['stderr'])}")
    print(f"{record['wall_seconds']:.1f} s", file=sys.stderr)
    record["peak_bytes"] = memory.get("peak") or record["process_peak_rss_bytes"]
    return record


@contextmanager
def device_memory(options):
    """Asks the driver for the card's memory while the block runs; the peak is there when it has ended, on a card."""
    memory = {}
    if options.device != "cuda":
        yield memory
        return
    query = ["nvidia-smi", "--id=0", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    before = int(subprocess.run(query, check=True, capture_output=True, text=True).stdout)
    with subprocess.Popen([*query, "-lms", "100"], stdout=subprocess.PIPE, text=True) as asking:
        try:
            yield memory
        finally:
            asking.terminate()
            readings = [int(line) for line in asking.stdout.read().split() if line.isdigit()]
            memory["peak"] = (max(readings, default=before) - before) * 2**20


def on(command, flag, value):
    """The command with another value for a flag it has."""
    command = list(command)
    command[command.index(flag) + 1] = value
    return command


# --- what is checked


def states(cache):
    """Hidden states of a cache, [tokens, width], in the order in which it keeps sequences."""
    manifest = json.loads((cache / "manifest.json").read_text())
    shards = [load_file(cache / shard["file"])["hidden"] for shard in manifest["shards"]]
    return np.concatenate(shards).astype(np.float64)


def frozen_half(paths, options):
    """Rows of the table: the frozen half on the device against the CPU."""
    folder = options.out / "caches"

    def precompute(name, provider, precision):
        command = precompute_command(CASE, options, paths["parity"], paths["test"], folder / name)
        command = [*on(command, "--provider", provider), "--precision", "fp32", "--frozen-precision", precision, "--force"]
        return run(f"frozen half {precision} on {provider}", command, options)

    precompute("reference", "cpu", "fp32")
    expected = states(folder / "reference")
    norms = np.linalg.norm(expected, axis=1)
    rows = []
    for precision, bound in LOWEST_COSINE.items():
        record = precompute(precision, options.device, precision)
        found = states(folder / precision)
        cosine = float(((expected * found).sum(1) / (norms * np.linalg.norm(found, axis=1))).min())
        largest = float(np.abs(expected - found).max())
        provider = record["result"]["provider"]
        detail = f"largest difference {largest:.1e}, lowest cosine {cosine:.7f} (bound {bound})"
        verdict = "passed" if cosine >= bound and provider == options.device else "FAILED"
        rows.append((f"frozen half in {precision} on {provider} against fp32 on the CPU", verdict, detail, record["wall_seconds"]))
    return rows


def losses(folder):
    """Loss of each step of a run."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def training(options):
    """A row of the table: the same steps on the device and on the CPU."""
    runs = {}
    for name, device, ops in (("cpu", "cpu", "auto"), ("device", options.device, "composed")):
        out = options.out / "runs" / f"parity-{name}"
        command = train_command(CASE, options, options.out / "caches" / "reference", out, 1)
        command = on(on(on(command, "--device", device), "--dropout", "0"), "--epochs", PARITY_EPOCHS)
        run(f"training on {device} by {ops}", [*command, "--ops", ops, "--log-every", "1"], options)
        runs[name] = losses(out)
    apart = max(abs(a - b) / abs(b) for a, b in zip(runs["device"], runs["cpu"], strict=True))
    detail = f"{len(runs['cpu'])} steps, losses at most {apart:.1e} apart, relative (bound {LOSS_BOUND})"
    verdict = "passed" if apart <= LOSS_BOUND else "FAILED"
    return (f"training on {options.device} against the CPU", verdict, detail, None)


def benchmark(paths, options):
    """Rows of the table: Telly beside PyTorch, on the device."""
    cache, out = options.out / "caches" / "benchmark", options.out / "runs" / "benchmark"
    precompute = precompute_command(CASE, options, paths["train"], paths["test"], cache)
    precompute = run("telly precompute", [*on(precompute, "--provider", options.device), "--force"], options)
    train = train_command(CASE, options, cache, out, 1)
    train = run("telly train", on(train, "--device", options.device), options)
    rows = [
        bench_row("Telly, frozen pass once", precompute, precompute["result"]["seconds"], None),
        bench_row("Telly, an epoch from the cache", train, train["result"]["epoch_seconds"], train["result"]["test"]["accuracy"]),
    ]
    for mode, name in (("full", "nothing frozen"), ("frozen", "frozen layers in every step"), ("cached", "cached by hand")):
        command = [*pytorch_command(mode, CASE, options, paths["train"], paths["test"], 1), "--device", options.device]
        record = run(f"PyTorch {mode}", command, options)
        epochs = record["result"]["epoch_seconds"]
        rows.append(bench_row(f"PyTorch, an epoch, {name}", record, sorted(epochs)[len(epochs) // 2], record["result"]["accuracy"]))
    return rows


def bench_row(name, record, seconds, accuracy):
    """Name, seconds, peak memory and accuracy as texts."""
    shown = "" if accuracy is None else f"{100 * accuracy:.1f} %"
    return (name, f"{seconds:.2f} s", f"{record['peak_bytes'] / 2**20:,.0f} MiB", f"{record['wall_seconds']:.1f} s", shown)


# --- the table


def table(heading, rows):
    """Markdown."""
    lines = ["| " + " | ".join(heading) + " |", "|---" * len(heading) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def cards(options):
    """The card, its driver and its memory in a line; nothing on the CPU."""
    if options.device != "cuda":
        return machine(options.threads)
    query = ["nvidia-smi", "--id=0", "--query-gpu=name,driver_version,memory.total,compute_cap", "--format=csv,noheader"]
    return subprocess.run(query, check=True, capture_output=True, text=True).stdout.strip()


def stages(path):
    """What the shell script did before: name, verdict, detail and seconds, a line each, between tabs."""
    rows = (line.split("\t") for line in path.read_text().splitlines())
    return [(name, verdict, detail, float(seconds)) for name, verdict, detail, seconds in rows]


def parse():
    """The command line; paths are made absolute, as commands run in the project's folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cuda")
    parser.add_argument("--telly", type=Path, required=True, metavar="FILE")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="what stdlib_pairs.py wrote")
    parser.add_argument("--stages", type=Path, required=True, metavar="FILE", help="what was done before")
    parser.add_argument("--before", type=float, default=0, metavar="SECONDS", help="that all of it took")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--rows", type=int, default=4096, help="of the benchmark (default: 4096)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--epochs", type=int, default=1, help="of the benchmark (default: 1)")
    options = parser.parse_args()
    for name in ("telly", "model", "data", "stages"):
        path = getattr(options, name)
        if not path.exists():
            raise InputError(f"--{name}: {path} is not there")
        setattr(options, name, path.resolve())
    options.out = options.out.resolve()
    return options


def main():
    """Everything, then one report; the exit status is 1 where a part of it failed."""
    options = parse()
    started = time.perf_counter()
    paths = write_rows(options.data, options.out / "data", options.rows)
    done, measured, ended = stages(options.stages), [], None
    try:
        done += frozen_half(paths, options)
        done.append(training(options))
        measured = benchmark(paths, options)
    except Failed as failure:
        ended = str(failure)
    seconds = options.before + time.perf_counter() - started
    rows = [(name, verdict, detail, "" if took is None else f"{took:.0f} s") for name, verdict, detail, took in done]
    versions = ", ".join(f"{name} {version}" for name, version in telly_versions(options.telly).items())
    print(f"{cards(options)}; {versions}; {seconds:.0f} s in all\n")
    print(table(["what", "verdict", "figures", "took"], rows))
    if measured:
        print(f"\n{CASE.freeze} layers of {options.model.name} frozen, batch {CASE.batch_size}, fp32:\n")
        print(table(["benchmark", "seconds", "peak memory", "whole process", "test accuracy"], measured))
    if ended:
        print(f"\nFAILED: {ended}")
    return 1 if ended or any(row[1] == "FAILED" for row in done) else 0


if __name__ == "__main__":
    exit_with(main)
