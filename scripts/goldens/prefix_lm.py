"""UniXcoder as an encoder and a decoder in one: RoBERTa reads the source both ways, then the target after it, causally.

UniXcoder's downstream code does it in two passes of the same weights. The source's keys and values are kept, and the
target attends to them and to itself up to each token; that is the attention of a prefix language model, and it is
computed here as there, by a cache, so that a mask over the whole sequence has something to be held against.

Positions are those of transformers' `create_position_ids_from_input_ids`: a token that is no padding has (tokens that
are none up to and with it) + `past_key_values_length` + `padding_idx`, and `padding_idx` is 1. In the source pass the
past is 0: source token i has position i + 2. In the target pass the past is the cache's length, padding included:
target token j has position (length of the cache) + j + 2.
- Generation gives the model a cache cut to the source's true length s: the target begins at s + 2, where the source
  ended. So do the runs here that read each source alone.
- Training pads every source to one length p and does not trim: the target begins at p + 2 whatever s is. Positions from
  s + 2 to p + 1 stay empty. The padding's keys are masked, so nothing else differs. So do the runs here with a
  `padded_length`.
"""

import torch

from ragged import padded
from reference import load


def load_decoder(folder, **settings):
    """RoBERTa that keeps keys and values, as UniXcoder's code loads it; its config.json says `is_decoder: false`."""
    return load(folder, is_decoder=True, **settings)


def additive(allowed, dtype):
    """Who attends to whom, as the 4-D mask that transformers adds to the scores: [sequences, 1, queries, keys]."""
    lowest = torch.finfo(dtype).min
    return torch.zeros(allowed.shape, dtype=dtype).masked_fill(~allowed, lowest).unsqueeze(1)


def read(model, sources, targets, padded_length):
    """Both passes over sources padded to `padded_length`: what the model gives for each, and both masks of tokens."""
    pad = model.config.pad_token_id
    source_ids, source_mask = padded(sources, pad)
    room = (0, padded_length - source_ids.shape[1])
    source_ids = torch.nn.functional.pad(source_ids, room, value=pad)
    source_mask = torch.nn.functional.pad(source_mask.bool(), room)
    both_ways = source_mask[:, None, :] & source_mask[:, :, None]
    target_ids, target_mask = padded(targets, pad)
    first = model(
        source_ids, attention_mask=additive(both_ways, model.dtype), use_cache=True, output_hidden_states=True
    )
    length = padded_length + target_ids.shape[1]
    below = torch.ones(length, length, dtype=torch.bool).tril()[padded_length:]
    tokens = torch.cat([source_mask, target_mask.bool()], dim=1)
    second = model(
        target_ids,
        attention_mask=additive(below & tokens[:, None, :], model.dtype),
        past_key_values=first.past_key_values,
        output_hidden_states=True,
    )
    assert second.past_key_values.get_seq_length() == length
    return first, second, source_mask, target_mask.bool()


def states(model, sources, targets, padded_length=None):
    """State after each layer, of every source followed by its target, padding taken away: tensors [tokens, width].

    Each source is read alone, at its true length; with `padded_length`, all are read as one batch of that length.
    """
    if padded_length is None:
        pairs = zip(sources, targets, strict=True)
        alone = [states(model, [source], [target], len(source)) for source, target in pairs]
        return [torch.cat(layers) for layers in zip(*alone, strict=True)]
    first, second, source_mask, target_mask = read(model, sources, targets, padded_length)
    found = []
    for before, after in zip(first.hidden_states, second.hidden_states, strict=True):
        rows = [
            torch.cat([before[row][source_mask[row]], after[row][target_mask[row]]]) for row in range(len(sources))
        ]
        found.append(torch.cat(rows))
    return found


def masked_states(model, source, target, target_start=None):
    """As `states` of one source and target, in a single pass: one mask over both, positions said, no cache.

    The target's positions begin as if `target_start` tokens came before it, by default the source's length.
    """
    length = len(source) + len(target)
    allowed = torch.ones(length, length, dtype=torch.bool).tril()
    allowed[: len(source), : len(source)] = True
    start = len(source) if target_start is None else target_start
    positions = [*range(len(source)), *range(start, start + len(target))]
    output = model(
        torch.tensor([source + target]),
        attention_mask=additive(allowed[None], model.dtype),
        position_ids=torch.tensor([positions]) + model.config.pad_token_id + 1,
        use_cache=False,
        output_hidden_states=True,
    )
    return [state[0] for state in output.hidden_states]
