"""Token ids of pairs of texts, as transformers' tokenizers put them together."""

import json

from transformers import PreTrainedTokenizerFast

from corpus import SENTENCES

MODELS = ("bert-tiny", "roberta-tiny", "mpnet-tiny")
LENGTH = 24


def make_pairs(folder, path, versions):
    """Pairs of which the first is longer, the second, both, neither; cut to LENGTH tokens from the longer on."""
    texts = [*SENTENCES[:6], " ".join(SENTENCES[:3]), "", "x"]
    pairs = [(first, second) for first in texts for second in texts[::-2]]
    lines = []
    for model in MODELS:
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / model / "tokenizer.json"))
        for first, second in pairs:
            ids = tokenizer(first, second, truncation="longest_first", max_length=LENGTH)["input_ids"]
            lines.append(json.dumps({"model": model, "first": first, "second": second, "ids": ids}))
    path.write_text(
        f'{{\n  "versions": {json.dumps(versions)},\n  "max_length": {LENGTH},\n  "pairs": [\n    '
        + ",\n    ".join(lines)
        + "\n  ]\n}\n"
    )
