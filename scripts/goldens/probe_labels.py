"""What Python itself says of functions, one JSON object a line, to compare Telly's labels with.

Usage: probe_labels.py files DIRECTORY       every function of its Python files, cut out
       probe_labels.py records FILE LIMIT    the `code` of the first records of a JSON Lines file
"""

import ast
import gzip
import io
import itertools
import json
import keyword
import pathlib
import sys
import textwrap
import tokenize
import warnings

from radon.complexity import cc_visit_ast
from radon.visitors import ComplexityVisitor

CLASSES = {tokenize.OP: "operator", tokenize.NUMBER: "number", tokenize.STRING: "string",
           tokenize.ERRORTOKEN: "error"}

# tree-sitter's kinds, and the classes of `ast` that are the same thing.
KINDS = [
    ("call", ["Call"]),
    ("if_statement elif_clause", ["If"]),
    ("conditional_expression", ["IfExp"]),
    ("for_statement", ["For", "AsyncFor"]),
    ("while_statement", ["While"]),
    ("return_statement", ["Return"]),
    ("function_definition", ["FunctionDef", "AsyncFunctionDef"]),
    ("class_definition", ["ClassDef"]),
    ("list_comprehension", ["ListComp"]),
    ("set_comprehension", ["SetComp"]),
    ("dictionary_comprehension", ["DictComp"]),
    ("generator_expression", ["GeneratorExp"]),
    ("for_in_clause", ["comprehension"]),
    ("lambda", ["Lambda"]),
    ("try_statement", ["Try", "TryStar"]),
    ("except_clause", ["ExceptHandler"]),
    ("with_statement", ["With", "AsyncWith"]),
    ("assert_statement", ["Assert"]),
    ("raise_statement", ["Raise"]),
    ("delete_statement", ["Delete"]),
    ("import_statement", ["Import"]),
    ("import_from_statement future_import_statement", ["ImportFrom"]),
    ("attribute", ["Attribute"]),
    ("comparison_operator", ["Compare"]),
    ("augmented_assignment", ["AugAssign"]),
    ("named_expression", ["NamedExpr"]),
    ("await", ["Await"]),
    ("yield", ["Yield", "YieldFrom"]),
    ("match_statement", ["Match"]),
    ("case_clause", ["match_case"]),
]


def tokens(code):
    """`[start, end, class]` in bytes, or None where `tokenize` gives up."""
    lines = io.StringIO(code).readlines()
    starts = [0, *itertools.accumulate(len(line.encode()) for line in lines)]

    def place(position):
        line, column = position
        if line > len(lines):
            return starts[-1]
        return starts[line - 1] + len(lines[line - 1][:column].encode())

    found, depth, opening = [], 0, None
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            # From Python 3.12 on an f-string comes in pieces.
            name = tokenize.tok_name[token.type]
            if name.endswith("STRING_START"):
                opening = token.start if depth == 0 else opening
                depth += 1
            elif name.endswith("STRING_END"):
                depth -= 1
                if depth == 0:
                    found.append([place(opening), place(token.end), "string"])
            elif depth > 0:
                continue
            elif token.type == tokenize.NAME:
                kind = "keyword" if keyword.iskeyword(token.string) else "identifier"
                found.append([place(token.start), place(token.end), kind])
            elif token.type in CLASSES and token.string.strip():
                found.append([place(token.start), place(token.end), CLASSES[token.type]])
    except (tokenize.TokenError, SyntaxError):
        return None
    return found


def describe(name, code):
    record = {"name": name, "code": code, "tokens": tokens(code), "nodes": None,
              "complexity": None, "function": None}
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError):
        return record
    counts = {}
    for node in ast.walk(tree):
        kind = type(node).__name__
        counts[kind] = counts.get(kind, 0) + 1
        if kind == "BoolOp":
            counts["operands"] = counts.get("operands", 0) + len(node.values) - 1
    record["nodes"] = [[kinds, sum(counts.get(name, 0) for name in names)]
                       for kinds, names in [*KINDS, ("boolean_operator", ["operands"])]]
    record["complexity"] = ComplexityVisitor.from_ast(tree).total_complexity
    # What `radon cc` shows for a text that is one function.
    blocks = cc_visit_ast(tree)
    if len(tree.body) == 1 and isinstance(tree.body[0], (ast.FunctionDef, ast.AsyncFunctionDef)):
        record["function"] = blocks[0].complexity
    return record


def functions_of(directory):
    for path in sorted(pathlib.Path(directory).rglob("*.py")):
        code = path.read_text(encoding="utf-8")
        lines = code.split("\n")
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
                text = "\n".join(lines[first - 1 : node.end_lineno]) + "\n"
                yield f"{path.name}:{node.name}", textwrap.dedent(text)


def records_of(path, limit):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(itertools.islice(lines, limit), 1):
            yield f"{number}", json.loads(line)["code"]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1] == "files":
        functions = functions_of(sys.argv[2])
    else:
        functions = records_of(sys.argv[2], int(sys.argv[3]))
    sys.stdout.reconfigure(encoding="utf-8")
    for name, code in functions:
        print(json.dumps(describe(name, code)))
