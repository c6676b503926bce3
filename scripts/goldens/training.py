"""Twenty steps of fine-tuning in PyTorch: classification and search, bottom layers frozen or not."""

import json
import re
from unittest.mock import patch

import numpy
import torch
from tokenizers import Tokenizer
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)
from transformers.models.modernbert import modeling_modernbert

from corpus import SENTENCES
from ragged import encode, padded, ragged, write_tensors
from reference import load
from tiny import SIZES

STEPS = 20
WARMUP = 2
BATCH = 8
ROWS = 32
CLASSES = 3
PEAK = 2e-3
DECAY = 0.01
CLIP = 1.0
SCALE = 20.0
# Adam divides by the size of the gradient: an entry whose gradient is as small as its rounding error moves by chance.
# With this seed no entry does (KEY_BIAS apart): a float64 run ends within TOLERANCE of the float32 run.
SEED = 17
TOLERANCE = 2e-6
PAIRS_SEED = 1  # of the pairs of texts
# The seed of a model's data, where it is another.
SEEDS = {"modernbert-biased-tiny": 27}
# A key bias adds the same to all scores of a query, which softmax does not see: its gradient is zero but for rounding.
KEY_BIAS = ("attention.self.key.bias", "attention.attn.k.bias", "attention.k_lin.bias")
# What transformers' Trainer does not decay.
PLAIN = re.compile(r"bias|LayerNorm|(?:^|[._])norm(?:$|\.)")
# No dropout, in the words of each family; in BERT's where it is not listed.
WITHOUT_DROPOUT = {
    "bert": dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
    "distilbert": dict(dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0),
    "modernbert": dict(embedding_dropout=0.0, attention_dropout=0.0, mlp_dropout=0.0),
}
# What a run may do besides, by the name in its file: the settings of `train`.
OPTIONS = {
    "layer-decay": {"layer_decay": 0.5},
    "label-smoothing": {"label_smoothing": 0.1},
    "class-weights": {"class_weights": [0.5, 1.0, 2.5]},
    "weights-and-smoothing": {"class_weights": [0.5, 1.0, 2.5], "label_smoothing": 0.1},
    "accumulation": {"accumulation": 2},
    "cosine": {"schedule": "cosine"},
    "huggingface": {"head": "huggingface"},
    "huggingface-multi-label": {"head": "huggingface", "objective": "multi-label"},
    "huggingface-regression": {"head": "huggingface", "objective": "regression"},
    "huggingface-pairs": {"head": "huggingface", "pairs": True},
    # Pooled by the mean, with a bias that its configuration leaves out.
    "huggingface-mean": {"head": "huggingface", "classifier_bias": True, "seed": 8},
}
PROBLEMS = {
    "single-label": "single_label_classification",
    "multi-label": "multi_label_classification",
    "regression": "regression",
}
VARIANTS = [
    ("mpnet-tiny", "classify", "cls", None, "layer-decay"),
    ("roberta-tiny", "classify", "cls", None, "layer-decay"),
    ("bert-tiny", "classify", "cls", 1, "label-smoothing"),
    ("bert-tiny", "classify", "cls", 1, "class-weights"),
    ("bert-tiny", "classify", "cls", 1, "weights-and-smoothing"),
    ("bert-tiny", "search", "mean", 1, "accumulation"),
    ("bert-tiny", "classify", "cls", 1, "cosine"),
    ("bert-tiny", "classify", "cls", 1, "huggingface"),
    ("roberta-tiny", "classify", "cls", 1, "huggingface"),
    ("mpnet-tiny", "classify", "cls", 1, "huggingface"),
    ("bert-tiny", "classify", "cls", 1, "huggingface-multi-label"),
    ("roberta-tiny", "classify", "cls", 1, "huggingface-regression"),
    ("distilbert-tiny", "classify", "cls", 1, "huggingface"),
    ("xlm-roberta-tiny", "classify", "cls", None, "huggingface"),
    ("bert-tiny", "classify", "cls", None, "huggingface-pairs"),
    ("bert-tiny", "classify", "cls", 1, "huggingface-pairs"),
    ("modernbert-tiny", "classify", "cls", 1, "huggingface"),
    ("modernbert-biased-tiny", "classify", "mean", 1, "huggingface-mean"),
]
TRAININGS = [
    (model, task, pooling, frozen)
    for model in ("bert-tiny", "roberta-tiny", "mpnet-tiny")
    for task, pooling in (("classify", "cls"), ("search", "mean"))
    for frozen in (1, None)
] + [("bert-tiny", "classify", "mean", 1), ("mpnet-tiny", "classify", "cls", 0)]
TRAININGS += [("xlm-roberta-tiny", "classify", "cls", 1), ("xlm-roberta-tiny", "search", "mean", None)]
TRAININGS += [
    (model, task, pooling, frozen)
    for model in ("distilbert-tiny", "modernbert-tiny")
    for task, pooling in (("classify", "cls"), ("search", "mean"))
    for frozen in (1, None)
]
# Above the last layer there is ModernBERT's norm; the biased one has a local layer at the bottom.
TRAININGS += [("modernbert-tiny", task, pooling, 4) for task, pooling in (("classify", "cls"), ("search", "mean"))]
TRAININGS += [("modernbert-tiny", "classify", "mean", 2), ("modernbert-biased-tiny", "classify", "cls", 0)]
TRAININGS += [("modernbert-biased-tiny", "search", "mean", None)]
# The longest sequence, where it is not 20 tokens: long enough for several of MPNet's wider buckets, and longer than two
# of ModernBERT's windows.
LONGEST = {"mpnet-tiny": 40, "modernbert-tiny": 40, "modernbert-biased-tiny": 40}


def training_name(model, task, pooling, frozen, option=None):
    label = f"{task}-mean" if (task, pooling) == ("classify", "mean") else task
    label = label if option is None else f"{task}-{option}"
    return f"{model}.{label}.freeze-{'none' if frozen is None else frozen}.safetensors"


def random_sequences(folder, count):
    """`count` different token sequences of 3 tokens and more, words drawn from the corpus."""
    longest = LONGEST.get(folder.name, 20)
    generator = numpy.random.default_rng(SEEDS.get(folder.name, SEED) + 1)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    words = " ".join(SENTENCES).split()
    sequences = []
    for length in generator.permutation(numpy.resize(numpy.arange(3, longest + 1), count)):
        while True:
            [sequence] = encode(tokenizer, [" ".join(generator.choice(words, longest))], [length])
            if sequence not in sequences:
                break
        assert len(sequence) == length
        sequences.append(sequence)
    return sequences


def random_pairs(folder, count):
    """`count` token sequences of two texts of 1 to 9 words, and the token types that the tokenizer gives them."""
    generator = numpy.random.default_rng(PAIRS_SEED)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    words = " ".join(SENTENCES).split()
    encoded = []
    for _ in range(count):
        first, second = (" ".join(generator.choice(words, generator.integers(1, 10))) for _ in range(2))
        encoded.append(tokenizer.encode(first, second))
    return [one.ids for one in encoded], [one.type_ids for one in encoded]


def freeze(model, layers):
    """Take the embeddings and the bottom `layers` layers out of training; None leaves everything in.

    MPNet's table of relative positions belongs to every layer: with the bottom layer, it is frozen too.
    """
    if layers is None:
        return
    kind = model.config.model_type
    shared = [model.encoder.relative_attention_bias] if layers and kind == "mpnet" else []
    if kind == "modernbert":
        all_layers = model.layers
    else:
        all_layers = (model.transformer if kind == "distilbert" else model.encoder).layer
    for module in [model.embeddings, *all_layers[:layers], *shared]:
        module.requires_grad_(False)


def masked_mean(hidden, mask):
    """Mean over the positions that are not padding: [sequences, length, width] -> [sequences, width]."""
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


def pool(model, sequences, pooling):
    """One vector a sequence, from the last layer: the first token's, or the masked mean."""
    ids, mask = padded(sequences, model.config.pad_token_id)
    hidden = model(ids, attention_mask=mask).last_hidden_state
    return hidden[:, 0] if pooling == "cls" else masked_mean(hidden, mask)


def classify_loss(model, classifier, sequences, labels, pooling, rows, options):
    """Cross-entropy of the batch; row r is sequence r."""
    logits = classifier(pool(model, [sequences[row] for row in rows], pooling))
    weights = options.get("class_weights")
    criterion = torch.nn.CrossEntropyLoss(
        weight=None if weights is None else torch.tensor(weights, dtype=logits.dtype),
        label_smoothing=options.get("label_smoothing", 0.0),
    )
    return criterion(logits, torch.tensor([labels[row] for row in rows]))


def search_loss(model, sequences, rows):
    """In-batch cross-entropy, query -> code only; row r is query 2r and code 2r + 1."""
    queries = torch.nn.functional.normalize(pool(model, [sequences[2 * row] for row in rows], "mean"), dim=-1)
    codes = torch.nn.functional.normalize(pool(model, [sequences[2 * row + 1] for row in rows], "mean"), dim=-1)
    return torch.nn.functional.cross_entropy(SCALE * queries @ codes.T, torch.arange(len(rows)))


def without_dropout(folder):
    """The fields of `config.json` that turn dropout off in the model in `folder`."""
    kind = AutoConfig.from_pretrained(folder).model_type
    return WITHOUT_DROPOUT.get(kind, WITHOUT_DROPOUT["bert"])


def load_classifier(folder, pooling, data, options):
    """The family's ...ForSequenceClassification without dropout, its fresh tensors those of `data`."""
    objective = options.get("objective", "single-label")
    model = AutoModelForSequenceClassification.from_pretrained(
        folder,
        num_labels=1 if objective == "regression" else CLASSES,
        problem_type=PROBLEMS[objective],
        attn_implementation="eager",
        dtype=torch.float32,
        **without_dropout(folder),
        **own_settings(folder, pooling, options),
    )
    values = dict(model.named_parameters())
    with torch.no_grad():
        for name in head_names(folder):
            values[name].copy_(torch.from_numpy(data[f"initial.{name}"]))
    return model


def own_settings(folder, pooling, options):
    """The fields of `config.json` that set the classifier of a family that has such."""
    if not folder.name.startswith("modernbert"):
        return {}
    return {"classifier_pooling": pooling, "classifier_bias": options.get("classifier_bias", False)}


def head_names(folder):
    """What transformers draws anew on top of a family."""
    if folder.name in ("bert-tiny", "modernbert-tiny"):
        return ["classifier.weight", "classifier.bias"]
    if folder.name == "modernbert-biased-tiny":
        return [f"{layer}.{part}" for layer in ("head.dense", "head.norm", "classifier") for part in ("weight", "bias")]
    if folder.name == "distilbert-tiny":
        return [f"{layer}.{part}" for layer in ("pre_classifier", "classifier") for part in ("weight", "bias")]
    return [f"classifier.{layer}.{part}" for layer in ("dense", "out_proj") for part in ("weight", "bias")]


def transformers_loss(model, data, rows):
    """The loss that the model itself gives."""
    ids, mask = padded([data["sequences"][row] for row in rows], model.config.pad_token_id)
    [name] = [name for name in ("labels", "label_sets", "label_numbers") if name in data]
    labels = torch.from_numpy(data[name][rows])
    inputs = {"input_ids": ids, "attention_mask": mask}
    if "types" in data:
        inputs["token_type_ids"], _ = padded([data["types"][row] for row in rows], 0)
    return model(**inputs, labels=labels if name == "labels" else labels.to(model.dtype)).loss


def optimizer_of(parameters, layer_decay=None):
    """AdamW in two groups, by name as transformers' Trainer does: no weight decay on biases and LayerNorm weights.

    With `layer_decay`, two groups a layer, with BEiT's rates: the head's is PEAK, each lower layer's a share of that of
    the one above, the embeddings' the last.
    """
    by_scale = {}
    for name, value in parameters.items():
        depth = SIZES["num_hidden_layers"] + 1
        if name.startswith("embeddings."):
            depth = 0
        elif name.startswith("encoder.layer."):
            depth = int(name.split(".")[2]) + 1
        scale = 1.0 if layer_decay is None else layer_decay ** (SIZES["num_hidden_layers"] + 1 - depth)
        by_scale.setdefault(scale, {})[name] = value
    groups = []
    for scale, members in by_scale.items():
        plain = [value for name, value in members.items() if PLAIN.search(name)]
        decayed = [value for name, value in members.items() if not PLAIN.search(name)]
        groups += [{"params": decayed, "weight_decay": DECAY, "lr": scale * PEAK}] if decayed else []
        groups += [{"params": plain, "weight_decay": 0.0, "lr": scale * PEAK}] if plain else []
    # The head's, whose rate is logged, comes first.
    groups.sort(key=lambda group: -group["lr"])
    return torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.999), eps=1e-8)


def attention_in_own_type(module, query, key, value, attention_mask, scaling, **_):
    """Transformers' eager attention of ModernBERT, without dropout and without the softmax in float32."""
    scores = query @ key.transpose(2, 3) * scaling + attention_mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


def turn_in_own_type(query, key, cos, sin, unsqueeze_dim=1):
    """Transformers' rotary positions, without the conversion to float32."""
    cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
    half = modeling_modernbert.rotate_half
    return query * cos + half(query) * sin, key * cos + half(key) * sin


IN_OWN_TYPE = {"eager_attention_forward": attention_in_own_type, "apply_rotary_pos_emb": turn_in_own_type}


def train(folder, task, pooling, frozen_layers, data, dtype, options):
    """Twenty steps. Returns per-step records and the trained tensors, as f64 or f32 arrays, under checkpoint names.

    Dropout is 0 everywhere; the model is in training mode all the same, as a user's would be.
    """
    own_head = options.get("head") == "huggingface"
    if own_head:
        model = load_classifier(folder, pooling, data, options).to(dtype).train()
        freeze(model.base_model, frozen_layers)
    else:
        model = load(folder, **without_dropout(folder)).to(dtype).train()
        freeze(model, frozen_layers)
    prefix = model.base_model_prefix + "."
    parameters = {
        name.removeprefix(prefix): value for name, value in model.named_parameters() if value.requires_grad
    }
    if task == "classify" and not own_head:
        classifier = torch.nn.Linear(model.config.hidden_size, CLASSES)
        with torch.no_grad():
            classifier.weight.copy_(torch.from_numpy(data["initial.classifier.weight"]))
            classifier.bias.copy_(torch.from_numpy(data["initial.classifier.bias"]))
        classifier.to(dtype)
        parameters |= {f"classifier.{name}": value for name, value in classifier.named_parameters()}
    optimizer = optimizer_of(parameters, options.get("layer_decay"))
    cosine = options.get("schedule") == "cosine"
    scheduler = get_cosine_schedule_with_warmup if cosine else get_linear_schedule_with_warmup
    schedule = scheduler(optimizer, WARMUP, STEPS)
    accumulation = options.get("accumulation", 1)
    losses, rates, norms = [], [], []
    for rows in data["batches"].tolist():
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.zero_grad()
        total = 0.0
        size = len(rows) // accumulation
        for part in [rows[start : start + size] for start in range(0, len(rows), size)]:
            if own_head:
                loss = transformers_loss(model, data, part)
            elif task == "classify":
                labels = data["labels"].tolist()
                loss = classify_loss(model, classifier, data["sequences"], labels, pooling, part, options)
            else:
                loss = search_loss(model, data["sequences"], part)
            loss = loss / accumulation
            loss.backward()
            total += loss.item()
        assert all(value.grad is not None for value in parameters.values())
        norms.append(torch.nn.utils.clip_grad_norm_(parameters.values(), CLIP).item())
        optimizer.step()
        schedule.step()
        losses.append(total)
    steps = {"losses": losses, "learning_rates": rates, "gradient_norms": norms}
    final = {name: value.detach().numpy() for name, value in parameters.items()}
    return {name: numpy.array(values, dtype=numpy.float64) for name, values in steps.items()}, final


def training_data(folder, task, options):
    """What both the reference and Telly start from: sequences, batches, labels, the head's initial values."""
    generator = numpy.random.default_rng(options.get("seed", SEEDS.get(folder.name, SEED)))
    data = {
        "sequences": random_sequences(folder, ROWS if task == "classify" else 2 * ROWS),
        "batches": numpy.stack([generator.permutation(ROWS)[:BATCH] for _ in range(STEPS)]).astype(numpy.int64),
    }
    if "pairs" in options:
        data["sequences"], data["types"] = random_pairs(folder, ROWS)
    if task == "classify":
        data["labels"] = generator.permutation(numpy.arange(ROWS) % CLASSES).astype(numpy.int64)
        head = 0.15 * generator.standard_normal((CLASSES, SIZES["hidden_size"]))
        data["initial.classifier.weight"] = head.astype(numpy.float32)
        data["initial.classifier.bias"] = (0.1 * generator.standard_normal(CLASSES)).astype(numpy.float32)
    if options.get("head") == "huggingface":
        own_head_data(folder, options, generator, data)
    return data


def own_head_data(folder, options, generator, data):
    """Puts the family's own head in place of the linear one, and labels of other kinds in place of classes."""
    width, objective = SIZES["hidden_size"], options.get("objective", "single-label")
    for name in ("initial.classifier.weight", "initial.classifier.bias"):
        del data[name]
    for name in head_names(folder):
        inner = any(part in name for part in ("dense.", "pre_classifier.", "norm."))
        outputs = width if inner else 1 if objective == "regression" else CLASSES
        matrix = name.endswith("weight") and ".norm." not in name
        shape, size = ((outputs, width), 0.15) if matrix else ((outputs,), 0.1)
        values = size * generator.standard_normal(shape) + (1 if name.endswith("norm.weight") else 0)
        data[f"initial.{name}"] = values.astype(numpy.float32)
    if objective == "multi-label":
        del data["labels"]
        data["label_sets"] = generator.integers(0, 2, (ROWS, CLASSES)).astype(numpy.uint8)
    if objective == "regression":
        del data["labels"]
        data["label_numbers"] = generator.standard_normal(ROWS).astype(numpy.float32)


def hyperparameters(task, pooling, frozen_layers, options):
    """What Telly has to be told to repeat the run."""
    return {
        "task": task,
        "pooling": pooling,
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
        "scale": SCALE if task == "search" else None,
        "classes": CLASSES if task == "classify" else None,
    } | options


def make_training(folder, task, pooling, frozen_layers, path, versions, option=None):
    """One training golden: float32 values, and in the metadata how far a float64 run of the same ends from them."""
    options = OPTIONS.get(option, {})
    data = training_data(folder, task, options)
    steps, final = train(folder, task, pooling, frozen_layers, data, torch.float32, options)
    # ModernBERT's code falls back to float32 in places, and the lowest float64 is no float32.
    with patch.multiple(modeling_modernbert, **IN_OWN_TYPE):
        exact_steps, exact_final = train(folder, task, pooling, frozen_layers, data, torch.float64, options)
    rounding = {name: float(numpy.abs(final[name] - exact_final[name]).max()) for name in sorted(final)}
    loss_rounding = float((numpy.abs(steps["losses"] - exact_steps["losses"]) / exact_steps["losses"]).max())
    steady = max(value for name, value in rounding.items() if not name.endswith(KEY_BIAS))
    assert steady < TOLERANCE, f"{path.name}: rounding moves a weight by {steady}: choose another SEED"
    metadata = {
        "hyperparameters": json.dumps(hyperparameters(task, pooling, frozen_layers, options)),
        "versions": json.dumps(versions),
        "rounding": json.dumps({"losses_relative": loss_rounding, "final": rounding}),
    }
    data.pop("types", None)
    tensors = ragged(data.pop("sequences")) | data | steps
    write_tensors(path, tensors | {f"final.{name}": value for name, value in final.items()}, metadata)
    print(
        f"{path.name}: loss {steps['losses'][0]:.4f} -> {steps['losses'][-1]:.4f}; float64 differs by"
        f" {loss_rounding:.1e} in a loss, {steady:.1e} in a weight, {max(rounding.values()):.1e} in a key bias"
    )
