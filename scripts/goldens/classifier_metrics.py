"""Reference values of the metrics of sets of labels and of numbers, out of scikit-learn and SciPy."""

import json

import numpy
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, mean_squared_error, precision_score, recall_score


def set_case(name, labels, predictions):
    """Indicator matrices [rows, labels]; macro averages are over all labels, what is undefined is 0."""
    labels, predictions = numpy.array(labels), numpy.array(predictions)
    micro = {"average": "micro", "zero_division": 0}
    return {
        "name": name,
        "labels": labels.tolist(),
        "predictions": predictions.tolist(),
        "micro_f1": float(f1_score(labels, predictions, **micro)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        "precision": float(precision_score(labels, predictions, **micro)),
        "recall": float(recall_score(labels, predictions, **micro)),
        "accuracy": float(accuracy_score(labels, predictions)),
    }


def set_cases():
    """By hand and at random; a label that never occurs, rows without any."""
    generator = numpy.random.default_rng(11)
    random = [generator.integers(0, 2, (40, 5)) for _ in range(2)]
    rare = [(generator.random((30, 6)) < 0.1).astype(int) for _ in range(2)]
    return [
        set_case("by hand", [[1, 0, 1], [0, 0, 0], [0, 1, 0]], [[1, 0, 0], [0, 0, 0], [1, 1, 0]]),
        set_case("nothing known", [[0, 0], [0, 0]], [[1, 0], [0, 0]]),
        set_case("nothing found", [[1, 0], [1, 0]], [[0, 0], [0, 0]]),
        set_case("random", *random),
        set_case("rare", *rare),
    ]


def number_case(name, labels, predictions):
    """Correlations and squared error; float32 numbers."""
    labels, predictions = (numpy.array(numbers, dtype=numpy.float32) for numbers in (labels, predictions))
    wide = labels.astype(float), predictions.astype(float)
    varies = all(len(set(numbers)) > 1 for numbers in wide)
    return {
        "name": name,
        "labels": wide[0].tolist(),
        "predictions": wide[1].tolist(),
        "pearson": float(pearsonr(*wide).statistic) if varies else 0.0,
        "spearman": float(spearmanr(*wide).statistic) if varies else 0.0,
        "mse": float(mean_squared_error(*wide)),
    }


def number_cases():
    """At random, with ties, and a side that does not vary, where SciPy says NaN and Telly 0."""
    generator = numpy.random.default_rng(12)
    labels = generator.standard_normal(50)
    return [
        number_case("random", labels, 0.5 * labels + 0.3 * generator.standard_normal(50)),
        number_case("ties", generator.integers(0, 5, 40), generator.integers(0, 4, 40)),
        number_case("turned around", [1, 2, 3, 4], [4, 3, 2, 1]),
        number_case("signed zeros", [0.0, 1.0, 2.0, 3.0], [-0.0, 0.0, 1.0, 5.0]),
        number_case("level", [1, 2, 3], [2, 2, 2]),
    ]


def make_classifier_metrics(path, versions):
    """One JSON object, a case a line."""
    texts = [f'  "versions": {json.dumps(versions)}']
    for kind, rows in {"sets": set_cases(), "numbers": number_cases()}.items():
        texts.append(f'  "{kind}": [\n    ' + ",\n    ".join(json.dumps(row) for row in rows) + "\n  ]")
    path.write_text("{\n" + ",\n".join(texts) + "\n}\n")
