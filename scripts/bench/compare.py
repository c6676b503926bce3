#!/usr/bin/env python3
"""Measure Telly and PyTorch side by side: same machine, data, batch size and threads, one process at a time.

Every repeat runs all contenders, one after the other, with the repeat's number as the seed; so a machine that grows
slow for a while is slow for all of them. Figures are medians over the repeats.

contenders:
  telly            telly precompute, into a new cache, then telly train
  full             PyTorch, nothing frozen
  frozen           PyTorch, Telly-K with the frozen layers run again in every step
  cached           PyTorch, Telly-K over activations cached in memory by hand
  forward          PyTorch, the frozen half once over the distinct sequences: held against telly precompute
  precompute       telly precompute alone
  precompute-int8  the same, with --frozen-precision int8

The PyTorch side is scripts/bench/pytorch.py, which says how each is written. The table goes to stdout as Markdown; it
and a line of JSON for every process also go to OUT/results/.
"""

import argparse
import datetime
import gzip
import json
import os
import random
import shlex
import shutil
import sys
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from measuring import (
    CLIP,
    DROPOUT,
    ROOT,
    TELLY,
    WARMUP,
    WEIGHT_DECAY,
    InputError,
    exit_with,
    machine,
    names_of,
    run_process,
    telly_versions,
)
from report import report

PYTORCH = Path("scripts/bench/pytorch.py")

CONTENDERS = ["telly", "full", "frozen", "cached", "forward", "precompute", "precompute-int8"]
DEFAULT_CONTENDERS = CONTENDERS[:5]

SPLIT_SEED = 1
"""Of the rows that case poj104 draws."""


@dataclass(frozen=True)
class Case:
    """What is learnt, and with which settings."""

    name: str
    text_field: str
    label_field: str
    freeze: int
    max_length: int
    batch_size: int
    learning_rate: float
    train_rows: int
    test_rows: int | None
    """None: all there are."""


CASES = {
    "sst2": Case("sst2", "sentence", "label", 4, 64, 32, 1e-4, 12_800, None),
    "poj104": Case("poj104", "code", "label", 10, 256, 16, 5e-5, 512, 256),
}


# --- data


def read_records(path, case, limit=None):
    """The first `limit` records of a JSONL file, gzip or not: the case's fields alone."""
    opener = gzip.open if path.suffix == ".gz" else open
    records = []
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, limit), start=1):
            try:
                record = json.loads(line)
                records.append({field: record[field] for field in (case.text_field, case.label_field)})
            except (ValueError, TypeError, KeyError):
                fields = f"`{case.text_field}` and `{case.label_field}`"
                raise InputError(f"{path} line {number} is no JSON object with the fields {fields}") from None
    return records


def write_records(path, records):
    """Records as JSONL, for all contenders to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def deal(records, case, options):
    """Train and test rows out of one file: distinct texts, drawn with a fixed seed, every label equally often.

    Every label is in the training rows: a classifier knows no others.
    """
    records = list({record[case.text_field]: record for record in records}.values())
    shuffler = random.Random(SPLIT_SEED)
    shuffler.shuffle(records)
    by_label = {}
    for record in records:
        by_label.setdefault(str(record[case.label_field]), []).append(record)
    labels = sorted(by_label, key=lambda label: (len(label), label))[: options.classes]
    rounds = [by_label[label][turn] for turn in range(len(records)) for label in labels if turn < len(by_label[label])]
    wanted = options.train_rows + options.test_rows
    if options.train_rows < len(labels):
        raise InputError(f"--train-rows {options.train_rows} is less than the {len(labels)} labels: give each a row")
    if len(rounds) < wanted:
        raise InputError(f"{options.data} has {len(rounds)} distinct rows of those labels, {wanted} are asked for")
    train, test = rounds[: options.train_rows], rounds[options.train_rows : wanted]
    shuffler.shuffle(train)
    return train, test


def prepare_data(case, options, folder):
    """Write the rows of both splits into `folder`, where all contenders read them; their paths and a description."""
    if case.name == "poj104":
        train, test = deal(read_records(options.data, case), case, options)
    else:
        train = read_records(options.train, case, options.train_rows)
        test = read_records(options.test, case, options.test_rows)
    paths = folder / "train.jsonl", folder / "test.jsonl"
    write_records(paths[0], train)
    write_records(paths[1], test)
    classes = len({str(record[case.label_field]) for record in train})
    return *paths, f"{len(train):,} training rows, {len(test):,} test rows, {classes} classes"


# --- running


def pytorch_command(mode, case, options, train, test, seed):
    """One run of scripts/bench/pytorch.py."""
    return [
        *(sys.executable, PYTORCH, mode, "--model", options.model, "--train", train, "--test", test),
        *("--text-field", case.text_field, "--label-field", case.label_field, "--max-length", case.max_length),
        *("--freeze", case.freeze, "--epochs", options.epochs, "--batch-size", case.batch_size),
        *("--learning-rate", case.learning_rate, "--warmup", WARMUP, "--weight-decay", WEIGHT_DECAY, "--clip", CLIP),
        *("--dropout", DROPOUT, "--seed", seed, "--threads", options.threads),
    ]


def precompute_command(case, options, train, test, cache):
    """`telly precompute` of both splits."""
    return [
        *(options.telly, "precompute", "--task", "classify", "--model", options.model),
        *("--train", train, "--test", test),
        *("--text-field", case.text_field, "--label-field", case.label_field, "--max-length", case.max_length),
        *("--freeze", case.freeze, "--cache", cache, "--provider", "cpu", "--threads", options.threads, "--json"),
    ]


def train_command(case, options, cache, run, seed):
    """`telly train` over that cache."""
    return [
        *(options.telly, "train", "--cache", cache, "--out", run, "--epochs", options.epochs),
        *("--batch-size", case.batch_size, "--lr", case.learning_rate, "--warmup", WARMUP),
        *("--weight-decay", WEIGHT_DECAY, "--clip", CLIP, "--dropout", DROPOUT, "--pooling", "cls", "--seed", seed),
        *("--device", "cpu", "--threads", options.threads, "--force", "--json"),
    ]


def commands_of(contender, case, options, train, test, seed, folder):
    """What a contender runs in one repeat: names of its processes, and their commands."""
    cache, run = folder / "cache", folder / "run"
    if contender == "telly":
        return {
            "precompute": precompute_command(case, options, train, test, cache),
            "train": train_command(case, options, cache, run, seed),
        }
    if contender == "precompute":
        return {"precompute": precompute_command(case, options, train, test, cache)}
    if contender == "precompute-int8":
        command = precompute_command(case, options, train, test, cache)
        return {"precompute": [*command, "--frozen-precision", "int8"]}
    return {contender: pytorch_command(contender, case, options, train, test, seed)}


def run_contenders(case, options, train, test, folder, keep):
    """All repeats of all contenders, interleaved; `keep` gets the record of every process as it ends.

    A contender that fails is not run again, and the others go on.
    """
    failed = set()
    for repeat in range(1, options.repeats + 1):
        for contender in options.contenders:
            if contender in failed:
                continue
            shutil.rmtree(folder / "cache", ignore_errors=True)
            for step, command in commands_of(contender, case, options, train, test, repeat, folder).items():
                name = contender if step == contender else f"{contender} ({step})"
                print(f"repeat {repeat} of {options.repeats}: {name} ...", end=" ", file=sys.stderr, flush=True)
                log = folder / "logs" / f"{repeat}-{contender}-{step}.log"
                record = {"repeat": repeat, "contender": contender, "step": step, **run_process(command, log)}
                keep(record)
                if "result" not in record:
                    print(f"failed with exit status {record['exit_status']}", file=sys.stderr)
                    failed.add(contender)
                    break
                print(f"{record['wall_seconds']:.1f} s", file=sys.stderr)


def describe(case, options, data):
    """What is learnt and how, in a line."""
    seeds = ", ".join(str(repeat) for repeat in range(1, options.repeats + 1))
    return (
        f"{Path(options.model).name}, K = {case.freeze}; {data}, at most {case.max_length} tokens; CLS pooling, batch"
        f" {case.batch_size}, AdamW, learning rate {case.learning_rate:g}, warmup {100 * WARMUP:g} %, weight decay"
        f" {WEIGHT_DECAY}, clip {CLIP}, dropout {DROPOUT}, epochs: {options.epochs}, seeds: {seeds}."
    )


# --- command line


def count(text):
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def parse():
    """The command line, checked; paths are made absolute, as the contenders run in the project's folder."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench/compare.sh",
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--case", choices=CASES, required=True, help="sst2: K=4 at 64 tokens; poj104: K=10 at 256")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="all-MiniLM-L6-v2 or mpnet-base")
    parser.add_argument("--train", type=Path, metavar="FILE", help="sst2: JSONL(.gz) with `sentence` and `label`")
    parser.add_argument("--test", type=Path, metavar="FILE", help="sst2: the same")
    parser.add_argument("--data", type=Path, metavar="FILE", help="poj104: JSONL(.gz) with `code` and `label`")
    parser.add_argument("--train-rows", type=count, metavar="N", help="default: 12800 of sst2, 512 of poj104")
    parser.add_argument("--test-rows", type=count, metavar="N", help="default: all of sst2, 256 of poj104")
    parser.add_argument("--classes", type=count, metavar="N", help="poj104: the first N labels only (default: all)")
    parser.add_argument("--epochs", type=count, default=1, metavar="N", help="default: 1")
    parser.add_argument("--repeats", type=count, default=3, metavar="N", help="default: 3")
    parser.add_argument("--threads", type=count, default=os.cpu_count(), metavar="N", help="default: one a core")
    parser.add_argument(
        "--contenders",
        type=names_of(CONTENDERS),
        default=DEFAULT_CONTENDERS,
        metavar="A,B",
        help=f"in this order (default: {','.join(DEFAULT_CONTENDERS)})",
    )
    out = ROOT / "cache" / "bench"
    parser.add_argument("--out", type=Path, default=out, metavar="FOLDER", help="default: cache/bench")
    parser.add_argument("--telly", type=Path, default=TELLY, metavar="FILE", help="default: target/release/telly")
    parser.add_argument("--check", action="store_true", help="check the command line, telly aside, and run nothing")
    options = parser.parse_args()
    case = CASES[options.case]
    needed, other = ["train", "test"], ["data", "classes"]
    if case.name == "poj104":
        needed, other = ["data"], ["train", "test"]
    for name in needed:
        if getattr(options, name) is None:
            parser.error(f"--case {case.name} needs --{name}")
    for name in other:
        if getattr(options, name) is not None:
            parser.error(f"--case {case.name} does not take --{name}")
    for name in ("model", *needed, *([] if options.check else ["telly"])):
        path = getattr(options, name)
        if not path.exists():
            parser.error(f"--{name}: {path} is not there")
        setattr(options, name, path.resolve())
    options.out = options.out.resolve()
    options.train_rows = options.train_rows or case.train_rows
    options.test_rows = options.test_rows or case.test_rows
    return case, options


def main():
    """Run everything, print the table, and keep what was measured. Returns the exit status: 1 if a contender failed."""
    case, options = parse()
    if options.check:
        return 0
    folder = options.out / case.name
    train, test, data = prepare_data(case, options, folder / "data")
    header = {
        "case": case.name,
        "settings": describe(case, options, data),
        "machine": machine(options.threads),
        "versions": telly_versions(options.telly),
        "repeats": options.repeats,
        "command": shlex.join(["scripts/bench/compare.sh", *sys.argv[1:]]),
    }
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    results = options.out / "results" / f"{case.name}-{stamp}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    records = []
    with results.open("w", encoding="utf-8") as lines:

        def keep(record):
            records.append(record)
            lines.write(json.dumps(record) + "\n")
            lines.flush()

        lines.write(json.dumps(header) + "\n")
        try:
            run_contenders(case, options, train, test, folder, keep)
        except KeyboardInterrupt:
            header["interrupted"] = True
    text = report(header, records)
    results.with_suffix(".md").write_text(text, encoding="utf-8")
    print(text, end="")
    print(f"kept: {results} and {results.with_suffix('.md').name}", file=sys.stderr)
    if header.get("interrupted"):
        return 130
    return 0 if all("result" in record for record in records) else 1


if __name__ == "__main__":
    exit_with(main)
