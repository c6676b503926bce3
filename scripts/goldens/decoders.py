"""Hidden states of the models that write text: causal ones, and UniXcoder in each of its modes."""

import json

import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

import prefix_lm
from corpus import SENTENCES
from ragged import encode, padded, ragged, write_tensors
from reference import load

# One that is short, accents and a sign outside the vocabulary, digits, and one that is cut.
TEXTS = ["return", "Sort the LIST, café ☃!", "def add(a, b): return a + 128", " ".join(SENTENCES[:4])]
LENGTH = 16
# What is written after each text.
TARGETS = ["adds", "sorts the list of words", "the sum", "reads a file and counts its words, line by line"]
TARGET_LENGTH = 8
# Longer than the longest source: a batch of the reference is padded to a length that no sequence need have.
PADDED_LENGTH = 24


def load_causal(folder, **settings):
    """A causal model with its output matrix, float32; eager attention is the textbook formula."""
    model, report = AutoModelForCausalLM.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True, **settings
    )
    assert not report["missing_keys"] and not report["mismatched_keys"], report
    return model


def pieces(tokenizer, texts, length):
    """Token ids of each text cut to `length`, nothing put around them."""
    return [tokenizer.encode(text, add_special_tokens=False).ids[:length] for text in texts]


def unixcoder_sequence(tokenizer, mode, pieces):
    """A sequence as UniXcoder's tasks put it together: for reading, for going on with, or as a source."""
    first, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    head = [first, tokenizer.token_to_id(f"<{mode}>"), end]
    if mode == "encoder-only":
        return [*head, *pieces, end]
    if mode == "decoder-only":
        return [*head, *pieces]
    return [*head, tokenizer.token_to_id("<mask0>"), *pieces, end]


def unixcoder_target(tokenizer, pieces):
    """A target: `<mask0>` starts it, `</s>` ends it."""
    return [tokenizer.token_to_id("<mask0>"), *pieces, tokenizer.token_to_id("</s>")]


def write_states(path, sequences, states, metadata, versions, **more):
    """`ids`, `offsets`, `hidden.k` and what else there is."""
    tensors = ragged(sequences)
    for layer, state in enumerate(states):
        assert len(state) == len(tensors["ids"])
        tensors[f"hidden.{layer}"] = state.numpy()
    write_tensors(path, tensors | more, metadata | {"versions": json.dumps(versions)})
    print(f"{path.name}: sequences of {[len(sequence) for sequence in sequences]} tokens")


def make_causal_hidden(folder, path, versions):
    """One batch padded on the right: states before the final norm, after it (`final`), and `logits`."""
    sequences = encode(Tokenizer.from_file(str(folder / "tokenizer.json")), TEXTS, [LENGTH] * len(TEXTS))
    model = load_causal(folder).eval()
    ids, mask = padded(sequences, 0)
    before_norm = []
    model.model.norm.register_forward_pre_hook(lambda _, inputs: before_norm.append(inputs[0]))
    with torch.no_grad():
        output = model(ids, attention_mask=mask, output_hidden_states=True, use_cache=False)
        [last] = before_norm
        final = model.model.norm(last)
    assert torch.equal(final, output.hidden_states[-1])
    states = [*output.hidden_states[:-1], last]
    assert len(states) == model.config.num_hidden_layers + 1
    tokens = mask.bool()
    write_states(
        path,
        sequences,
        [state[tokens] for state in states],
        {"texts": json.dumps(TEXTS), "max_length": str(LENGTH)},
        versions,
        final=final[tokens].numpy(),
        logits=output.logits[tokens].numpy(),
    )


def make_unixcoder_hidden(folder, out, versions):
    """Each mode's states; `logits` by the embeddings' matrix, without bias or transform, as UniXcoder's code has it."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = pieces(tokenizer, TEXTS, LENGTH)
    metadata = {"texts": json.dumps(TEXTS), "max_pieces": str(LENGTH)}
    encoder, decoder = load(folder).eval(), prefix_lm.load_decoder(folder).eval()
    matrix = decoder.embeddings.word_embeddings.weight.detach()
    for mode, model in (("encoder-only", encoder), ("decoder-only", decoder)):
        sequences = [unixcoder_sequence(tokenizer, mode, ids) for ids in texts]
        ids, mask = padded(sequences, 1)
        with torch.no_grad():
            output = model(ids, attention_mask=mask, output_hidden_states=True)
        states = [state[mask.bool()] for state in output.hidden_states]
        more = {} if mode == "encoder-only" else {"logits": (states[-1] @ matrix.T).numpy()}
        write_states(out / f"{folder.name}.{mode}.hidden.safetensors", sequences, states, metadata, versions, **more)
    sources = [unixcoder_sequence(tokenizer, "encoder-decoder", ids) for ids in texts]
    targets = [unixcoder_target(tokenizer, ids) for ids in pieces(tokenizer, TARGETS, TARGET_LENGTH)]
    sequences = [source + target for source, target in zip(sources, targets, strict=True)]
    prefixes = torch.tensor([len(source) for source in sources])
    metadata |= {"targets": json.dumps(TARGETS), "max_target_pieces": str(TARGET_LENGTH)}
    for mode, length in (("encoder-decoder", None), ("encoder-decoder-padded", PADDED_LENGTH)):
        with torch.no_grad():
            states = prefix_lm.states(decoder, sources, targets, length)
            pairs = zip(sources, targets, strict=True)
            masked = [prefix_lm.masked_states(decoder, source, target, length) for source, target in pairs]
        for found, expected in zip(states, zip(*masked, strict=True), strict=True):
            torch.testing.assert_close(found, torch.cat(expected), rtol=0, atol=1e-5)
        more = {"prefix_lengths": prefixes.numpy()}
        if length is None:
            more["logits"] = (states[-1] @ matrix.T).numpy()
        told = metadata if length is None else metadata | {"padded_source_length": str(length)}
        write_states(out / f"{folder.name}.{mode}.hidden.safetensors", sequences, states, told, versions, **more)
