#!/usr/bin/env python3
"""Lay out what scripts/bench/compare.py measured, as Markdown.

    python3 scripts/bench/report.py cache/bench/results/sst2-20260101T000000Z.jsonl

The first line of such a file says what was run and where; every other line is a process, with the JSON object that it
ended with, or the end of what it said on stderr when it failed.
"""

import argparse
import json
import statistics
from pathlib import Path

TRAINERS = ["telly", "full", "frozen", "cached"]
FROZEN_PASSES = ["telly", "precompute", "precompute-int8", "forward"]
DESCRIPTIONS = {
    "telly": "telly",
    "full": "PyTorch, full fine-tuning",
    "frozen": "PyTorch, frozen layers recomputed",
    "cached": "PyTorch, cache in memory",
    "forward": "PyTorch, fp32",
    "precompute": "telly precompute, alone",
    "precompute-int8": "telly precompute, int8",
}


# --- figures


def repeats_of(records, contender):
    """Per repeat that succeeded as a whole: step -> record."""
    repeats = {}
    for record in records:
        if record["contender"] == contender:
            repeats.setdefault(record["repeat"], {})[record["step"]] = record
    return [steps for steps in repeats.values() if all("result" in record for record in steps.values())]


def training_figures(records, contender):
    """The figures of each repeat, by the same names for every contender that trains."""
    figures = []
    for steps in repeats_of(records, contender):
        if contender == "telly":
            if "train" not in steps:
                continue
            precompute, train = steps["precompute"], steps["train"]["result"]
            one = {
                "epoch_seconds": train["epoch_seconds"],
                "precompute_seconds": precompute["result"]["seconds"],
                "precompute_peak": precompute["process_peak_rss_bytes"],
                "training_peak": train["peak_rss_bytes"],
                "trainable_parameters": train["trainable_parameters"],
                "accuracy": train["test"]["accuracy"],
                "f1": train["test"]["f1"],
            }
        else:
            train = steps[contender]["result"]
            one = {
                "epoch_seconds": statistics.median(train["epoch_seconds"]),
                "precompute_seconds": train["precompute_seconds"],
                "precompute_peak": train["precompute_peak_rss_bytes"],
                "training_peak": train["training_peak_rss_bytes"] or train["peak_rss_bytes"],
                "trainable_parameters": train["trainable_parameters"],
                "accuracy": train["accuracy"],
                "f1": train["f1"],
            }
        for epochs in (1, 3):
            one[f"seconds_for_{epochs}"] = one["precompute_seconds"] + epochs * one["epoch_seconds"]
        one["wall_seconds"] = sum(record["wall_seconds"] for record in steps.values())
        figures.append(one)
    return figures


def frozen_pass_figures(records, contender):
    """Tokens, seconds and tokens a second of the frozen pass in each repeat."""
    figures = []
    for steps in repeats_of(records, contender):
        result = steps["forward" if contender == "forward" else "precompute"]["result"]
        rate = result["tokens_per_second"]
        figures.append({"tokens": result["tokens"], "rate": rate, "seconds": result["tokens"] / rate})
    return figures


def median_of(figures, name):
    """Median over the repeats; None where there is no such figure."""
    numbers = [one[name] for one in figures if one[name] is not None]
    return statistics.median(numbers) if numbers else None


# --- table


def seconds(number):
    """Seconds to three digits or so."""
    return f"{number:,.1f}" if number >= 10 else f"{number:.3g}"


def spread(figures, name, show):
    """Median, with the least and the most where there are several."""
    numbers = [one[name] for one in figures]
    middle = show(statistics.median(numbers))
    return middle if len(numbers) == 1 else f"{middle} ({show(min(numbers))}-{show(max(numbers))})"


def megabytes(size):
    """A size in MB; a dash where there is none."""
    return "-" if size is None else f"{size / 1e6:,.0f}"


def table(head, rows):
    """Markdown lines."""
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]


def training_table(training):
    """One line a contender."""
    head = ["", "s an epoch", "precompute, s", "1 epoch in all, s", "3 epochs in all, s", "whole processes, s"]
    head += ["peak memory, MB: precompute", "training", "trainable parameters", "accuracy", "macro F1"]
    rows = [
        [
            DESCRIPTIONS[contender],
            spread(figures, "epoch_seconds", seconds),
            seconds(median_of(figures, "precompute_seconds")),
            seconds(median_of(figures, "seconds_for_1")),
            seconds(median_of(figures, "seconds_for_3")),
            seconds(median_of(figures, "wall_seconds")),
            megabytes(median_of(figures, "precompute_peak")),
            megabytes(median_of(figures, "training_peak")),
            f"{figures[0]['trainable_parameters']:,}",
            spread(figures, "accuracy", lambda share: f"{100 * share:.2f}"),
            spread(figures, "f1", lambda share: f"{100 * share:.2f}"),
        ]
        for contender, figures in training.items()
    ]
    return table(head, rows)


def ratio_table(training):
    """How many times as much as telly each of the others needs."""
    names = ["epoch_seconds", "seconds_for_1", "seconds_for_3", "wall_seconds", "training_peak"]
    head = ["times telly's", "epoch", "1 epoch in all", "3 epochs in all", "whole processes", "peak memory of training"]
    rows = [
        [DESCRIPTIONS[contender]] + [ratio(figures, training["telly"], name) for name in names]
        for contender, figures in training.items()
        if contender != "telly"
    ]
    return table(head, rows)


def ratio(figures, others, name):
    """Ratio of two medians."""
    over, under = median_of(figures, name), median_of(others, name)
    return f"{over / under:.2f}" if over is not None and under else "-"


def frozen_pass_table(passes):
    """One line a contender; the ratio is to PyTorch's tokens a second."""
    head = ["frozen pass", "tokens", "s", "tokens/s", "times PyTorch's"]
    rows = [
        [
            "telly precompute" if contender == "telly" else DESCRIPTIONS[contender],
            f"{figures[0]['tokens']:,}",
            seconds(median_of(figures, "seconds")),
            spread(figures, "rate", lambda rate: f"{rate:,.0f}"),
            ratio(figures, passes["forward"], "rate") if "forward" in passes else "-",
        ]
        for contender, figures in passes.items()
    ]
    return table(head, rows)


def seeds_line(training):
    """Accuracy by seed, for each contender."""
    parts = [
        f"{DESCRIPTIONS[contender]}: " + ", ".join(f"{100 * one['accuracy']:.2f}" for one in figures)
        for contender, figures in training.items()
    ]
    return "- accuracy by seed: " + "; ".join(parts)


NOTES = """\
- In all: precompute + epochs x the median seconds of an epoch, computed for both numbers of epochs. telly's precompute
  is the whole command, with tokenising and writing the cache; that of PyTorch's cache is the frozen half alone.
- Whole processes: measured from start to end, with imports, loading, tokenising and evaluation, for the epochs that
  ran.
- Peak memory is the kernel's high-water mark of the whole process (VmHWM), of which the imports are a part. The cached
  loop is one process: its mark is reset between precompute and training, which keeps the cache.
- PyTorch: fused AdamW, and the attention that transformers chooses."""


def report(header, records):
    """The tables and all that must be known about them, as Markdown."""
    training = {contender: training_figures(records, contender) for contender in TRAINERS}
    training = {contender: figures for contender, figures in training.items() if figures}
    passes = {contender: frozen_pass_figures(records, contender) for contender in FROZEN_PASSES}
    passes = {contender: figures for contender, figures in passes.items() if figures}
    lines = [f"## {header['case']}", "", header["settings"], ""]
    lines += [f"- machine: {header['machine']}", f"- versions: {versions(header, records)}"]
    lines += [f"- repeats: {header['repeats']}, interleaved; medians, in parentheses the least and the most"]
    lines += ["", "```sh", header["command"], "```", ""]
    if training:
        lines += [*training_table(training), ""]
    if "telly" in training and len(training) > 1:
        lines += [*ratio_table(training), ""]
    if passes:
        lines += [*frozen_pass_table(passes), ""]
    if training:
        lines += [seeds_line(training)]
    lines += [NOTES, *pytorch_notes(records), *failures(records)]
    if header.get("interrupted"):
        lines += ["- Interrupted: the repeats that were under way or to come are missing."]
    return "\n".join(lines) + "\n"


def pytorch_results(records):
    """What scripts/bench/pytorch.py printed."""
    return [record["result"] for record in records if "imports_rss_bytes" in record.get("result", {})]


def pytorch_notes(records):
    """What only the PyTorch processes know."""
    results = pytorch_results(records)
    if not results:
        return []
    imports = megabytes(median_of(results, "imports_rss_bytes"))
    notes = [f"- Attention here: {results[0]['attention']}. The imports alone take {imports} MB of each process."]
    padded = [one for one in results if one["mode"] == "frozen"]
    if padded:
        share = statistics.median(one["padded_tokens"] / one["tokens"] for one in padded)
        notes += [f"- Padding to the longest of the batch: {share:.2f} times the tokens."]
    return notes


def failures(records):
    """A note for each process that failed."""
    notes = []
    for record in records:
        if "result" not in record:
            notes += [f"- **{record['contender']}** failed in repeat {record['repeat']} with exit status"]
            notes[-1] += f" {record['exit_status']} and has no figures from there on; {record['step']} said:"
            notes += ["", *(f"      {line}" for line in record["stderr"]), ""]
    return notes


def versions(header, records):
    """Of both sides; PyTorch's are those its processes printed."""
    parts = dict(header["versions"])
    for result in pytorch_results(records)[:1]:
        parts |= result["versions"]
    return ", ".join(f"{name} {version}" for name, version in parts.items())


def main():
    """Print the table of a file of results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("results", type=Path, help="a .jsonl file of cache/bench/results/")
    header, *records = (json.loads(line) for line in parser.parse_args().results.read_text().splitlines())
    print(report(header, records), end="")


if __name__ == "__main__":
    main()
