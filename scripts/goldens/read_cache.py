"""Read a Telly activation cache with NumPy, safetensors and, for bf16, ml_dtypes, and print what is in it as JSON.

    python scripts/goldens/read_cache.py cache/somewhere
"""

import argparse
import json
from pathlib import Path

import ml_dtypes  # noqa: F401  NumPy knows bfloat16 once this is imported
from safetensors.numpy import load_file


def describe(path):
    """Names, shapes and types of one shard's tensors, the sum of each one's values in float64, and that of its states.

    A file that is not what the format says stops the script: offsets begin at 0, never fall, and
    end at the number of tokens.
    """
    tensors = load_file(path)
    hidden, offsets = tensors["hidden"], tensors["offsets"]
    assert hidden.ndim == 2 and offsets[0] == 0 and offsets[-1] == len(hidden), path
    assert (offsets[1:] >= offsets[:-1]).all(), path
    assert len(tensors["ids"]) == len(hidden), path
    states = hidden.astype("float64")
    if "scales" in tensors:
        states *= tensors["scales"][:, None]
    return {
        "shard": path.name,
        "sequences": len(offsets) - 1,
        "tokens": len(hidden),
        "width": hidden.shape[1],
        "sum": float(states.sum()),
        "tensors": {
            name: {"dtype": str(tensor.dtype), "shape": list(tensor.shape), "sum": float(tensor.sum(dtype="float64"))}
            for name, tensor in sorted(tensors.items())
        },
    }


def main():
    parser = argparse.ArgumentParser(description="Print what an activation cache holds, as JSON.")
    parser.add_argument("cache", type=Path, metavar="CACHE_DIR", help="folder with manifest.json and its shards")
    folder = parser.parse_args().cache
    manifest = json.loads((folder / "manifest.json").read_text())
    shards = [describe(folder / shard["file"]) for shard in manifest["shards"]]
    print(json.dumps({"manifest": manifest, "shards": shards}, indent=2))


if __name__ == "__main__":
    main()
