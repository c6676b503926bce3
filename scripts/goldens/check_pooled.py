"""Compare two folders of `telly precompute --pooled` with NumPy, as `telly rsa` does.

    python scripts/goldens/check_pooled.py FIRST SECOND

Prints one JSON object: what the files hold, and of each layer Pearson's correlation of the cosines of all pairs of texts.
"""

import argparse
import json
from pathlib import Path

import numpy as np
from safetensors import safe_open


def read(folder):
    with safe_open(folder / "pooled.safetensors", framework="numpy") as file:
        layers = sum(name.startswith("layer.") for name in file.keys())
        vectors = [file.get_tensor(f"layer.{layer}") for layer in range(layers)]
        return vectors, file.get_tensor("texts"), json.loads(file.metadata()["telly"])


def cosines(vectors):
    vectors = vectors.astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return (vectors @ vectors.T)[np.triu_indices(len(vectors), k=1)]


def main():
    parser = argparse.ArgumentParser(description="Compare two folders of telly precompute --pooled with NumPy.")
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    arguments = parser.parse_args()
    first, texts, source = read(arguments.first)
    second, other_texts, _ = read(arguments.second)
    found = {
        "shapes": [list(vectors.shape) for vectors in first],
        "dtypes": sorted({str(vectors.dtype) for vectors in first}),
        "texts": [list(texts.shape), str(texts.dtype)],
        "same_texts": bool((texts == other_texts).all()),
        "max_length": source["source"]["max_length"],
        "pearson": [float(np.corrcoef(cosines(a), cosines(b))[0, 1]) for a, b in zip(first, second, strict=True)],
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
