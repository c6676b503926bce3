"""Let the reference checker of ONNX look at graphs that Telly wrote.

    python scripts/goldens/check_onnx.py frozen.onnx cache/somewhere ...

A folder stands for every *.onnx below it. Graphs are checked by path, so that weights kept beside the graph are too;
full_check adds shape inference in strict mode.
"""

import argparse
import sys
from pathlib import Path

import onnx


def graphs_of(paths):
    """The graph files meant by what was typed; a path that leads to none is a mistake, not a success."""
    graphs = []
    for path in paths:
        found = sorted(path.rglob("*.onnx")) if path.is_dir() else [path]
        if not found or not found[0].exists():
            sys.exit(f"{path}: no such graph, or a folder without any *.onnx file")
        graphs += found
    return graphs


def signature(value):
    """`hidden: FLOAT[batch, length, 32]`"""
    tensor = value.type.tensor_type
    sizes = [size.dim_param or str(size.dim_value) for size in tensor.shape.dim]
    return f"{value.name}: {onnx.TensorProto.DataType.Name(tensor.elem_type)}[{', '.join(sizes)}]"


def describe(path):
    """One paragraph about a graph, weights left where they are."""
    model = onnx.load(path, load_external_data=False)
    opsets = ", ".join(f"{entry.domain or 'ai.onnx'} {entry.version}" for entry in model.opset_import)
    outside = sum(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer)
    return "\n".join(
        [
            f"{path}: opset {opsets}, IR version {model.ir_version}",
            f"  inputs: {'; '.join(map(signature, model.graph.input))}",
            f"  outputs: {'; '.join(map(signature, model.graph.output))}",
            f"  {len(model.graph.node)} nodes, {len(model.graph.initializer)} initializers ({outside} external)",
        ]
    )


def check(path):
    """Stop with a sentence where the checker refuses the graph."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
        print(describe(path))
    except Exception as error:  # the checker raises several unrelated kinds, protobuf's own among them
        sys.exit(f"{path}: the checker refuses this graph: {error}")


def main():
    parser = argparse.ArgumentParser(description="Check ONNX graphs with onnx.checker, external data included.")
    parser.add_argument("paths", type=Path, nargs="+", metavar="FOLDER_OR_FILE", help="a graph, or a folder of graphs")
    for path in graphs_of(parser.parse_args().paths):
        check(path)


if __name__ == "__main__":
    main()
