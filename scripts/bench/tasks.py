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
import shutil
import sys

from measuring import (
    CLIP,
    DROPOUT,
    ROOT,
    WARMUP,
    WEIGHT_DECAY,
    add_case_options,
    exit_with,
    measure_cases,
    parse_case_options,
    run_commands,
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


def run_case(name, options, keep):
    """All processes of a case; a side goes no further once one of its own has failed."""
    case, folder = CASES[name], options.out / name
    shutil.rmtree(folder, ignore_errors=True)
    rows = write_part(case, options.data, options.scale, folder / "data")
    run_commands(case, rows, commands_of(case, options, folder), folder, keep)


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
    """The command line."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench/tasks.sh",
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser, CASES, SIDES, epochs=1, out="tasks")
    return parse_case_options(parser)


if __name__ == "__main__":
    exit_with(lambda: measure_cases("tasks", parse(), run_case, report))
