#!/usr/bin/env python3
"""Measure Telly and PyTorch side by side on the understanding tasks: metric, seconds an epoch, size of the cache.

Each case takes a part of a data set, the same rows for both sides, drawn with a fixed seed. Telly: the untrained model's
metric (telly evaluate), telly precompute into a new cache, telly train. PyTorch: the frozen layers run again in every
step (scripts/bench/pytorch_tasks.py); its metrics are computed with scikit-learn and NumPy. One process at a time; what
a process gave is written to OUT/results as it ends, and the table with it.

cases, and what lies in the folder DATA:
  sard            sard/{train,test}.jsonl with `func`, `target`: accuracy
  pystd           pystd/{train,test}.jsonl with `docstring`, `code`: MRR among the codes of the part
  bcb             bcb/data.jsonl with `func`, `idx`, and bcb/{train,test}.txt: F1 of the clones, threshold 0.5
  poj104          poj104/{train,test}.jsonl with `code`, `label`: MAP@R; all-MiniLM-L6-v2, K = 4
  poj104-mpnet    the same; all-mpnet-base-v2, K = 10
All files may end in .gz. scripts/bench/task_cases.py has the settings of each.
"""

import argparse
import datetime
import json
import os
import shlex
import shutil
import sys
from pathlib import Path

from measuring import (
    CLIP,
    DROPOUT,
    ROOT,
    TELLY,
    WARMUP,
    WEIGHT_DECAY,
    exit_with,
    machine,
    names_of,
    run_process,
    telly_versions,
)
from report import megabytes, seconds, table
from task_cases import CASES, paths_of, write_part

SIDES = ["telly", "pytorch"]
METRICS = {"accuracy": "accuracy", "mrr": "MRR", "f1": "F1", "map@r": "MAP@R"}
"""What the table calls them."""


# --- running


def task_flags(case):
    """How telly is told what the records are."""
    if case.task == "search":
        query, code = case.lengths
        fields = ("--query-field", case.fields[0], "--code-field", case.fields[1])
        return ["--task", "search", *fields, "--max-query-length", query, "--max-code-length", code]
    flags = ["--task", "classify" if case.task == "classify" else "clone", "--max-length", case.lengths[0]]
    if case.task != "pairs":
        flags += ["--text-field", case.fields[0], "--label-field", case.fields[1]]
    return flags


def commands_of(case, options, folder):
    """The processes of a case, in their order: side, step, command."""
    train, test = paths_of(case, folder / "data")
    model, cache = options.models / case.model, folder / "cache"
    running = ["--threads", options.threads, "--json"]
    commands = []
    if "telly" in options.sides:
        if case.task != "classify":  # which has no classes before it is trained
            evaluate = [options.telly, "evaluate", "--model", model, *task_flags(case), "--data", test]
            commands.append(("telly", "before", [*evaluate, "--provider", "cpu", "--device", "cpu", *running]))
        precompute = [options.telly, "precompute", "--model", model, *task_flags(case), "--train", train, "--test", test]
        precompute += ["--freeze", case.freeze, "--cache", cache, "--provider", "cpu", *running]
        commands.append(("telly", "precompute", precompute))
        training = [options.telly, "train", "--cache", cache, "--out", folder / "run", "--epochs", options.epochs]
        training += ["--batch-size", case.batch_size, "--lr", case.learning_rate, "--warmup", WARMUP]
        training += ["--weight-decay", WEIGHT_DECAY, "--clip", CLIP, "--dropout", DROPOUT, "--pooling", "mean"]
        training += ["--seed", options.seed, "--device", "cpu", "--force", *running]
        commands.append(("telly", "train", training))
    if "pytorch" in options.sides:
        pytorch = [sys.executable, ROOT / "scripts/bench/pytorch_tasks.py", "--case", case.name, "--model", model]
        pytorch += ["--data", folder / "data", "--epochs", options.epochs, "--warmup", WARMUP]
        pytorch += ["--weight-decay", WEIGHT_DECAY, "--clip", CLIP, "--dropout", DROPOUT, "--seed", options.seed]
        commands.append(("pytorch", "pytorch", [*pytorch, "--threads", options.threads]))
    return commands


def run_case(case, options, keep):
    """All processes of a case; a side goes no further once one of its own has failed."""
    folder = options.out / case.name
    shutil.rmtree(folder, ignore_errors=True)
    rows = write_part(case, options.data, options.scale, folder / "data")
    failed = set()
    for side, step, command in commands_of(case, options, folder):
        if side in failed:
            continue
        print(f"{case.name}: {step} ...", end=" ", file=sys.stderr, flush=True)
        record = {"case": case.name, "rows": rows, "step": step, **run_process(command, folder / "logs" / f"{step}.log")}
        keep(record)
        if "result" not in record:
            failed.add(side)
            print(f"failed with exit status {record['exit_status']}: {record['stderr']}", file=sys.stderr)
        else:
            print(f"{record['wall_seconds']:.1f} s", file=sys.stderr)


# --- table


def points(number):
    """A share as points of a hundred; a dash where there is none."""
    return "-" if number is None else f"{100 * number:.2f}"


def row_of(case, steps):
    """A line of the table, from the results of a case's processes."""

    def found(step, *path):
        value = steps.get(step)
        for name in path:
            value = None if value is None else value.get(name)
        return value

    ours = found("train", "epoch_seconds")
    epochs = found("pytorch", "epoch_seconds")
    theirs = None if epochs is None else sum(epochs) / len(epochs)
    ratio = "-" if ours is None or theirs is None else f"{theirs / ours:.2f}"
    rows = steps["rows"]
    return [
        *(case.title, case.model, str(case.freeze), f"{rows[0]:,} / {rows[1]:,}", METRICS[case.metric]),
        f"{points(found('before', 'metrics', case.metric))} -> {points(found('train', 'test', case.metric))}",
        points(found("pytorch", "metric")),
        *("-" if number is None else seconds(number) for number in (found("precompute", "seconds"), ours, theirs)),
        ratio,
        megabytes(found("precompute", "bytes")),
    ]


def report(header, records):
    """The table and what it was measured with, as Markdown; also where both sides saw different tokens."""
    cases = {}
    versions = dict(header["versions"])
    for record in records:
        steps = cases.setdefault(record["case"], {"rows": record["rows"]})
        steps[record["step"]] = record.get("result")
        versions |= (record.get("result") or {}).get("versions", {})
    head = ["case", "model", "K", "rows, train / test", "metric", "telly, before -> after", "PyTorch, after"]
    head += ["telly precompute, s", "telly, s an epoch", "PyTorch, s an epoch", "PyTorch / telly", "cache, MB"]
    lines = table(head, [row_of(CASES[name], steps) for name, steps in cases.items()])
    lines += ["", f"- machine: {header['machine']}"]
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    for name, steps in cases.items():
        telly, pytorch = steps.get("precompute"), steps.get("pytorch")
        if telly and pytorch and telly["tokens"] != pytorch["distinct_tokens"]:
            lines.append(f"- {name}: {telly['tokens']} distinct tokens in telly, {pytorch['distinct_tokens']} in PyTorch")
    return "\n".join([*lines, "", "```sh", header["command"], "```", ""])


# --- command line


def parse():
    """The command line; paths are made absolute, as the processes run in the project's folder."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench/tasks.sh",
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="folder of the data sets")
    parser.add_argument("--cases", type=names_of(CASES), default=list(CASES), metavar="A,B", help="default: all")
    parser.add_argument("--sides", type=names_of(SIDES), default=SIDES, metavar="A,B", help="default: telly,pytorch")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of each case (default: 1)")
    parser.add_argument("--epochs", type=int, default=1, help="default: 1")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one a core")
    parser.add_argument("--models", type=Path, default=ROOT / "models", metavar="FOLDER", help="default: models")
    parser.add_argument("--out", type=Path, default=ROOT / "cache" / "tasks", metavar="FOLDER", help="default: cache/tasks")
    parser.add_argument("--telly", type=Path, default=TELLY, metavar="FILE", help="default: target/release/telly")
    parser.add_argument("--check", action="store_true", help="check the command line, telly aside, and run nothing")
    options = parser.parse_args()
    for name in ("data", "models", *([] if options.check else ["telly"])):
        if not getattr(options, name).exists():
            parser.error(f"--{name}: {getattr(options, name)} is not there")
    for name in ("data", "models", "telly", "out"):
        setattr(options, name, getattr(options, name).resolve())
    return options


def main():
    """Run the cases, print the table, and keep what was measured. Returns the exit status: 1 if a process failed."""
    options = parse()
    if options.check:
        return 0
    header = {
        "machine": machine(options.threads),
        "versions": telly_versions(options.telly),
        "command": shlex.join(["scripts/bench/tasks.sh", *sys.argv[1:]]),
    }
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    results = options.out / "results" / f"tasks-{stamp}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    records = []

    def keep(record):
        records.append(record)
        text = "".join(json.dumps(line) + "\n" for line in [header, *records])
        results.write_text(text, encoding="utf-8")
        results.with_suffix(".md").write_text(report(header, records), encoding="utf-8")

    interrupted = False
    try:
        for name in options.cases:
            run_case(CASES[name], options, keep)
    except KeyboardInterrupt:
        interrupted = True
    print(report(header, records), end="")
    print(f"kept: {results} and {results.with_suffix('.md').name}", file=sys.stderr)
    if interrupted:
        return 130
    return 0 if all("result" in record for record in records) else 1


if __name__ == "__main__":
    exit_with(main)
