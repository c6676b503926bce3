#!/usr/bin/env python3
"""Draw the rows of a case of docs/findings.md.

    scripts/findings/rows.py clones --data DATA --out FOLDER

writes train.jsonl, valid.jsonl and test.jsonl. DATA holds a folder for each data set (sst2, pystd, poj104) with a file for
each split, JSON Lines, gzip or not. The seed is fixed: the same data gives the same rows.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import sys
from dataclasses import dataclass
from pathlib import Path

SEED = 1
"""Of the rows that are drawn."""


@dataclass(frozen=True)
class Case:
    """Where the rows of a case come from, and how many are taken."""

    folder: str
    fields: tuple
    """Of a record, those that are kept."""
    splits: dict
    """By the name of the split: the file's name without its endings, and how many rows are drawn."""
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


class InputError(Exception):
    """The data is wrong; the message is a sentence that says how."""


def records_of(folder, name, fields):
    """Records of the file `name` in `folder`: `fields` alone."""
    plain, packed = folder / f"{name}.jsonl", folder / f"{name}.jsonl.gz"
    opener, path = (open, plain) if plain.exists() else (gzip.open, packed)
    if not path.exists():
        raise InputError(f"neither {plain} nor {packed} is there")
    records = []
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
                records.append({field: record[field] for field in fields})
            except (ValueError, TypeError, KeyError):
                wanted = "` and `".join(fields)
                raise InputError(f"{path}, line {number}: expected an object with `{wanted}`") from None
    return records


def drawn(case, records, count, source):
    """`count` of `records`: as they come, or `rows_of_group` of each of some groups."""
    draw = random.Random(SEED)
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
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (arguments.out / f"{split}.jsonl").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")
