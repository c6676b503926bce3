"""Twenty steps of fine-tuning in PyTorch for clone detection: cosine, CodeXGLUE's classifier, contrast by groups."""

import json

import numpy
import torch
from transformers import get_linear_schedule_with_warmup

from ragged import ragged, write_tensors
from reference import load
from tiny import SIZES
from training import (
    BATCH,
    CLIP,
    DECAY,
    KEY_BIAS,
    PEAK,
    ROWS,
    SCALE,
    STEPS,
    TOLERANCE,
    WARMUP,
    freeze,
    pool,
    random_sequences,
)

FUNCTIONS = 40
GROUPS = 8
# With these no entry's gradient is as small as its rounding error: see training.py.
SEED = 23
TRAININGS = [
    ("bert-tiny", "cosine", "mean", 1),
    ("roberta-tiny", "cosine", "mean", None),
    ("bert-tiny", "concat", "cls", 1),
    ("roberta-tiny", "concat", "cls", 1),
    ("bert-tiny", "contrast", "mean", 1),
    ("mpnet-tiny", "contrast", "mean", 1),
]


class Concat(torch.nn.Module):
    """CodeXGLUE's classifier over two functions' first tokens; dropout is 0 here."""

    def __init__(self, hidden):
        super().__init__()
        self.dense = torch.nn.Linear(2 * hidden, hidden)
        self.out_proj = torch.nn.Linear(hidden, 2)

    def forward(self, first, second):
        return self.out_proj(torch.tanh(self.dense(torch.cat((first, second), -1))))


def unit(vectors):
    return torch.nn.functional.normalize(vectors, dim=-1)


def pair_loss(model, head, pooling, data, rows):
    """Squared distance of the cosine from the label, or the classifier's cross-entropy."""
    first, second = (
        pool(model, [data["sequences"][data["pairs"][row, side]] for row in rows], pooling) for side in (0, 1)
    )
    labels = torch.tensor(data["labels"][rows])
    if head is not None:
        return torch.nn.functional.cross_entropy(head(first, second), labels)
    cosines = (unit(first) * unit(second)).sum(-1)
    return torch.nn.functional.mse_loss(cosines, labels.to(cosines.dtype))


def contrast_loss(model, pooling, data, rows):
    """Each row's partner against the rows of other groups and their partners, as UniXcoder's recipe for POJ-104 has it,
    but for the one negative that it draws besides."""
    anchors, partners = (
        unit(pool(model, [data["sequences"][row] for row in side], pooling)) for side in (rows, data["partners"][rows])
    )
    groups = torch.tensor(data["groups"][rows])
    own = (anchors * partners).sum(-1, keepdim=True) * SCALE
    others = anchors @ torch.cat((anchors, partners)).T * SCALE
    same = groups[:, None] == torch.cat((groups, groups))[None, :]
    scores = torch.cat((own, others.masked_fill(same, -1e9)), -1)
    return -torch.log_softmax(scores, -1)[:, 0].mean()


def train(folder, kind, pooling, frozen_layers, data, dtype):
    """Twenty steps. Returns their losses and the trained tensors, under the names that Telly gives them."""
    model = load(folder, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).to(dtype).train()
    freeze(model, frozen_layers)
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    head = None
    if kind == "concat":
        head = Concat(model.config.hidden_size)
        prefix = "initial.classifier."
        head.load_state_dict({name: torch.from_numpy(data[prefix + name]) for name in head.state_dict()})
        head.to(dtype)
        parameters |= {f"classifier.{name}": value for name, value in head.named_parameters()}
    plain = [value for name, value in parameters.items() if "bias" in name or "LayerNorm" in name]
    decayed = [value for name, value in parameters.items() if not ("bias" in name or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": DECAY}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.999), eps=1e-8)
    schedule = get_linear_schedule_with_warmup(optimizer, WARMUP, STEPS)
    losses = []
    for rows in data["batches"]:
        if kind == "contrast":
            loss = contrast_loss(model, pooling, data, rows)
        else:
            loss = pair_loss(model, head, pooling, data, rows)
        optimizer.zero_grad()
        loss.backward()
        assert all(value.grad is not None for value in parameters.values())
        torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    final = {name: value.detach().numpy() for name, value in parameters.items()}
    return numpy.array(losses, dtype=numpy.float64), final


def training_data(folder, kind):
    """What both the reference and Telly start from. Functions come in several pairs."""
    generator = numpy.random.default_rng(SEED)
    data = {
        "sequences": random_sequences(folder, ROWS if kind == "contrast" else FUNCTIONS),
        "batches": numpy.stack([generator.permutation(ROWS)[:BATCH] for _ in range(STEPS)]).astype(numpy.int64),
    }
    if kind == "contrast":
        data["groups"] = generator.permutation(numpy.arange(ROWS) % GROUPS).astype(numpy.int64)
        partner = [
            generator.choice([other for other in range(ROWS) if other != row and data["groups"][other] == group])
            for row, group in enumerate(data["groups"])
        ]
        data["partners"] = numpy.array(partner, dtype=numpy.int64)
        return data
    pairs = [generator.choice(FUNCTIONS, 2, replace=False) for _ in range(ROWS)]
    data["pairs"] = numpy.array(pairs, dtype=numpy.int64)
    data["labels"] = generator.permutation(numpy.arange(ROWS) % 2).astype(numpy.int64)
    if kind == "concat":
        hidden = SIZES["hidden_size"]
        shapes = {"dense.weight": (hidden, 2 * hidden), "dense.bias": hidden, "out_proj.weight": (2, hidden)}
        for name, shape in (shapes | {"out_proj.bias": 2}).items():
            values = 0.15 * generator.standard_normal(shape)
            data[f"initial.classifier.{name}"] = values.astype(numpy.float32)
    return data


def make_clones(out, versions):
    """A golden a training: float32 values; a float64 run of the same may not end far from them."""
    for model, kind, pooling, frozen_layers in TRAININGS:
        data = training_data(out / model, kind)
        losses, final = train(out / model, kind, pooling, frozen_layers, data, torch.float32)
        exact_losses, exact = train(out / model, kind, pooling, frozen_layers, data, torch.float64)
        names = [name for name in final if not name.endswith(KEY_BIAS)]
        rounding = max(float(numpy.abs(final[name] - exact[name]).max()) for name in names)
        label = f"{model}.clone-{kind}.freeze-{'none' if frozen_layers is None else frozen_layers}"
        print(f"{label}: loss {losses[0]:.4f} -> {losses[-1]:.4f}; float64 differs by {rounding:.1e} in a weight")
        assert rounding < TOLERANCE, f"{label}: rounding moves a weight by {rounding}: choose another SEED"
        tensors = ragged(data.pop("sequences")) | data | {"losses": losses}
        tensors |= {f"final.{name}": value for name, value in final.items()}
        path = out / "training" / f"{label}.safetensors"
        write_tensors(path, tensors, {"versions": json.dumps(versions)})
