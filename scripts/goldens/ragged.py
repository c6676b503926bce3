"""Token sequences of varied length: made from text, padded for a model, written without padding."""

import json

import numpy
import torch
from safetensors import numpy as safetensors_numpy


def encode(tokenizer, texts, lengths):
    """Token ids of each text with special tokens, cut to its own greatest length.

    Truncation and padding that tokenizer.json may carry (MiniLM's pads all to 128) are replaced: ragged means ragged.
    """
    tokenizer.no_padding()
    sequences = []
    for text, length in zip(texts, lengths, strict=True):
        tokenizer.enable_truncation(int(length))
        sequences.append(tokenizer.encode(text).ids)
    tokenizer.no_truncation()
    return sequences


def write_tensors(path, tensors, metadata):
    """Write a safetensors file whose bytes are the same every time.

    The library keeps metadata in a hash map and writes its keys in random order; the header is written anew, sorted.
    """
    arrays = {name: numpy.ascontiguousarray(value) for name, value in tensors.items()}
    data = safetensors_numpy.save(arrays, metadata)
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[end:])


def ragged(sequences):
    """Lists of token ids -> `ids` [tokens] and `offsets` [sequences + 1], both i64."""
    offsets = numpy.cumsum([0] + [len(sequence) for sequence in sequences], dtype=numpy.int64)
    return {"ids": numpy.array(sum(sequences, []), dtype=numpy.int64), "offsets": offsets}


def padded(sequences, pad):
    """Lists of token ids -> ids and attention mask, both [sequences, longest] i64."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.full((len(sequences), longest), pad)
    mask = torch.zeros((len(sequences), longest), dtype=torch.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.tensor(sequence)
        mask[row, : len(sequence)] = 1
    return ids, mask
