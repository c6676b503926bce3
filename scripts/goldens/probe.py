"""What linear probes find in made-up features, out of scikit-learn.

    python scripts/goldens/probe.py --out tests/goldens
"""

import argparse
import json
from pathlib import Path

import numpy
import sklearn
from safetensors.numpy import save_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

CLASSES = 4
WIDTH = 12
EXAMPLES = {"train": 300, "test": 400}
# How far apart the classes are in each layer, beside noise of 1: not at all, a little, more.
SEPARATIONS = (0.0, 0.7, 1.5)
# As telly tries them; scikit-learn's C is 1 / strength.
PENALTIES = (1000.0, 100.0, 10.0, 1.0)
# Features are as large as this: a probe is to put them on one scale.
SCALES = numpy.geomspace(0.02, 50, WIDTH)


def make_split(generator, examples, centres):
    """Features [examples, layers, width] and their classes."""
    classes = generator.integers(0, CLASSES, examples)
    noise = generator.standard_normal((examples, len(SEPARATIONS), WIDTH))
    separations = numpy.array(SEPARATIONS)[None, :, None]
    features = (noise + separations * centres[classes][:, None, :]) * SCALES + SCALES
    # Rounded, so that the file packs well and the numbers are the same everywhere.
    return features.astype(numpy.float16), classes.astype(numpy.int64)


def score(features, train, test):
    """The accuracy of a logistic regression whose penalty is the one that is best on every fifth training example."""
    scaler = StandardScaler().fit(features["train"])
    features = {split: scaler.transform(vectors) for split, vectors in features.items()}
    held_back = numpy.arange(len(train)) % 5 == 4
    best = (-1.0, None)
    for strength in PENALTIES:
        probe = LogisticRegression(C=1 / strength, tol=1e-6, max_iter=10_000)
        probe.fit(features["train"][~held_back], train[~held_back])
        found = probe.score(features["train"][held_back], train[held_back])
        if found > best[0]:
            best = (found, strength)
    probe = LogisticRegression(C=1 / best[1], tol=1e-6, max_iter=10_000).fit(features["train"], train)
    print(f"penalty {best[1]}")
    return probe.score(features["test"], test)


def main():
    parser = argparse.ArgumentParser(description="Make probe.safetensors.")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens"), help="folder of the goldens (tests/goldens)")
    arguments = parser.parse_args()
    generator = numpy.random.default_rng(21)
    centres = generator.standard_normal((CLASSES, WIDTH)) / 2
    tensors = {}
    for split, examples in EXAMPLES.items():
        tensors[f"{split}.features"], tensors[f"{split}.classes"] = make_split(generator, examples, centres)
    accuracies = []
    for layer in range(len(SEPARATIONS)):
        features = {split: tensors[f"{split}.features"][:, layer].astype(numpy.float64) for split in EXAMPLES}
        accuracies.append(score(features, tensors["train.classes"], tensors["test.classes"]))
    tensors["accuracies"] = numpy.array(accuracies)
    versions = {"numpy": numpy.__version__, "scikit-learn": sklearn.__version__}
    path = arguments.out / "probe.safetensors"
    save_file(tensors, path, {"versions": json.dumps(versions)})
    path.chmod(0o644)
    print(f"{path.name}: accuracies {accuracies}")


if __name__ == "__main__":
    main()
