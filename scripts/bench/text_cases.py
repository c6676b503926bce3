"""What scripts/bench/text.py measures: each case's settings, the part of its data set, and its sequences of tokens."""

import json
from dataclasses import dataclass
from pathlib import Path

from task_cases import lines_of, some_of, write_records

TEMPLATES = {"summarize": "{source}\n# Summary:\n", "generate": "# {source}\n", "complete": "{source}"}
"""Prompts, as telly's (docs/tasks.md)."""


@dataclass(frozen=True)
class TextCase:
    """What is learnt to be written, and with which settings."""

    name: str
    title: str
    train: str
    """File of DATA's folder of the case that the training rows are drawn from."""
    test: str | None
    """The same for the test rows; None: the rest of those."""
    task: str
    source: tuple
    """Fields of the record; the first that is there and not null."""
    target: str
    lengths: tuple
    """Most tokens of source and target, prompt and end included."""
    train_rows: int
    test_rows: int
    metrics: tuple
    """As telly names them."""
    batch_size: int = 8
    learning_rate: float = 2e-4


CASES = {
    case.name: case
    for case in (
        TextCase(
            *("conala", "CoNaLa, generate", "train", "test", "generate", ("rewritten_intent", "intent"), "snippet"),
            *((64, 64), 640, 100, ("bleu", "em", "chrf")),
        ),
        TextCase(
            *("py150", "`py150`, complete a line", "dev", None, "complete", ("input",), "gt"),
            *((224, 32), 160, 100, ("em", "edit_similarity")),
        ),
        TextCase(
            *("pystd", "`pystd`, summarize", "train", "test", "summarize", ("code",), "docstring"),
            *((192, 64), 320, 100, ("bleu", "rouge_l")),
        ),
    )
}


def record_of(case, line):
    """The fields of a record that are read, with its source under the first of their names."""
    record = json.loads(line)
    source = next(record[field] for field in case.source if record.get(field))
    return {case.source[0]: source, case.target: record[case.target]}


def write_part(case, data, scale, folder):
    """Write the rows of both splits to `folder`, where both sides read them. Returns how many each has."""
    source = Path(data) / case.name
    folder.mkdir(parents=True, exist_ok=True)
    counts = [max(case.batch_size, round(scale * rows)) for rows in (case.train_rows, case.test_rows)]
    records = [record_of(case, line) for line in lines_of(source, f"{case.train}.jsonl")]
    if case.test is None:
        drawn = some_of(records, sum(counts), source)
        splits = drawn[: counts[0]], drawn[counts[0] :]
    else:
        others = [record_of(case, line) for line in lines_of(source, f"{case.test}.jsonl")]
        splits = some_of(records, counts[0], source), some_of(others, counts[1], source)
    for name, rows in zip(("train", "test"), splits):
        write_records(folder / f"{name}.jsonl", rows)
    return counts


def read_part(case, folder, split):
    """The rows of a split that was written: (source, target) each."""
    lines = (folder / f"{split}.jsonl").read_text(encoding="utf-8").splitlines()
    return [(record[case.source[0]], record[case.target]) for record in map(json.loads, lines)]


def code_lines(text):
    """A text of CodeXGLUE's with lines in place of its marks of them."""
    text = text.removeprefix("<s>").lstrip() if text.startswith("<s>") else text
    return text.replace(" <EOL> ", "\n").replace("<EOL>", "\n")


def encode_rows(case, tokenizer, end, rows):
    """The rows' tokens: prompt and target of each, both lists of ids; those of telly (docs/tasks.md)."""

    def ids(text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    before, after = (ids(part) for part in TEMPLATES[case.task].split("{source}"))
    start = tokenizer.encode("").ids
    completes = case.task == "complete"
    source_room = case.lengths[0] - len(start) - len(before) - len(after)
    target_room = case.lengths[1] - (0 if completes else 1)
    encoded = []
    for source, target in rows:
        if completes:
            source = code_lines(source)
            space = "" if source[-1:].isspace() else " "
            source, target = ids(source)[-source_room:], ids(f"{space}{code_lines(target)}\n")[:target_room]
        else:
            source, target = ids(source)[:source_room], [*ids(target)[:target_room], end]
        encoded.append(([*start, *before, *source, *after], target))
    return encoded
