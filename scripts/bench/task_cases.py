"""What scripts/bench/tasks.py measures: each case's settings, and the part of its data set that it takes."""

from __future__ import annotations

import gzip
import json
import random
from dataclasses import dataclass
from pathlib import Path

from measuring import InputError

DRAW_SEED = 1
"""Of the rows that are drawn."""


@dataclass(frozen=True)
class Case:
    """What is learnt, and with which settings."""

    name: str
    title: str
    folder: str
    task: str
    """classify, search, pairs or groups."""
    model: str
    freeze: int
    fields: tuple
    """Of the record: text and label; query and code; the functions' text and id for pairs."""
    lengths: tuple
    """Most tokens of each column of a row."""
    batch_size: int
    learning_rate: float
    train_rows: int
    test_rows: int | None
    """None: all there are."""
    metric: str
    """As telly names it."""
    rows_of_group: int = 0
    """groups: rows of each group that is taken."""


CASES = {
    case.name: case
    for case in (
        Case(
            *("sard", "`sard` defects", "sard", "classify", "all-MiniLM-L6-v2", 4, ("func", "target"), (256,)),
            *(32, 1e-4, 1_600, None, "accuracy"),
        ),
        Case(
            *("pystd", "`pystd` search", "pystd", "search", "all-MiniLM-L6-v2", 4, ("docstring", "code"), (64, 128)),
            *(64, 1e-4, 1_600, 1_000, "mrr"),
        ),
        Case(
            *("bcb", "BigCloneBench pairs", "bcb", "pairs", "all-MiniLM-L6-v2", 4, ("func", "idx"), (256, 256)),
            *(32, 1e-4, 640, 800, "f1"),
        ),
        Case(
            *("poj104", "POJ-104 retrieval", "poj104", "groups", "all-MiniLM-L6-v2", 4, ("code", "label"), (256,)),
            *(32, 1e-4, 768, 768, "map@r", 32),
        ),
        Case(
            *("poj104-mpnet", "POJ-104 retrieval", "poj104", "groups", "all-mpnet-base-v2", 10, ("code", "label")),
            *((256,), 16, 5e-5, 128, 128, "map@r", 8),
        ),
    )
}


def lines_of(folder, name):
    """Lines of the file `name` in `folder`, gzip or not."""
    plain, packed = folder / name, folder / f"{name}.gz"
    opener, path = (open, plain) if plain.exists() else (gzip.open, packed)
    try:
        with opener(path, "rt", encoding="utf-8") as lines:
            yield from lines
    except FileNotFoundError:
        raise InputError(f"neither {plain} nor {packed} is there") from None


def records_of(folder, split, fields):
    """Records of a split: `fields` alone."""
    records = []
    for number, line in enumerate(lines_of(folder, f"{split}.jsonl"), start=1):
        try:
            record = json.loads(line)
            records.append({field: record[field] for field in fields})
        except (ValueError, TypeError, KeyError):
            wanted = "` and `".join(fields)
            raise InputError(f"{folder}, {split} line {number} is no object with `{wanted}`") from None
    return records


def some_of(rows, count, source):
    """`count` of `rows`, drawn with a fixed seed; all, in their order, for None."""
    if count is None:
        return rows
    if count > len(rows):
        raise InputError(f"{source} has {len(rows)} rows, {count} are asked for")
    return random.Random(DRAW_SEED).sample(rows, count)


def groups_of(records, case, count, source):
    """Rows of as many groups as make `count`, drawn with a fixed seed: `rows_of_group` of each."""
    by_group = {}
    for record in records:
        by_group.setdefault(record[case.fields[1]], []).append(record)
    groups = [rows for rows in by_group.values() if len(rows) >= case.rows_of_group]
    chosen = some_of(groups, max(2, count // case.rows_of_group), f"{source} (groups)")
    shuffler = random.Random(DRAW_SEED)
    rows = [record for group in chosen for record in shuffler.sample(group, case.rows_of_group)]
    shuffler.shuffle(rows)
    return rows


def write_records(path, records):
    """Records as JSON Lines."""
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")


def paths_of(case, folder):
    """Where both splits of the part are."""
    ending = "txt" if case.task == "pairs" else "jsonl"
    return folder / f"train.{ending}", folder / f"test.{ending}"


def write_part(case, data, scale, folder):
    """Write the rows of both splits to `folder`, where both sides read them. Returns how many each has."""
    source = Path(data) / case.folder
    folder.mkdir(parents=True, exist_ok=True)
    counts = []
    for split, rows, path in zip(("train", "test"), (case.train_rows, case.test_rows), paths_of(case, folder)):
        wanted = None if rows is None else max(case.batch_size, round(scale * rows))
        if case.task == "pairs":
            pairs = some_of([line for line in lines_of(source, f"{split}.txt") if line.strip()], wanted, source)
            path.write_text("".join(pairs), encoding="utf-8")
            counts.append(len(pairs))
            continue
        records = records_of(source, split, case.fields)
        if case.task == "groups":
            records = groups_of(records, case, wanted, source)
        else:
            records = some_of(records, wanted, source)
        write_records(path, records)
        counts.append(len(records))
    if case.task == "pairs":
        write_records(folder / "data.jsonl", (json.loads(line) for line in lines_of(source, "data.jsonl")))
    return counts


def text_of(value):
    """A text as telly reads it: runs of white space are one space."""
    return " ".join(str(value).split())


def read_part(case, folder):
    """The part that was written -> for each split, its rows' texts (one a column) and their targets as they stand."""
    splits = []
    functions, number = {}, {}
    if case.task == "pairs":
        records = map(json.loads, (folder / "data.jsonl").read_text(encoding="utf-8").splitlines())
        functions = {str(record["idx"]): text_of(record["func"]) for record in records}
    for path in paths_of(case, folder):
        lines = path.read_text(encoding="utf-8").splitlines()
        if case.task == "pairs":
            pairs = [line.split()[:3] for line in lines]
            splits.append(([(functions[one], functions[two]) for one, two, _ in pairs], [int(pair[2]) for pair in pairs]))
            continue
        records = [json.loads(line) for line in lines]
        first, second = case.fields
        if case.task == "search":
            splits.append(([(text_of(one[first]), text_of(one[second])) for one in records], [0] * len(records)))
        else:
            labels = [number.setdefault(str(record[second]), len(number)) for record in records]
            splits.append(([(text_of(record[first]),) for record in records], labels))
    return splits
