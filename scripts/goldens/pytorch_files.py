"""Files by torch.save, in the zip form and in the one from before PyTorch 1.6: honest ones with the same tensors as
safetensors beside them, and hostile ones that run code when `torch.load` or `pickle.load` reads them.

    python scripts/goldens/pytorch_files.py

Nothing is ever left of what the hostile files do: each is tried in a folder of its own that is removed.
The older form names its storages by their address in memory, so those files differ from run to run.
"""

import argparse
import copyreg
import io
import json
import os
import pickle
import shutil
import tempfile
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertModel

import tiny

# What a hostile pickle does: it makes this file where it runs.
MARK = "was-run"
MAGIC = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
# The width of everything but the vocabulary and the positions.
SMALL = dict(hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16)


def layouts():
    """Tensors of every type and layout that a state dict may have."""
    numbers = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7
    shared = torch.arange(10, dtype=torch.float32) * 1.5
    return OrderedDict(
        plain=numbers.clone(),
        parameter=torch.nn.Parameter(numbers[:2].clone()),
        transposed=numbers.clone().t(),
        every_second=numbers.clone()[1::2, ::2],
        turned=torch.arange(24, dtype=torch.float32).reshape(2, 3, 4).permute(2, 0, 1),
        shared_all=shared,
        shared_tail=shared[4:],
        half=(numbers - 1.3).half(),
        bfloat=(numbers - 1.3).bfloat16(),
        double=numbers.double() + 1e-9,
        double_transposed=numbers.double().t(),
        one=torch.tensor(2.5),
        none=torch.zeros(0, 3),
    )


def with_buffers(tensors):
    """As a model's state dict: buffers of other types, notes on versions."""
    state = OrderedDict(tensors, position_ids=torch.arange(5).expand(1, -1), flags=torch.tensor([True, False]))
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


def save(state, path, zipped):
    torch.save(state, path, _use_new_zipfile_serialization=zipped)
    path.chmod(0o644)


def make_layouts(out):
    tensors = layouts()
    for name, zipped in (("zip", True), ("legacy", False)):
        save(with_buffers(tensors), out / f"layouts.{name}.bin", zipped)
    plain = {name: tensor.detach().float().clone().contiguous() for name, tensor in tensors.items()}
    save_file(plain, out / "layouts.safetensors")
    (out / "layouts.safetensors").chmod(0o644)


def make_checkpoint(out):
    """One BERT as model.safetensors, as pytorch_model.bin, and as two older .bin files with an index and TensorFlow's
    names; the tokenizer as tokenizer.json and as vocab.txt."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    config = BertConfig(**{**tiny.SIZES, **SMALL}, max_position_embeddings=tiny.LENGTH, pad_token_id=0)
    model = BertModel(config, add_pooling_layer=False)
    tiny.randomise(model, seed=5)
    model.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)
    save(model.state_dict(), out / "pytorch_model.bin", True)
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    parts, weight_map = (OrderedDict(), OrderedDict()), {}
    for number, (name, tensor) in enumerate(model.state_dict().items()):
        for now, then in names.items():
            name = name.replace(now, then)
        parts[number % 2]["bert." + name] = tensor
        weight_map["bert." + name] = f"pytorch_model-{number % 2 + 1:05}-of-00002.bin"
    for number, part in enumerate(parts, 1):
        save(part, out / f"pytorch_model-{number:05}-of-00002.bin", False)
    index = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1) + "\n"
    (out / "pytorch_model.bin.index.json").write_text(index)
    tokenizer = tiny.bert_tokenizer()
    tokenizer.save(str(out / "tokenizer.json"))
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (out / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary))


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


def hostile():
    """Pickles that run `touch was-run`, by each instruction that can."""
    command = f"touch {MARK}"
    python = f"__import__('os').system('{command}')"
    arguments = b"(" + text(command) + b"t"
    inside = lambda call: b"\x80\x02}" + text("weight") + call + b"s."
    return {
        "os-system-reduce": inside(b"cos\nsystem\n" + arguments + b"R"),
        "posix-system-reduce": inside(b"cposix\nsystem\n" + arguments + b"R"),
        "stack-global": b"\x80\x04" + text("os") + text("system") + b"\x93" + arguments + b"R.",
        "builtins-eval": inside(b"cbuiltins\neval\n(" + text(python) + b"tR"),
        "inst": b"(" + text(command) + b"ios\nsystem\n.",
        "obj": b"\x80\x01(csubprocess\nPopen\n(" + text("touch") + text(MARK) + b"lo.",
        "newobj": b"\x80\x02c__main__\nRunsItsArgument\n" + arguments + b"\x81.",
        # The class is code of the pickle's own choosing, and its state is given to a setter of that code.
        "build": inside(b"c__main__\nRunsItsState\n)\x81" + text(command) + b"b"),
        "extension": b"\x80\x02\x82\xf0" + arguments + b"R.",
        # A function of torch that runs what it is given.
        "torch-function": inside(b"ctorch.hub\n_run_command\n" + arguments + b"R"),
    }


class RunsItsState:
    """Code that a pickle may find beside it."""

    def __setstate__(self, state):
        os.system(state)


class RunsItsArgument:
    """The same, for a class that is made an instance of."""

    def __new__(cls, argument):
        os.system(argument)


def zipped(data):
    """`data` as the pickle of an archive like torch.save's."""
    space = io.BytesIO()
    with zipfile.ZipFile(space, "w", zipfile.ZIP_STORED) as archive:
        for name, content in (("data.pkl", data), ("byteorder", b"little"), ("version", b"3\n")):
            archive.writestr(zipfile.ZipInfo("archive/" + name, (1980, 1, 1, 0, 0, 0)), content)
    return space.getvalue()


def legacy(data):
    kind = dict(protocol_version=1001, little_endian=True)
    return MAGIC + pickle.dumps(1001, 2) + pickle.dumps(kind, 2) + data + pickle.dumps([], 2)


def runs_code(path):
    """Whether loading `path` without `weights_only` runs what it holds."""
    before, path = os.getcwd(), path.resolve()
    with tempfile.TemporaryDirectory() as space:
        os.chdir(space)
        try:
            torch.load(path, weights_only=False)
        except Exception:  # most of them are no whole state dicts
            pass
        time.sleep(0.3)  # a process of its own may just have been started
        os.chdir(before)
        return (Path(space) / MARK).exists()


def make_hostile(out):
    copyreg.add_extension("os", "system", 240)
    torch.hub._run_command = os.system
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    for name, data in hostile().items():
        for form, wrapped in (("zip", zipped(data)), ("legacy", legacy(data))):
            path = out / f"{name}.{form}.bin"
            path.write_bytes(wrapped)
            assert runs_code(path), f"{path} runs nothing"
            print(f"{path.name}: torch.load runs it")


def main():
    parser = argparse.ArgumentParser(description="Make files by torch.save in tests/goldens/pytorch.")
    parser.add_argument("--out", type=Path, default=Path("tests/goldens/pytorch"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    make_layouts(arguments.out)
    make_checkpoint(arguments.out / "bert")
    make_hostile(arguments.out / "hostile")


if __name__ == "__main__":
    main()
