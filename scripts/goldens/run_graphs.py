"""Run graphs that Telly wrote by the reference evaluator of ONNX, which is slow and knows every type.

    python scripts/goldens/run_graphs.py tests/goldens/bert-tiny.hidden.safetensors frozen.onnx ...

Each graph gets the golden's sequences, padded. A line each: the graph, and how far its hidden states are from those of
transformers: the largest difference of a number, and the mean cosine of a token.
"""

import argparse
import json
from pathlib import Path

import numpy
import onnx
from onnx.reference import ReferenceEvaluator
from safetensors.numpy import load_file


def padded(ids, offsets):
    """ids [tokens] of several sequences -> ids and mask, [sequences, longest]."""
    lengths = numpy.diff(offsets)
    mask = (numpy.arange(lengths.max()) < lengths[:, None]).astype(numpy.int64)
    rows = numpy.zeros_like(mask)
    rows[mask == 1] = ids
    return rows, mask


def differences(path, golden):
    """The largest difference and the mean cosine."""
    model = onnx.load(path)
    ids, mask = padded(golden["ids"], golden["offsets"])
    output = model.graph.output[0].name
    (states,) = ReferenceEvaluator(model).run([output], {"input_ids": ids, "attention_mask": mask})
    found = states[mask == 1].astype(numpy.float64)
    expected = golden[f"hidden.{output.rpartition('.')[2]}"].astype(numpy.float64)
    norms = numpy.linalg.norm(found, axis=1) * numpy.linalg.norm(expected, axis=1)
    cosines = (found * expected).sum(axis=1) / norms
    return float(numpy.abs(found - expected).max()), float(cosines.mean())


def main():
    parser = argparse.ArgumentParser(description="Compare graphs with the hidden states of transformers.")
    parser.add_argument("golden", type=Path, metavar="GOLDEN")
    parser.add_argument("graphs", type=Path, nargs="+", metavar="GRAPH")
    arguments = parser.parse_args()
    golden = load_file(arguments.golden)
    for path in arguments.graphs:
        largest, cosine = differences(path, golden)
        print(json.dumps({"graph": path.name, "largest": largest, "cosine": cosine}))


if __name__ == "__main__":
    main()
