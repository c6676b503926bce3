"""Reference values of the metrics, out of scikit-learn and plain NumPy."""

import json

import numpy
from sklearn.metrics import accuracy_score, f1_score, precision_score, recall_score

CLASSIFICATIONS = {
    "integers": ([0, 1, 2, 2, 1, 0, 0, 2, 1, 1], [0, 2, 2, 2, 1, 0, 1, 2, 1, 0]),
    "strings": (["bug", "docs", "bug", "feature", "docs", "bug"], ["bug", "bug", "bug", "feature", "docs", "docs"]),
    "one class never predicted": ([0, 0, 1, 1, 2, 2, 2], [0, 1, 1, 1, 0, 0, 1]),
    "one class never true": (["a", "b", "a", "b", "a"], ["a", "c", "a", "b", "c"]),
    "all wrong": ([0, 0, 1, 1], [1, 1, 0, 0]),
    "all right": (["x", "y", "z"], ["x", "y", "z"]),
    "one row": ([3], [3]),
}
BINARIES = {
    "mixed": ([1, 0, 1, 1, 0, 0, 1, 0, 1, 1], [1, 1, 1, 0, 0, 0, 1, 0, 0, 1]),
    "nothing predicted positive": ([1, 0, 1, 0], [0, 0, 0, 0]),
    "nothing true positive": ([0, 0, 0, 0], [0, 1, 0, 1]),
    "everything predicted positive": ([1, 0, 1, 1, 0], [1, 1, 1, 1, 1]),
}


def classification_cases():
    """Accuracy and macro F1. Macro means over the classes that occur in the labels or in the predictions."""
    return [
        {
            "name": name,
            "labels": labels,
            "predictions": predictions,
            "accuracy": float(accuracy_score(labels, predictions)),
            "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        }
        for name, (labels, predictions) in CLASSIFICATIONS.items()
    ]


def binary_cases():
    """Precision, recall and F1 of class 1; 0 where the quotient has nothing below the line."""
    return [
        {
            "name": name,
            "labels": labels,
            "predictions": predictions,
            "accuracy": float(accuracy_score(labels, predictions)),
            "precision": float(precision_score(labels, predictions, zero_division=0)),
            "recall": float(recall_score(labels, predictions, zero_division=0)),
            "f1": float(f1_score(labels, predictions, zero_division=0)),
        }
        for name, (labels, predictions) in BINARIES.items()
    ]


def ranking_case(name, scores, right):
    """Rank of the right candidate of each query: 1 + the number of candidates with a strictly greater score."""
    scores, right = numpy.array(scores, dtype=numpy.float32), numpy.array(right)
    own = scores[numpy.arange(len(right)), right]
    ranks = 1 + (scores > own[:, None]).sum(1)
    return {
        "name": name,
        "scores": scores.astype(float).tolist(),
        "right": right.tolist(),
        "ranks": ranks.tolist(),
        "reciprocal_ranks": (1 / ranks).tolist(),
        "mrr": float((1 / ranks).mean()),
        "recall": {str(depth): float((ranks <= depth).mean()) for depth in (1, 5, 10)},
    }


def ranking_cases():
    """Small by hand, ties, and two random matrices; scores are multiples of 1/64, so float32 holds them exactly."""
    generator = numpy.random.default_rng(5)
    square = generator.integers(-64, 65, (12, 12)) / 64
    wide = generator.integers(-8, 9, (6, 25)) / 64
    return [
        ranking_case("by hand", [[0.5, 0.25, -1.0], [0.75, 0.5, 0.25], [0.5, 0.25, 0.0]], [0, 1, 2]),
        ranking_case("all tied", [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]], [0, 2]),
        ranking_case("tied at the top and below", [[0.5, 0.5, 0.25, 0.25], [0.25, 0.5, 0.5, 0.25]], [1, 3]),
        ranking_case("square, diagonal right", square, range(12)),
        ranking_case("wide, with ties", wide, generator.integers(0, 25, 6)),
        ranking_case("one candidate", [[-0.5]], [0]),
    ]


def make_metrics(path, versions):
    """One JSON object, a case a line."""
    cases = {
        "classification": classification_cases(),
        "binary": binary_cases(),
        "ranking": ranking_cases(),
    }
    texts = [f'  "versions": {json.dumps(versions)}']
    for kind, rows in cases.items():
        texts.append(f'  "{kind}": [\n    ' + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]")
    path.write_text("{\n" + ",\n".join(texts) + "\n}\n")
