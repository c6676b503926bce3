"""Reference values of representational similarity analysis, out of SciPy, plain NumPy and transformers.

    python scripts/goldens/rsa.py --out tests/goldens
"""

import argparse
import json
from pathlib import Path

import numpy
import scipy
import torch
import transformers
from scipy.stats import pearsonr, rankdata, spearmanr
from tokenizers import Tokenizer

import reference
import tiny
from ragged import encode, padded, write_tensors

# More than the texts that Telly works on together.
TEXTS = 150
RESAMPLES = 20
MODELS = ("bert-tiny", "roberta-tiny")


def make_features():
    """Two models' vectors of the same texts: whole numbers, some texts equal to both models, some to one."""
    generator = numpy.random.default_rng(7)
    x = generator.integers(-3, 4, (TEXTS, 12))
    y = numpy.hstack([x[:, :6], x[:, 6:9] // 2]) + generator.integers(-2, 3, (TEXTS, 9)) + 1
    x[110:116], y[110:116] = x[:6], y[:6]
    x[120:125] = x[10:15]
    assert (abs(x).sum(1) > 0).all() and (abs(y).sum(1) > 0).all()
    return x.astype(numpy.float32), y.astype(numpy.float32)


def cosines(vectors):
    """The cosine of each two texts, [texts, texts]; rounded far beyond f32, so that equal ones are equal."""
    vectors = vectors.astype(numpy.float64)
    unit = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)
    return numpy.round(unit @ unit.T, 12)


def upper(matrix):
    """The upper triangle without the diagonal."""
    return matrix[numpy.triu_indices(len(matrix), 1)]


def linear_cka(x, y):
    """Kornblith et al. 2019: ||Y'X||^2 / (||X'X|| ||Y'Y||) of centred features."""
    x, y = (vectors.astype(numpy.float64) - vectors.mean(0, dtype=numpy.float64) for vectors in (x, y))
    return numpy.linalg.norm(y.T @ x) ** 2 / (numpy.linalg.norm(x.T @ x) * numpy.linalg.norm(y.T @ y))


def rank_matrix(matrix):
    """Ranks among the upper triangle, back in a symmetric matrix."""
    ranks = numpy.zeros_like(matrix)
    ranks[numpy.triu_indices(len(matrix), 1)] = rankdata(upper(matrix))
    return ranks + ranks.T


def resampled_pearson(x, y, drawn):
    """Pearson's correlation over all pairs of drawn texts, those of a text with itself left out."""
    differ = upper(drawn[:, None] != drawn[None, :])
    return pearsonr(*(upper(matrix[numpy.ix_(drawn, drawn)])[differ] for matrix in (x, y))).statistic


def percentiles(values):
    return numpy.percentile(values, [2.5, 97.5])


def make_rsa(out, path, versions):
    """The measures of made-up features, and the means over all positions of two tiny models' hidden states."""
    x, y = make_features()
    draws = numpy.random.default_rng(8).integers(0, TEXTS, (RESAMPLES, TEXTS))
    matrices = [cosines(x), cosines(y)]
    ranks = [rank_matrix(matrix) for matrix in matrices]
    flat = [upper(matrix) for matrix in matrices]
    assert len(numpy.unique(flat[0])) < len(flat[0]), "there are to be ties"
    tensors = {
        "x": x,
        "y": y,
        "draws": draws,
        "pearson": numpy.array([pearsonr(*flat).statistic]),
        "spearman": numpy.array([spearmanr(*flat).statistic]),
        "cka": numpy.array([linear_cka(x, y)]),
        "pearson_interval": percentiles([resampled_pearson(*matrices, drawn) for drawn in draws]),
        "spearman_interval": percentiles([resampled_pearson(*ranks, drawn) for drawn in draws]),
        "cka_interval": percentiles([linear_cka(x[drawn], y[drawn]) for drawn in draws]),
    }
    for name in MODELS:
        tokenizer = Tokenizer.from_file(str(out / name / "tokenizer.json"))
        texts = reference.TINY_TEXTS
        sequences = encode(tokenizer, texts, [tiny.LENGTH] * len(texts))
        model = reference.load(out / name).eval()
        ids, mask = padded(sequences, model.config.pad_token_id)
        assert ids.shape[1] == tiny.LENGTH
        with torch.no_grad():
            states = model(ids, attention_mask=mask, output_hidden_states=True).hidden_states
        # Over all positions, padding included, as the study of Telly's paper does.
        tensors[f"{name}.unmasked"] = torch.stack([state.mean(1) for state in states]).numpy()
    write_tensors(path, tensors, {"versions": json.dumps(versions)})
    print(f"{path.name}: " + ", ".join(f"{name} {tensors[name]}" for name in tensors if "draws" not in name and len(tensors[name]) < 3))


def main():
    parser = argparse.ArgumentParser(description="Make rsa.safetensors.")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens"), help="folder of the goldens (tests/goldens)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    versions = {
        "numpy": numpy.__version__,
        "scipy": scipy.__version__,
        "torch": torch.__version__.split("+")[0],
        "transformers": transformers.__version__,
    }
    make_rsa(arguments.out, arguments.out / "rsa.safetensors", versions)


if __name__ == "__main__":
    main()
