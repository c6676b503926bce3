"""Let a model that writes text, as `telly export --format onnx` gives it, go on with the prompts of a golden.

    python scripts/goldens/check_decoder.py model.onnx tests/goldens/decoding.json llama-tiny

The graph passes onnx.checker, and its first greedy steps, with keys and values kept, are those of the golden. Run by ONNX
Runtime where that is installed, else by the slow reference evaluator of ONNX.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy
import onnx

STEPS = 5


def session(path):
    """What runs the graph, and its name: a function of inputs by name, giving outputs by name."""
    try:
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        run, name = session.run, f"onnxruntime {onnxruntime.__version__}"
    except ImportError:
        from onnx.reference import ReferenceEvaluator

        run, name = ReferenceEvaluator(str(path)).run, f"onnx {onnx.__version__}"
    outputs = [output.name for output in onnx.load(path).graph.output]
    return lambda inputs: dict(zip(outputs, run(outputs, inputs), strict=True)), name


def no_tokens(graph):
    """Keys and values of no tokens, by input name."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in graph.input}
    past = {name: shape for name, shape in shapes.items() if name.startswith("past_key_values.")}
    return {
        name: numpy.zeros((1, shape[1].dim_value, 0, shape[3].dim_value), numpy.float32) for name, shape in past.items()
    }


def greedy(run, graph, prompt, source, first_position):
    """The first tokens behind `prompt`, of which the first `source` attend to each other."""
    past, ids, written = no_tokens(graph), prompt, []
    total = 0
    while len(written) < STEPS:
        positions = numpy.arange(total, total + len(ids))[None] + first_position
        total += len(ids)
        inputs = past | {
            "input_ids": numpy.array([ids]),
            "attention_mask": numpy.ones((1, total), numpy.int64),
            "position_ids": positions.astype(numpy.int64),
        }
        if any(value.name == "prefix_lengths" for value in graph.input):
            inputs["prefix_lengths"] = numpy.array([source])
        outputs = run(inputs)
        assert outputs["logits"].shape[:2] == (1, len(ids))
        ids = [int(outputs["logits"][0, -1].argmax())]
        written += ids
        past = {name: outputs[name.replace("past_key_values", "present")] for name in past}
    return written


def main():
    parser = argparse.ArgumentParser(description="Decode with an exported graph and compare with a golden.")
    parser.add_argument("graph", type=Path, metavar="GRAPH")
    parser.add_argument("golden", type=Path, metavar="GOLDEN")
    parser.add_argument("model", metavar="MODEL")
    arguments = parser.parse_args()
    onnx.checker.check_model(str(arguments.graph), full_check=True)
    graph = onnx.load(arguments.graph, load_external_data=False).graph
    run, name = session(arguments.graph)
    golden = json.loads(arguments.golden.read_text())["models"][arguments.model]
    # Where UniXcoder's positions start, as RoBERTa's do.
    first_position = 2 if arguments.model.startswith("unixcoder") else 0
    for case in golden["cases"]:
        prompt = case["prompt"] + golden.get("start", [])
        written = greedy(run, graph, prompt, len(case["prompt"]), first_position)
        expected = case["greedy"]["ids"][:STEPS]
        if written[: len(expected)] != expected:
            sys.exit(f"{arguments.model}: {written} behind {prompt}, expected {expected}")
    print(f"{arguments.model}: {len(golden['cases'])} prompts, {STEPS} tokens each, by {name}")


if __name__ == "__main__":
    main()
