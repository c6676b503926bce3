"""Twenty steps of fine-tuning models that write text, bottom layers frozen or not, the output matrix trained or not."""

import contextlib
import json
import re
from unittest.mock import patch

import numpy
import torch
from tokenizers import Tokenizer
from transformers import get_linear_schedule_with_warmup
from transformers.models.llama import modeling_llama
from transformers.models.qwen2 import modeling_qwen2
from transformers.models.starcoder2 import modeling_starcoder2

import prefix_lm
from corpus import SENTENCES
from decoders import load_causal, unixcoder_sequence, unixcoder_target
from ragged import padded, ragged, write_tensors
from training import BATCH, CLIP, DECAY, PEAK, ROWS, STEPS, WARMUP

# With this seed no weight moves by rounding alone, KEY_BIAS apart; see training.py.
SEED = 1
TOLERANCE = 2e-6
# Softmax does not see a key's bias, but where it turns with the position; the lowest frequencies hardly do, and Adam
# makes steps of what rounding leaves.
KEY_BIAS = ("attention.self.key.bias", "self_attn.k_proj.bias")
# What transformers' Trainer does not decay, in names without capitals.
PLAIN = re.compile(r"bias|layernorm|(?:^|[._])norm(?:$|\.)")
# Longer than the longest source.
PADDED_SOURCE = 24
CASES = [
    ("unixcoder-tiny", "summarize", 1),
    ("unixcoder-tiny", "summarize", None),
    ("unixcoder-tiny", "summarize-padded", 1),
    ("unixcoder-tiny", "complete", 1),
    ("llama-tiny", "generate", 1),
    ("llama-tiny", "generate", None),
    ("llama-tiny", "generate-train-head", 1),
    ("llama-scaled-tiny", "generate", 0),
    ("qwen2-tiny", "generate", 1),
    ("qwen2-tiny", "generate", None),
    ("qwen2-tiny", "generate-train-head", 1),
    ("qwen2-tiny", "complete", 2),
    ("starcoder2-tiny", "generate", 1),
]


def file_name(model, task, frozen):
    return f"{model}.{task}.freeze-{'none' if frozen is None else frozen}.safetensors"


def random_pieces(tokenizer, generator, count, shortest, longest):
    """`count` lists of `shortest` to `longest` token ids, words drawn from the corpus, without special tokens."""
    words = " ".join(SENTENCES).split()
    lengths = generator.permutation(numpy.resize(numpy.arange(shortest, longest + 1), count))
    texts = [" ".join(generator.choice(words, longest)) for _ in lengths]
    encoded = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
    return [ids[:length] for ids, length in zip(encoded, lengths, strict=True)]


def training_data(folder, task):
    """Sequences, where each one's prefix ends and its scored tokens begin, and the rows of each step."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    generator = numpy.random.default_rng(SEED)
    batches = numpy.stack([generator.permutation(ROWS)[:BATCH] for _ in range(STEPS)]).astype(numpy.int64)
    unixcoder = folder.name == "unixcoder-tiny"
    if task == "complete":
        sequences = random_pieces(tokenizer, generator, ROWS, 3, 18)
        if unixcoder:
            sequences = [unixcoder_sequence(tokenizer, "decoder-only", ids) for ids in sequences]
        prefixes, first_scored = [0] * ROWS, [1] * ROWS
    else:
        sources = random_pieces(tokenizer, generator, ROWS, 2, 14)
        targets = random_pieces(tokenizer, generator, ROWS, 1, 9)
        if unixcoder:
            sources = [unixcoder_sequence(tokenizer, "encoder-decoder", ids) for ids in sources]
            targets = [unixcoder_target(tokenizer, ids) for ids in targets]
            prefixes = [len(source) for source in sources]
            # The target's first token, <mask0>, is given.
            first_scored = [prefix + 1 for prefix in prefixes]
        else:
            end = json.loads((folder / "config.json").read_text())["eos_token_id"]
            targets = [[*ids, end] for ids in targets]
            prefixes, first_scored = [0] * ROWS, [len(source) for source in sources]
        sequences = [source + target for source, target in zip(sources, targets, strict=True)]
    return {
        "sequences": sequences,
        "prefix_lengths": numpy.array(prefixes, dtype=numpy.int64),
        "first_scored": numpy.array(first_scored, dtype=numpy.int64),
        "batches": batches,
    }


def load_for_training(folder, dtype):
    """The bare model without dropout, in training mode as a user's would be, and the output matrix of its own if it has
    one."""
    if folder.name == "unixcoder-tiny":
        model = prefix_lm.load_decoder(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
        return model.to(dtype).train(), None
    dropouts = {"attention_dropout": 0.0}
    if folder.name == "starcoder2-tiny":
        dropouts |= {"residual_dropout": 0.0, "embedding_dropout": 0.0}
    model = load_causal(folder, **dropouts).to(dtype).train()
    return model.model, None if model.config.tie_word_embeddings else model.lm_head.weight


def is_frozen(name, layers):
    """Whether Telly with `--freeze layers` keeps a tensor of the bare model fixed."""
    if layers is None:
        return False
    if name.startswith(("embed_tokens.", "embeddings.")):
        return True
    layer = re.match(r"(?:encoder\.layer|layers)\.(\d+)\.", name)
    return layer is not None and int(layer[1]) < layers


def trained_tensors(model, own_matrix, task, frozen_layers):
    """The output matrix, and the tensors that train, by their checkpoint names without prefix.

    The output matrix trains with the embeddings, or by itself where it is asked for: a copy of the embeddings then, if
    the two are one tensor. With frozen embeddings it is frozen too.
    """
    embeddings = model.get_input_embeddings().weight
    train_head = task.endswith("train-head")
    matrix = own_matrix if own_matrix is not None else embeddings
    if train_head and own_matrix is None:
        matrix = torch.nn.Parameter(embeddings.detach().clone())
    parameters = {}
    for name, value in model.named_parameters():
        value.requires_grad_(not is_frozen(name, frozen_layers))
        if value.requires_grad:
            parameters[name] = value
    if matrix is not embeddings:
        matrix.requires_grad_(train_head or frozen_layers is None)
        if matrix.requires_grad:
            parameters["lm_head.weight"] = matrix
    return matrix, parameters


def last_states(model, task, sequences, prefixes):
    """The last layer's states after the final norm, if there is one, padding taken away: [tokens, width]."""
    if task.startswith("summarize"):
        pairs = [(ids[:prefix], ids[prefix:]) for ids, prefix in zip(sequences, prefixes, strict=True)]
        sources, targets = zip(*pairs, strict=True)
        return prefix_lm.states(model, sources, targets, PADDED_SOURCE if task.endswith("padded") else None)[-1]
    ids, mask = padded(sequences, model.config.pad_token_id or 0)
    return model(ids, attention_mask=mask, use_cache=False).last_hidden_state[mask.bool()]


def language_loss(model, matrix, task, data, rows):
    """Cross-entropy, the mean over the scored tokens of all rows; a token is predicted from the state before it."""
    sequences = [data["sequences"][row] for row in rows]
    states = last_states(model, task, sequences, data["prefix_lengths"][rows].tolist())
    scored, start = [], 0
    for ids, first in zip(sequences, data["first_scored"][rows].tolist(), strict=True):
        scored += range(start + first, start + len(ids))
        start += len(ids)
    scored = torch.tensor(scored)
    logits = torch.nn.functional.linear(states[scored - 1], matrix)
    return torch.nn.functional.cross_entropy(logits, torch.tensor(sum(sequences, []))[scored])


def optimizer_of(parameters):
    """AdamW in two groups: no weight decay on biases and norms."""
    plain = [value for name, value in parameters.items() if PLAIN.search(name.lower())]
    decayed = [value for name, value in parameters.items() if not PLAIN.search(name.lower())]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.999), eps=1e-8)


def attention_in_own_type(module, query, key, value, attention_mask, scaling, **_):
    """Transformers' eager attention with shared keys, without dropout and without the softmax in float32."""
    key, value = (modeling_llama.repeat_kv(states, module.num_key_value_groups) for states in (key, value))
    scores = query @ key.transpose(2, 3) * scaling + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def norm_in_own_type(norm, hidden):
    """Transformers' RMSNorm, without the conversion to float32."""
    return norm.weight * (hidden * torch.rsqrt(hidden.pow(2).mean(-1, keepdim=True) + norm.variance_epsilon))


@contextlib.contextmanager
def in_own_type():
    """Transformers' code falls back to float32 in places; within this it computes in the type it is given."""
    with contextlib.ExitStack() as stack:
        for module in (modeling_llama, modeling_qwen2, modeling_starcoder2):
            stack.enter_context(patch.object(module, "eager_attention_forward", attention_in_own_type))
        for norm in (modeling_llama.LlamaRMSNorm, modeling_qwen2.Qwen2RMSNorm):
            stack.enter_context(patch.object(norm, "forward", norm_in_own_type))
        yield


def train(folder, task, frozen_layers, data, dtype):
    """Twenty steps. Returns per-step records, the first step's gradients and the final tensors."""
    model, own_matrix = load_for_training(folder, dtype)
    matrix, parameters = trained_tensors(model, own_matrix, task, frozen_layers)
    optimizer = optimizer_of(parameters)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses, rates, norms, gradients = [], [], [], {}
    for rows in data["batches"]:
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        loss = language_loss(model, matrix, task, data, rows)
        loss.backward()
        assert all(value.grad is not None for value in parameters.values())
        if not gradients:
            gradients = {name: value.grad.numpy().copy() for name, value in parameters.items()}
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    steps = {"losses": losses, "learning_rates": rates, "gradient_norms": norms}
    final = {name: value.detach().numpy() for name, value in parameters.items()}
    return {name: numpy.array(values, dtype=numpy.float64) for name, values in steps.items()}, gradients, final


def hyperparameters(task, frozen_layers):
    """What Telly has to be told to repeat the run."""
    return {
        "task": task.split("-")[0],
        "train_head": task.endswith("train-head"),
        "padded_source_length": PADDED_SOURCE if task.endswith("padded") else None,
        "freeze": "none" if frozen_layers is None else frozen_layers,
        "steps": STEPS,
        "warmup_steps": WARMUP,
        "batch_size": BATCH,
        "learning_rate": PEAK,
        "betas": [0.9, 0.999],
        "epsilon": 1e-8,
        "weight_decay": DECAY,
        "clip": CLIP,
        "dropout": 0.0,
    }


def make_language_training(folder, task, frozen_layers, path, versions):
    """One training golden: float32 values, and in the metadata how far a float64 run of the same ends from them."""
    data = training_data(folder, task)
    steps, gradients, final = train(folder, task, frozen_layers, data, torch.float32)
    with in_own_type():
        exact_steps, _, exact_final = train(folder, task, frozen_layers, data, torch.float64)
    rounding = {name: float(numpy.abs(final[name] - exact_final[name]).max()) for name in sorted(final)}
    loss_rounding = float((numpy.abs(steps["losses"] - exact_steps["losses"]) / exact_steps["losses"]).max())
    steady = max(value for name, value in rounding.items() if not name.endswith(KEY_BIAS))
    assert steady < TOLERANCE, f"{path.name}: rounding moves a weight by {steady}: choose another SEED"
    metadata = {
        "hyperparameters": json.dumps(hyperparameters(task, frozen_layers)),
        "versions": json.dumps(versions),
        "rounding": json.dumps({"losses_relative": loss_rounding, "final": rounding}),
    }
    tensors = ragged(data.pop("sequences")) | data | steps
    tensors |= {f"gradient.{name}": value.astype(numpy.float16) for name, value in gradients.items()}
    write_tensors(path, tensors | {f"final.{name}": value for name, value in final.items()}, metadata)
    print(
        f"{path.name}: loss {steps['losses'][0]:.4f} -> {steps['losses'][-1]:.4f}, {len(final)} tensors; float64 is off"
        f" by {loss_rounding:.1e} in a loss, {steady:.1e} in a weight, {max(rounding.values()):.1e} in a key bias"
    )
