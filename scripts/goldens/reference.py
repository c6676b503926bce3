"""The Hugging Face model that Telly is held against, its hidden states, and MPNet's buckets."""

import json

import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel
from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

from corpus import SENTENCES
from ragged import encode, padded, ragged, write_tensors

# From nothing but the special tokens to a text that is cut at the model's greatest length; capitals, an accent and a
# sign outside the vocabulary for the normaliser.
TINY_TEXTS = [
    "",
    "return",
    "Sort the LIST, café ☃!",
    "def add(a, b): return a + b",
    "nobody knows whether the bewildered machine stopped working yesterday",
    " ".join(SENTENCES[:12]),
]
TINY_PAIRS = [("", ""), ("return", ""), ("", "the list"), ("def add(a, b)", "Sort the LIST, café ☃!")]
TINY_PAIRS += [(" ".join(SENTENCES[:3]), "return a + b")]
MINILM_TEXTS = [
    "Sorts a list of numbers.",
    "A café, reopened!",
    "def add(a, b): return a",
]

# Families whose bare encoder has no pooler to leave out.
WITHOUT_POOLER = ("distilbert", "modernbert")

# Farther apart than the 512 tokens of the longest real sequence.
FURTHEST = 600


def load(folder, **settings):
    """The bare encoder of a checkpoint, float32, without the pooler; eager attention is the textbook formula."""
    kind = AutoConfig.from_pretrained(folder).model_type
    if kind not in WITHOUT_POOLER:
        settings["add_pooling_layer"] = False
    model, report = AutoModel.from_pretrained(
        folder,
        attn_implementation="eager",
        dtype=torch.float32,
        output_loading_info=True,
        **settings,
    )
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    return model


def make_hidden(folder, texts, length, path, versions):
    """`hidden.k` [tokens, width]: the state after k layers, out of one padded batch, padding taken away.

    A norm after the last layer, as ModernBERT has it, is not part of any layer.
    """
    sequences = encode(Tokenizer.from_file(str(folder / "tokenizer.json")), texts, [length] * len(texts))
    model = load(folder).eval()
    ids, mask = padded(sequences, model.config.pad_token_id)
    before_norm = []
    if hasattr(model, "final_norm"):
        model.final_norm.register_forward_pre_hook(lambda _, inputs: before_norm.append(inputs[0]))
    with torch.no_grad():
        output = model(ids, attention_mask=mask, output_hidden_states=True)
    states = list(output.hidden_states)
    assert len(states) == model.config.num_hidden_layers + 1
    assert torch.equal(states[-1], output.last_hidden_state)
    if before_norm:
        [states[-1]] = before_norm
        assert torch.equal(model.final_norm(states[-1]), output.last_hidden_state)
    tensors = ragged(sequences)
    for layer, state in enumerate(states):
        tensors[f"hidden.{layer}"] = state[mask.bool()].numpy()
    metadata = {"texts": json.dumps(texts), "max_length": str(length), "versions": json.dumps(versions)}
    write_tensors(path, tensors, metadata)
    print(f"{path.name}: sequences of {[len(sequence) for sequence in sequences]} tokens")


def make_hidden_of_pairs(folder, pairs, path, versions):
    """As `make_hidden`, of pairs of texts that the model tells apart by token types."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    encoded = tokenizer.encode_batch(pairs)
    assert any(1 in one.type_ids for one in encoded)
    model = load(folder).eval()
    sequences = [one.ids for one in encoded]
    ids, mask = padded(sequences, model.config.pad_token_id)
    types, _ = padded([one.type_ids for one in encoded], 0)
    with torch.no_grad():
        output = model(ids, attention_mask=mask, token_type_ids=types, output_hidden_states=True)
    tensors = ragged(sequences)
    for layer, state in enumerate(output.hidden_states):
        tensors[f"hidden.{layer}"] = state[mask.bool()].numpy()
    metadata = {"texts": json.dumps(pairs), "versions": json.dumps(versions)}
    write_tensors(path, tensors, metadata)
    print(f"{path.name}: sequences of {[len(sequence) for sequence in sequences]} tokens")


def make_buckets(path, versions):
    """`buckets[i]`: where MPNet puts a key that lies i - FURTHEST tokens after its query."""
    distances = torch.arange(-FURTHEST, FURTHEST + 1)
    buckets = MPNetEncoder.relative_position_bucket(distances).tolist()
    path.write_text(json.dumps({"furthest": FURTHEST, "buckets": buckets, "versions": versions}) + "\n")
    print(f"{path.name}: {len(set(buckets))} buckets")
