#!/usr/bin/env python3
"""Draw the rows of a case of docs/findings.md.

    scripts/bench/findings_rows.py clones --data DATA --out FOLDER

writes train.jsonl, valid.jsonl and test.jsonl. DATA holds a folder for each data set (sst2, pystd, poj104) with a file for
each split, JSON Lines, gzip or not. The seed is fixed: the same data gives the same rows.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path

from measuring import InputError, exit_with
from task_cases import DRAW_SEED, records_of, write_records


@dataclass(frozen=True)
class Case:
    """Where the rows of a case come from, and how many are taken."""

    folder: str
    fields: tuple
    """Of a record, those that are kept."""
    splits: dict
    """By the name of the split: the name of its file without endings, and how many rows are drawn."""
    group_field: str | None = None
    """Rows are drawn by groups that have this field in common."""
    rows_of_group: int = 1


CASES = {
    "sst2": Case(
        "sst2", ("sentence", "label"), {"train": ("train", 1_600), "valid": ("dev", 400), "test": ("test", 872)}
    ),
    "search": Case(
        "pystd",
        ("docstring", "code"),
        {"train": ("train", 1_200), "valid": ("valid", 300), "test": ("test", 500)},
    ),
    "clones": Case(
        "poj104",
        ("code", "label"),
        {"train": ("train", 480), "valid": ("valid", 160), "test": ("test", 320)},
        "label",
        16,
    ),
}


def drawn(case, records, count, source):
    """`count` of `records`: as they come, or `rows_of_group` of each of some groups."""
    draw = random.Random(DRAW_SEED)
    if case.group_field is None:
        groups, wanted = [[record] for record in records], count
    else:
        by_group = {}
        for record in records:
            by_group.setdefault(record[case.group_field], []).append(record)
        groups = [rows for rows in by_group.values() if len(rows) >= case.rows_of_group]
        wanted = count // case.rows_of_group
    if wanted > len(groups):
        raise InputError(f"{source} has {len(groups)} groups of {case.rows_of_group} rows, expected at least {wanted}")
    rows = [row for group in draw.sample(groups, wanted) for row in draw.sample(group, case.rows_of_group)]
    draw.shuffle(rows)
    return rows


def main():
    parser = argparse.ArgumentParser(description="Draw the rows of a case of docs/findings.md.")
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--data", type=Path, required=True, help="folder with a folder for each data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for train.jsonl, valid.jsonl and test.jsonl")
    arguments = parser.parse_args()
    case = CASES[arguments.case]
    folder = arguments.data / case.folder
    splits = {}
    for split, (name, count) in case.splits.items():
        splits[split] = drawn(case, records_of(folder, name, case.fields), count, f"{folder / name}.jsonl")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for split, rows in splits.items():
        write_records(arguments.out / f"{split}.jsonl", rows)


if __name__ == "__main__":
    exit_with(main)
