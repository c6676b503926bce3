#!/usr/bin/env python3
"""Lay out what a model writes before and after it is trained, for inputs of this project's own.

    .venv-bench/bin/python scripts/bench/samples.py --runs cache/text --out docs/samples.md

The inputs are this project's: Python functions of scripts/ without their docstrings (summarize), the same cut within a
line, in the format of CodeXGLUE's py150 (complete), and descriptions that are written below (generate). --runs is the
folder that scripts/bench/text.py left: the run of each case lies in it.
"""

import argparse
import ast
import io
import json
import random
import subprocess
import tempfile
import textwrap
import tokenize
from pathlib import Path

from measuring import ROOT, TELLY, exit_with
from text_cases import CASES

DESCRIPTIONS = (
    ("sort a list of tuples `pairs` by their second element", "sorted(pairs, key=lambda pair: pair[1])"),
    ("count how often each word occurs in string `text`", "collections.Counter(text.split())"),
    ("read the lines of file 'notes.txt' into a list", "open('notes.txt').read().splitlines()"),
    ("get the key with the largest value of dictionary `d`", "max(d, key=d.get)"),
    ("join the strings of list `words` with commas", "', '.join(words)"),
    ("remove all digits from string `s`", "re.sub(r'\\d', '', s)"),
)
FUNCTIONS = 7
"""Of each kind."""


def functions():
    """Functions with a docstring and a few lines: (code without the docstring, the docstring)."""
    found = []
    for path in sorted((ROOT / "scripts").rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        lines = source.splitlines()
        for node in ast.walk(ast.parse(source)):
            doc = ast.get_docstring(node) if isinstance(node, ast.FunctionDef) else None
            if doc is None or not 5 <= node.end_lineno - node.lineno <= 16 or "\n" in doc:
                continue
            first, last = node.body[0].lineno, node.body[0].end_lineno
            kept = lines[node.lineno - 1 : first - 1] + lines[last : node.end_lineno]
            found.append((textwrap.dedent("\n".join(kept)), doc))
    return found


def completions(code):
    """`code` in CodeXGLUE's tokens, cut within its last line but one: (input, the rest of the line)."""
    rows = [[]]
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type == tokenize.NEWLINE:
            rows.append([])
        elif token.type == tokenize.STRING or tokenize.tok_name[token.type].startswith("FSTRING"):
            if rows[-1][-1:] != ["'<STR_LIT>'"]:
                rows[-1].append("'<STR_LIT>'")
        elif token.type == tokenize.NUMBER:
            rows[-1].append(f"<NUM_LIT:{token.string}>")
        elif token.string.strip() and token.type != tokenize.COMMENT:
            rows[-1].append(token.string)
    rows = [row for row in rows if row]
    at = max(place for place, row in enumerate(rows) if len(row) >= 4)
    cut = len(rows[at]) // 3 + 1
    before = " <EOL> ".join(" ".join(row) for row in [*rows[:at], rows[at][:cut]])
    return f"<s> {before}", " ".join(rows[at][cut:])


def records():
    """For each case its records: what is asked in the first field, what is wanted in the second."""
    drawn = random.Random(1).sample(functions(), 2 * FUNCTIONS)
    return {
        "conala": [{"intent": asked, "snippet": wanted} for asked, wanted in DESCRIPTIONS],
        "py150": [dict(zip(("input", "gt"), completions(code))) for code, _ in drawn[FUNCTIONS:]],
        "pystd": [{"code": code, "docstring": doc} for code, doc in drawn[:FUNCTIONS]],
    }


def written(telly, flags, rows):
    """What `telly predict` writes for `rows`."""
    with tempfile.TemporaryDirectory() as folder:
        source, out = Path(folder, "rows.jsonl"), Path(folder, "written.jsonl")
        source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        command = [telly, "predict", *flags, "--input", source, "--output", out, "--provider", "cpu"]
        subprocess.run([str(part) for part in command], cwd=ROOT, check=True)
        return [json.loads(line)["prediction"] for line in out.read_text(encoding="utf-8").splitlines()]


def page(options):
    """The samples as Markdown."""
    parts = []
    number = 0
    for name, rows in records().items():
        case = CASES[name]
        task = ["--task", case.task, "--max-source-length", case.lengths[0], "--max-target-length", case.lengths[1]]
        before = written(options.telly, ["--model", options.model, *task], rows)
        after = written(options.telly, ["--run", options.runs / name / "run"], rows)
        parts.append(f"## {case.title}\n")
        for row, *texts in zip(rows, before, after):
            number += 1
            asked, wanted = row.values()
            parts.append(f"### {number}\n")
            shown = zip(("asked", "wanted", "written before", "written after"), (asked, wanted, *texts))
            parts += [f"{what}:\n\n````text\n{text or '(nothing)'}\n````\n" for what, text in shown]
    return "\n".join(parts)


def main():
    """Write the page below what its file begins with."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER", help="what text.py left")
    parser.add_argument("--model", type=Path, default=ROOT / "models/SmolLM2-135M-Instruct", metavar="FOLDER")
    parser.add_argument("--telly", type=Path, default=TELLY, metavar="FILE", help="default: target/release/telly")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="its text before the first `##` stays")
    options = parser.parse_args()
    for name in ("runs", "model", "telly"):
        setattr(options, name, getattr(options, name).resolve())
    head = options.out.read_text(encoding="utf-8").partition("\n## ")[0].rstrip() if options.out.exists() else ""
    options.out.write_text(f"{head}\n\n{page(options)}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    exit_with(main)
