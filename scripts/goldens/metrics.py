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


def random_classes(seed, classes, rows):
    """Labels and predictions that agree more often than not."""
    generator = numpy.random.default_rng(seed)
    labels = generator.integers(0, classes, rows)
    predictions = numpy.where(generator.random(rows) < 0.6, labels, generator.integers(0, classes, rows))
    return labels.tolist(), predictions.tolist()


def classification_cases():
    """Accuracy and macro averages. Macro means over the classes that occur in the labels or in the predictions."""
    randoms = {f"random, {classes} classes": random_classes(classes, classes, 60) for classes in (2, 3, 7, 40)}
    macro = {"average": "macro", "zero_division": 0}
    return [
        {
            "name": name,
            "labels": labels,
            "predictions": predictions,
            "accuracy": float(accuracy_score(labels, predictions)),
            "macro_f1": float(f1_score(labels, predictions, **macro)),
            "macro_precision": float(precision_score(labels, predictions, **macro)),
            "macro_recall": float(recall_score(labels, predictions, **macro)),
        }
        for name, (labels, predictions) in (CLASSIFICATIONS | randoms).items()
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
        for name, (labels, predictions) in (BINARIES | {"random": random_classes(9, 2, 80)}).items()
    ]


def ranking_case(name, scores, right, limit=1000):
    """Rank of the right candidate of each query: how many candidates score as high or higher, itself among them.

    A rank beyond `limit` counts 0 in `limited_mrr`.
    """
    scores, right = numpy.array(scores, dtype=numpy.float32), numpy.array(right)
    own = scores[numpy.arange(len(right)), right]
    ranks = (scores >= own[:, None]).sum(1)
    return {
        "limit": limit,
        "limited_mrr": float(numpy.where(ranks <= limit, 1 / ranks, 0).mean()),
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
        ranking_case("wide, with ties", wide, generator.integers(0, 25, 6), limit=4),
        ranking_case("one candidate", [[-0.5]], [0]),
    ]


def retrieval_case(name, groups, scores):
    """MAP@R as CodeXGLUE's POJ-104 evaluator has it, each row against all others; of equal scores strangers come first.

    A row whose group has no other row is left out: the evaluator would divide by 0 there.
    """
    groups, scores = numpy.array(groups), numpy.array(scores, dtype=numpy.float32)
    precisions = []
    for row, group in enumerate(groups):
        others = [other for other in range(len(groups)) if other != row]
        others.sort(key=lambda other: (-scores[row, other], groups[other] == group))
        wanted = int((groups == group).sum()) - 1
        hits = [place for place, other in enumerate(others[:wanted], 1) if groups[other] == group]
        shares = [(number + 1) / place for number, place in enumerate(hits)]
        precisions.append(sum(shares) / wanted if wanted else None)
    counted = [precision for precision in precisions if precision is not None]
    return {
        "name": name,
        "groups": groups.tolist(),
        "scores": scores.astype(float).tolist(),
        "precisions": precisions,
        "map_at_r": float(numpy.mean(counted)) if counted else 0.0,
    }


def retrieval_cases():
    """Symmetric scores, multiples of 1/64 or few values with many ties."""
    generator = numpy.random.default_rng(6)

    def symmetric(rows, low, high, of):
        scores = generator.integers(low, high, (rows, rows)) / of
        return numpy.triu(scores) + numpy.triu(scores, 1).T

    return [
        retrieval_case("random", generator.integers(0, 4, 24), symmetric(24, -64, 65, 64)),
        retrieval_case("many ties", generator.integers(0, 3, 18), symmetric(18, 0, 3, 2)),
        retrieval_case("all tied", [0, 0, 1, 1, 1], numpy.ones((5, 5))),
        retrieval_case("a group of one", [0, 1, 0, 2, 2], symmetric(5, -64, 65, 64)),
        retrieval_case("one group", [3, 3, 3], symmetric(3, -64, 65, 64)),
    ]


def make_metrics(path, versions):
    """One JSON object, a case a line."""
    cases = {
        "classification": classification_cases(),
        "binary": binary_cases(),
        "ranking": ranking_cases(),
        "retrieval": retrieval_cases(),
    }
    texts = [f'  "versions": {json.dumps(versions)}']
    for kind, rows in cases.items():
        texts.append(f'  "{kind}": [\n    ' + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]")
    path.write_text("{\n" + ",\n".join(texts) + "\n}\n")
