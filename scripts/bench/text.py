#!/usr/bin/env python3
"""Measure Telly and PyTorch side by side on the tasks that write text: metrics, seconds an epoch, memory.

Each case takes a part of a data set, the same rows for both sides, drawn with a fixed seed. Telly: loss and texts of the
untrained model (telly evaluate, telly predict), telly precompute into a new cache, telly train, texts of the run. PyTorch:
the frozen layers run again in every step (scripts/bench/pytorch_text.py). Both write greedily, and telly score measures
what either wrote. One process at a time; what a process gave is written to OUT/results as it ends, and the table with it;
OUT/CASE/samples.md lays the first texts out beside what was wanted.

cases, and what lies in the folder DATA:
  conala   conala/{train,test}.jsonl with `intent` or `rewritten_intent`, `snippet`
  py150    py150/dev.jsonl with `input`, `gt`, of which a part is held out
  pystd    pystd/{train,test}.jsonl with `code`, `docstring`
All files may end in .gz. scripts/bench/text_cases.py has the settings of each.
"""

import argparse
import json
import shutil
import sys

from measuring import (
    CLIP,
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
from text_cases import CASES, read_part, write_part

SIDES = ["telly", "pytorch"]
METRICS = {
    "bleu": "BLEU",
    "em": "exact match",
    "chrf": "chrF",
    "edit_similarity": "edit similarity",
    "rouge_l": "ROUGE-L",
}
"""What the table calls them; all in percent."""
TEXTS = {"before": "telly-before.jsonl", "telly": "telly-after.jsonl", "pytorch": "pytorch/after.jsonl"}
"""Files of a case's folder that hold what was written."""


# --- running


def commands_of(case, options, folder):
    """The processes of a case, in their order: side, step, command."""
    train, test = folder / "data/train.jsonl", folder / "data/test.jsonl"
    model, cache, run = options.models / options.model, folder / "cache", folder / "run"
    running = ["--threads", options.threads, "--json"]
    task = ["--task", case.task, "--max-source-length", case.lengths[0], "--max-target-length", case.lengths[1]]
    plain = ["--model", model, *task]
    devices = ["--provider", "cpu", "--device", "cpu", *running]
    commands = []
    if "telly" in options.sides:
        judged = [options.telly, "evaluate", *plain, "--data", test, "--decode-samples", 0, *devices]
        written = [options.telly, "predict", *plain, "--input", test, "--output", folder / TEXTS["before"], *devices]
        commands += [("telly", "before", judged), ("telly", "write-before", written)]
        precompute = [options.telly, "precompute", *plain, "--train", train, "--test", test, "--freeze", options.freeze]
        commands.append(("telly", "precompute", [*precompute, "--cache", cache, "--provider", "cpu", *running]))
        training = [options.telly, "train", "--cache", cache, "--out", run, "--epochs", options.epochs, "--force"]
        training += ["--batch-size", case.batch_size, "--lr", case.learning_rate, "--warmup", WARMUP]
        training += ["--weight-decay", WEIGHT_DECAY, "--clip", CLIP, "--dropout", 0, "--seed", options.seed]
        commands.append(("telly", "train", [*training, "--device", "cpu", *running]))
        written = [options.telly, "predict", "--run", run, "--input", test, "--output", folder / TEXTS["telly"]]
        commands.append(("telly", "write-after", [*written, *devices]))
    if "pytorch" in options.sides:
        pytorch = [sys.executable, ROOT / "scripts/bench/pytorch_text.py", "--case", case.name, "--model", model]
        pytorch += ["--freeze", options.freeze, "--data", folder / "data", "--out", folder / "pytorch"]
        pytorch += ["--epochs", options.epochs, "--warmup", WARMUP, "--weight-decay", WEIGHT_DECAY, "--clip", CLIP]
        commands.append(("pytorch", "pytorch", [*pytorch, "--seed", options.seed, "--threads", options.threads]))
    for whose, file in TEXTS.items():
        if ("pytorch" if whose == "pytorch" else "telly") in options.sides:
            score = [options.telly, "score", "--task", case.task, "--references", test]
            score += ["--reference-field", case.target, "--predictions", folder / file, "--json"]
            commands.append(("pytorch" if whose == "pytorch" else "telly", f"score-{whose}", score))
    return commands


def run_case(name, options, keep):
    """All processes of a case; a side goes no further once one of its own has failed."""
    case, folder = CASES[name], options.out / name
    shutil.rmtree(folder, ignore_errors=True)
    rows = write_part(case, options.data, options.scale, folder / "data")
    failed = run_commands(case, rows, commands_of(case, options, folder), folder, keep)
    if not failed and options.sides == SIDES:
        write_samples(case, options.samples, folder)


def write_samples(case, count, folder):
    """The first texts of a case: what was asked, what was wanted, what was written before and after."""

    def read(name):
        return [json.loads(line)["prediction"] for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    written = {whose: read(name) for whose, name in TEXTS.items()}
    parts = []
    for row, (source, target) in enumerate(read_part(case, folder / "data", "test")[:count]):
        texts = {"asked": source, "wanted": target, **{f"written, {whose}": texts[row] for whose, texts in written.items()}}
        parts.append(f"### {case.title}, {row + 1}\n")
        parts += [f"{name}:\n\n```text\n{text}\n```\n" for name, text in texts.items()]
    (folder / "samples.md").write_text("\n".join(parts), encoding="utf-8")


# --- table


class Case:
    """What was measured of a case, by its steps."""

    def __init__(self, rows):
        self.rows = rows
        self.records = {}

    def found(self, step, *path):
        """A figure that a step's process gave; None where there is none."""
        value = self.records.get(step, {}).get("result")
        for name in path:
            value = None if value is None else value.get(name)
        return value

    def peak(self, step):
        """Peak memory of a step's process."""
        return self.records.get(step, {}).get("process_peak_rss_bytes")


def fixed(number, digits):
    """A number; a dash where there is none."""
    return "-" if number is None else f"{number:.{digits}f}"


def speed_row(case, measured):
    """A line of the table of times."""
    ours, epochs = measured.found("train", "epoch_seconds"), measured.found("pytorch", "epoch_seconds")
    theirs = None if epochs is None else sum(epochs) / len(epochs)
    times = (measured.found("precompute", "seconds"), ours, theirs)
    return [
        *(case.title, f"{measured.rows[0]:,} / {measured.rows[1]:,}"),
        *("-" if number is None else seconds(number) for number in times),
        "-" if ours is None or theirs is None else f"{theirs / ours:.2f}",
        *(megabytes(measured.peak("precompute")), megabytes(measured.found("train", "peak_rss_bytes"))),
        *(megabytes(measured.found("pytorch", "peak_rss_bytes")), megabytes(measured.found("precompute", "bytes"))),
    ]


def quality_row(case, measured):
    """A line of the table of metrics: of the untrained model, of telly's run, of PyTorch's."""
    losses = (
        measured.found("before", "metrics", "loss"),
        measured.found("train", "test", "loss"),
        measured.found("pytorch", "loss_before"),
        measured.found("pytorch", "loss_after"),
    )

    def texts(whose):
        return ", ".join(
            f"{METRICS[name]} {fixed(measured.found(f'score-{whose}', 'metrics', name), 2)}" for name in case.metrics
        )

    return [case.title, *(fixed(loss, 4) for loss in losses), *(texts(whose) for whose in TEXTS)]


def report(header, records):
    """The tables and what they were measured with, as Markdown."""
    cases = {}
    versions = dict(header["versions"])
    for record in records:
        cases.setdefault(record["case"], Case(record["rows"])).records[record["step"]] = record
        versions |= (record.get("result") or {}).get("versions", {})
    head = ["case", "rows, train / test", "telly precompute, s", "telly, s an epoch", "PyTorch, s an epoch"]
    head += ["PyTorch / telly", "peak memory, MB: telly precompute", "telly train", "PyTorch", "cache, MB"]
    lines = [*table(head, [speed_row(CASES[name], measured) for name, measured in cases.items()]), ""]
    head = ["case", "loss: telly before", "telly after", "PyTorch before", "PyTorch after"]
    head += ["texts before", "texts after, telly", "texts after, PyTorch"]
    lines += table(head, [quality_row(CASES[name], measured) for name, measured in cases.items()])
    lines += ["", f"- machine: {header['machine']}"]
    lines.append("- versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()))
    for name, measured in cases.items():
        tokens, padded = measured.found("pytorch", "tokens"), measured.found("pytorch", "padded_tokens")
        if tokens:
            lines.append(f"- {name}: {tokens:,} tokens an epoch, {padded / tokens:.2f} times as many with PyTorch's padding")
    return "\n".join([*lines, "", "```sh", header["command"], "```", ""])


# --- command line


def parse():
    """The command line."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="scripts/bench/text.sh",
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_case_options(parser, CASES, SIDES, epochs=2, out="text")
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="a folder of --models (SmolLM2-135M-Instruct)")
    parser.add_argument("--freeze", type=int, default=24, metavar="K", help="layers frozen, with the embeddings (24)")
    parser.add_argument("--samples", type=int, default=7, help="texts of each case that are laid out (default: 7)")
    return parse_case_options(parser)


if __name__ == "__main__":
    exit_with(lambda: measure_cases("text", parse(), run_case, report))
