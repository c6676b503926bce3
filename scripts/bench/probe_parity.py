"""Hold telly's class probes against scikit-learn's on the same features.

    telly probe models/all-MiniLM-L6-v2 --data train.jsonl --language python --probe lexical,structural \\
        --control labels --features features.safetensors --json > probe.json
    python scripts/bench/probe_parity.py --features features.safetensors --probe probe.json

For each layer: a logistic regression over features with mean 0 and deviation 1, its penalty chosen on every fifth
training example, as telly does it (docs/study.md). The last line on stdout is one JSON object.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy
from safetensors.numpy import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

PENALTIES = (1000.0, 100.0, 10.0, 1.0)
"""As telly tries them, the strongest first; scikit-learn's C is 1 / strength."""

PROBES = {"lexical": ("tokens", "token_classes"), "structural": ("codes", "complexities")}
"""The names of the features and of the labels of each probe in the file."""


def fitted(features, labels, penalty):
    return LogisticRegression(C=1 / penalty, tol=1e-5, max_iter=1000).fit(features, labels)


def accuracy(train, classes, test, expected):
    """The accuracy on `test` of what was learnt from `train`."""
    scaler = StandardScaler().fit(train)
    train, test = scaler.transform(train), scaler.transform(test)
    held_back = numpy.arange(len(classes)) % 5 == 4
    best = (-1.0, None)
    for penalty in PENALTIES:
        found = fitted(train[~held_back], classes[~held_back], penalty).score(train[held_back], classes[held_back])
        if found > best[0]:
            best = (found, penalty)
    return fitted(train, classes, best[1]).score(test, expected)


def main():
    parser = argparse.ArgumentParser(description="Compare telly's probes with scikit-learn's.")
    parser.add_argument("--features", type=Path, required=True, help="what telly probe --features wrote")
    parser.add_argument("--probe", type=Path, required=True, help="what telly probe --json printed")
    arguments = parser.parse_args()
    tensors = load_file(arguments.features)
    result = json.loads(arguments.probe.read_text().splitlines()[-1])
    rows = []
    for probe in result["probes"]:
        if probe["probe"] not in PROBES:
            continue
        features, labels = PROBES[probe["probe"]]
        for layer in probe["layers"]:
            number = layer["layer"]
            found = accuracy(
                tensors[f"train.{features}"][:, number].astype(numpy.float64),
                tensors[f"train.{labels}"],
                tensors[f"test.{features}"][:, number].astype(numpy.float64),
                tensors[f"test.{labels}"],
            )
            rows.append({"probe": probe["probe"], "layer": number, "telly": layer["value"], "scikit_learn": found})
            print(f"{probe['probe']} layer {number}: telly {layer['value']:.4f}, scikit-learn {found:.4f}", file=sys.stderr)
    print(json.dumps({"rows": rows, "largest_difference": max(abs(row["telly"] - row["scikit_learn"]) for row in rows)}))


if __name__ == "__main__":
    main()
