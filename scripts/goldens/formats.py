"""Make tests/goldens/formats: the same rows in every format that data may come in, written by pandas and pyarrow.

    python scripts/goldens/formats.py

Python's own json writes the JSON, pandas the tables, pyarrow the Parquet files. A second run writes the same bytes.
"""

import argparse
import gzip
import json
from pathlib import Path

import pandas
import pyarrow
from pyarrow import parquet

TEXTS = [
    "return x",
    'print("hello, world")',
    "a,b;c\td",
    "first line\nsecond line\r\nthird",
    '"quoted"',
    'ends with a quote"',
    "ünïcode 😀 \u2028 end",
    "",
    "  spaces   around  ",
    "back\\slash \\n \\\" and 'single'",
    "the label is 1",
    "# no comment\n\n\nblank lines within",
    "return " * 90,
]


def make_rows():
    rows = []
    for place, text in enumerate(TEXTS * 2):
        rows.append({"text": text, "label": place % 3 - 1, "score": None if place % 5 == 0 else place / 8, "flag": place % 2 == 0})
    return rows


def make_tokens():
    """A search task's rows with lists of tokens, as CodeSearchNet has them."""
    return [
        {"docstring_tokens": text.split()[:5] or ["nothing"], "code_tokens": ["def", f"f{place}", "(", ")", ":", *text.split()]}
        for place, text in enumerate(TEXTS)
    ]


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8", newline="")


def pack(path, name):
    content = path.read_bytes()
    with open(path.with_name(path.name + ".gz"), "wb") as file:
        with gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed:
            packed.write(content)
    with pyarrow.CompressedOutputStream(str(path.with_name(name)), "zstd") as packed:
        packed.write(content)


def write_parquet(out, rows):
    table = pyarrow.Table.from_pylist(rows)
    parquet.write_table(table, out / "rows.snappy.parquet")
    parquet.write_table(table, out / "rows.gzip.parquet", compression="gzip", use_dictionary=False)
    parquet.write_table(table, out / "rows.zstd.parquet", compression="zstd", data_page_version="2.0", row_group_size=3)
    narrow = {"text": pyarrow.large_string(), "label": pyarrow.int8(), "score": pyarrow.float32(), "flag": pyarrow.bool_()}
    narrow = table.cast(pyarrow.schema(list(narrow.items())))
    parquet.write_table(narrow, out / "rows.plain.parquet", compression="none", use_dictionary=False, data_page_size=64, write_batch_size=2)
    binary = table.set_column(0, "text", table["text"].cast(pyarrow.binary()))
    parquet.write_table(binary, out / "rows.binary.parquet", store_schema=False)
    parquet.write_table(table, out / "rows.brotli.parquet", compression="brotli")
    # With row numbers, and a column of few distinct texts.
    frame = pandas.DataFrame(rows[3:] + rows[:3]).astype({"text": "category"})
    frame.index = [*range(3, len(rows)), 0, 1, 2]
    frame.sort_index().to_parquet(out / "rows.pandas.parquet")


def main():
    parser = argparse.ArgumentParser(description="Make tests/goldens/formats.")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/formats"), help="folder to write (tests/goldens/formats)")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    rows = make_rows()
    write_lines(out / "rows.jsonl", rows)
    pack(out / "rows.jsonl", "rows.jsonl.zst")
    (out / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8", newline="")
    frame = pandas.DataFrame(rows)
    frame.to_csv(out / "rows.csv", index=False, lineterminator="\r\n")
    pack(out / "rows.csv", "rows.csv.zst")
    frame.to_csv(out / "rows.tsv", sep="\t", lineterminator="\n")
    write_parquet(out, rows)
    tokens = make_tokens()
    write_lines(out / "tokens.jsonl", tokens)
    parquet.write_table(pyarrow.Table.from_pylist(tokens), out / "tokens.parquet", row_group_size=4)


if __name__ == "__main__":
    main()
