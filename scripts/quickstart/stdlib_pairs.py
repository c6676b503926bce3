#!/usr/bin/env python3
"""Write docstring -> function pairs out of the Python standard library on this machine.

Why the standard library: it is real code with real descriptions, it lies on every machine that has Python, and reading
it needs no network. Each line of the three files is one JSON object:

    {"docstring": ..., "code": ..., "func_name": ..., "module": ..., "url": ...}

`docstring` is the first paragraph of the function's docstring, `code` its source with the docstring cut out (left in,
the search would be a string match), `url` a name of its own such as `heapq.py#merge`. The names are CodeSearchNet's.

A pair is kept when the paragraph has at least 3 words and is no `>>>` example, the source without the docstring has at
least 3 lines that are not blank, and neither of the two was seen before. As in CodeSearchNet, tests and the likes of
`__init__` are left out: what is said about them ("see help(type(self))") does not tell them apart.

The same Python gives the same files, byte for byte.
"""

import argparse
import ast
import hashlib
import json
import os
import sys
import sysconfig
import tokenize
import warnings
from pathlib import Path

MINIMUM_WORDS = 3
MINIMUM_LINES = 3

# Folders that are not library code: test suites, an editor, and what was installed or compiled beside the library.
SKIPPED_FOLDERS = frozenset({"test", "tests", "idlelib", "site-packages", "dist-packages", "__pycache__"})

# A module goes where sha256(SPLIT_SALT + its top-level name) falls in [0, 1). Modules differ much in size, so the salt
# was chosen by counting pairs: on Python 3.9 to 3.13 the parts come out near these bounds, no module is more than a
# tenth of the test part, and `heapq`, which answers the README's example query, lies in that part, never trained on.
SPLIT_SALT = "13153:"
SPLIT_BOUNDS = (("train", 0.80), ("valid", 0.87), ("test", 1.0))


def is_test_name(name):
    """Whether a module, folder or function is named like a test (`test_heap`, `_testcapi`, `TestProgram.py`)."""
    return name.lstrip("_").lower().startswith("test")


def is_special_name(name):
    """Whether Python itself calls the method by this name (`__init__`, `__repr__`)."""
    return name.startswith("__") and name.endswith("__")


def library_files(root):
    """The library's source files as sorted relative paths, so that the order does not depend on the file system."""
    files = []
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name not in SKIPPED_FOLDERS and not is_test_name(name)]
        for name in names:
            if name.endswith(".py") and not is_test_name(name):
                files.append((Path(folder) / name).relative_to(root))
    return sorted(files, key=lambda path: path.as_posix())


def tree_of(text):
    """The syntax tree of a source text; None where this Python cannot parse it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except (SyntaxError, ValueError):
        return None


def functions(body, prefix=""):
    """Yield (qualified name, node) of functions and methods, in source order.

    Looks into classes and into `if`, `try` and `with`, where the library hides its fallbacks; not into functions, whose
    inner functions are part of the outer one's code already.
    """
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from functions(node.body, f"{prefix}{node.name}.")
        else:
            for field in ("body", "handlers", "orelse", "finalbody"):
                yield from functions(getattr(node, field, []), prefix)


def first_paragraph(node):
    """The docstring up to its first blank line, white space collapsed; empty where there is none."""
    docstring = ast.get_docstring(node, clean=True) or ""
    lines = []
    for line in docstring.strip().split("\n"):
        if not line.strip():
            break
        lines.append(line)
    return " ".join(" ".join(lines).split())


def code_without_docstring(node, lines):
    """The function's own source from `def` on, dedented, without its docstring; None where that is not to be had.

    Works on line and column numbers instead of `ast.unparse`, so that comments, quotes and line breaks stay as written.
    `lines` are UTF-8 bytes because the columns of `ast` count those.
    """
    if len(node.body) < 2:
        return None
    docstring, start = node.body[0], node.lineno - 1
    first, last = docstring.lineno - 1, docstring.end_lineno - 1
    before = lines[first][: docstring.col_offset].strip()
    after = lines[last][docstring.end_col_offset :].strip()
    if before or (after and not after.startswith(b"#")):
        return None
    rest = lines[last + 1 : node.end_lineno]
    while rest and not rest[0].strip():
        rest = rest[1:]
    indent = lines[start][: node.col_offset]
    kept = [line[len(indent) :] if line.startswith(indent) else line for line in lines[start:first] + rest]
    code = b"\n".join(kept).decode("utf-8")
    return code if tree_of(code) else None


def pairs_of_file(root, path):
    """Yield the pairs of one file that are long enough, duplicates not yet dropped."""
    try:
        # Minds the file's declared encoding, and makes every line end a plain one.
        with tokenize.open(root / path) as file:
            text = file.read()
    except (SyntaxError, UnicodeDecodeError):
        return
    tree = tree_of(text)
    if tree is None:
        return
    lines = text.encode("utf-8").split(b"\n")
    module = ".".join(part for part in path.with_suffix("").parts if part != "__init__")
    seen_names = {}
    for name, node in functions(tree.body):
        docstring = first_paragraph(node)
        # What cannot be printed (lone surrogates, control characters) cannot be typed as a query either.
        if len(docstring.split()) < MINIMUM_WORDS or docstring.startswith(">>>") or not docstring.isprintable():
            continue
        if is_test_name(node.name) or is_special_name(node.name):
            continue
        code = code_without_docstring(node, lines)
        if code is None or sum(1 for line in code.split("\n") if line.strip()) < MINIMUM_LINES:
            continue
        # A getter and its setter share one name; so do the two branches of an `if`.
        count = seen_names[name] = seen_names.get(name, 0) + 1
        url = f"{path.as_posix()}#{name}" + (f".{count}" if count > 1 else "")
        yield {"docstring": docstring, "code": code, "func_name": name, "module": module, "url": url}


def distinct_pairs(root):
    """All pairs in a fixed order; of those with the same docstring or the same code only the first."""
    docstrings, codes = set(), set()
    for path in library_files(root):
        for pair in pairs_of_file(root, path):
            if pair["docstring"] not in docstrings and pair["code"] not in codes:
                docstrings.add(pair["docstring"])
                codes.add(pair["code"])
                yield pair


def split_of(module):
    """The part a module belongs to: whole top-level modules, so that no part has seen a neighbour of another's code."""
    name = module.partition(".")[0]
    digest = hashlib.sha256((SPLIT_SALT + name).encode("utf-8")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    return next(split for split, bound in SPLIT_BOUNDS if position < bound)


def write_lines(path, pairs):
    """Write a JSONL file under a temporary name, then rename it: an interrupted run leaves no half file."""
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "w", encoding="utf-8", newline="\n") as file:
        for pair in pairs:
            file.write(json.dumps(pair, ensure_ascii=False) + "\n")
    os.replace(temporary, path)


def main():
    parser = argparse.ArgumentParser(
        description="Write docstring -> function pairs out of this machine's Python standard library.",
        epilog="Writes train.jsonl, valid.jsonl and test.jsonl; whole modules go to one of the three.",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="folder for the three files")
    arguments = parser.parse_args()

    root = Path(sysconfig.get_path("stdlib"))
    splits = {split: [] for split, _ in SPLIT_BOUNDS}
    for pair in distinct_pairs(root):
        splits[split_of(pair["module"])].append(pair)
    empty = [split for split, pairs in splits.items() if not pairs]
    if empty:
        print(
            f"error: no pairs for {', '.join(empty)} in {root}; "
            "install Python's full standard library (its .py files) or run this with another Python",
            file=sys.stderr,
        )
        return 1
    try:
        arguments.out.mkdir(parents=True, exist_ok=True)
        for split, pairs in splits.items():
            write_lines(arguments.out / f"{split}.jsonl", pairs)
    except OSError as error:
        print(f"error: {error}; choose a folder that can be written with --out", file=sys.stderr)
        return 1
    counts = ", ".join(f"{split} {len(pairs)}" for split, pairs in splits.items())
    total = sum(len(pairs) for pairs in splits.values())
    print(f"{total} pairs from Python {sys.version.split()[0]}: {counts} -> {arguments.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
