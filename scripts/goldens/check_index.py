"""Search an index that `telly index` made with NumPy alone, and compare with what `telly predict --index` found.

    python scripts/goldens/check_index.py INDEX EMBEDDINGS FOUND

EMBEDDINGS is what `telly predict` says of the queries without an index, FOUND what it says with one.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

TOLERANCE = 1e-5


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(description="Compare telly predict --index with NumPy.")
    parser.add_argument("index", type=Path)
    parser.add_argument("embeddings", type=Path)
    parser.add_argument("found", type=Path)
    arguments = parser.parse_args()
    vectors = load_file(arguments.index / "vectors.safetensors")["vectors"].astype(np.float64)
    records = lines(arguments.index / "records.jsonl")
    starts = load_file(arguments.index / "offsets.safetensors")["offsets"]
    text = (arguments.index / "records.jsonl").read_bytes()
    for number, record in enumerate(records):
        if json.loads(text[starts[number] : starts[number + 1]]) != record:
            sys.exit(f"record {number} is not where offsets.safetensors says")
    queries = np.array([line["embedding"] for line in lines(arguments.embeddings)])
    scores = queries @ vectors.T
    furthest = 0.0
    for query, line in enumerate(lines(arguments.found)):
        best = np.sort(scores[query])[::-1]
        for match in line["matches"]:
            exact = scores[query, match["index"]]
            # Records of nearly equal scores may change places, scores may not.
            furthest = max(furthest, abs(match["score"] - exact), abs(best[match["rank"] - 1] - exact))
            if records[match["index"]] != match["record"]:
                sys.exit(f"query {query}: record {match['index']} is another one")
    if furthest > TOLERANCE:
        sys.exit(f"scores are up to {furthest} off")
    print(f"{len(queries)} queries, {len(vectors)} vectors: scores at most {furthest:.1e} off")


if __name__ == "__main__":
    main()
