#!/usr/bin/env python3
"""Print what the quick start found: the matches of a query, and the closing table.

The figures are not measured here. They are the JSON objects that `telly --json` printed, which scripts/quickstart.sh
kept, one file a command; this page only lays them out.
"""

import argparse
import json
import sys
from pathlib import Path


def read_object(folder, name):
    """The JSON object that one command ended with."""
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))


def count_lines(path):
    """How many records a JSONL file holds; blank lines are none."""
    with open(path, encoding="utf-8") as file:
        return sum(1 for line in file if line.strip())


def in_megabytes(size):
    """A size as people read it, with the exact figure beside it."""
    return f"{size / 1e6:,.1f} MB ({size:,} bytes)"


def print_matches(arguments):
    """The best matches of each query: rank, score, where the function stands and how it begins."""
    with open(arguments.predictions, encoding="utf-8") as file:
        predictions = [json.loads(line) for line in file if line.strip()]
    for prediction in predictions:
        print(f"query: {prediction['query']}")
        for match in prediction["matches"]:
            record = match["record"]
            print(f"  {match['rank']}. {match['score']:.3f}  {record['url']}")
            print(f"            {record['code'].splitlines()[0]}")


def print_table(arguments):
    """The closing table, one figure a line."""
    zero_shot, precompute, train, trained = (
        read_object(arguments.results, name) for name in ("zero_shot", "precompute", "train", "trained")
    )
    counts = {split: count_lines(arguments.data / f"{split}.jsonl") for split in ("train", "valid", "test")}
    parts = ", ".join(f"{count:,} {split}" for split, count in counts.items())
    rows = (
        ("pairs", f"{sum(counts.values()):,} ({parts})"),
        ("tokens", f"{precompute['tokens']:,}"),
        ("activation cache", in_megabytes(precompute["bytes"])),
        ("precompute, once", f"{precompute['seconds']:.1f} s"),
        ("training, an epoch", f"{train['epoch_seconds']:.1f} s"),
        ("MRR before", f"{zero_shot['metrics']['mrr']:.3f}"),
        ("MRR after", f"{trained['metrics']['mrr']:.3f}"),
        ("all of it, after the build", f"{arguments.total_seconds} s"),
    )
    width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{width}}  {value}")


def main():
    parser = argparse.ArgumentParser(description="Print what the quick start found.")
    commands = parser.add_subparsers(dest="command", required=True)

    matches = commands.add_parser("matches", help="the best matches in a predictions file")
    matches.add_argument("predictions", type=Path, help="what `telly predict --against` wrote")
    matches.set_defaults(run=print_matches)

    table = commands.add_parser("table", help="the closing table")
    table.add_argument("--results", type=Path, required=True, help="folder of the commands' JSON objects")
    table.add_argument("--data", type=Path, required=True, help="folder of the three JSONL files")
    table.add_argument("--total-seconds", type=int, required=True, help="what the whole took after the build")
    table.set_defaults(run=print_table)

    arguments = parser.parse_args()
    try:
        arguments.run(arguments)
    except (OSError, ValueError, KeyError) as error:
        print(f"error: {type(error).__name__}: {error}; run scripts/quickstart.sh again from the start", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
