"""Fine-tune an encoder for classification in plain PyTorch: what Telly's speed, memory and metrics are held against.

    python scripts/bench/pytorch.py frozen --model models/all-MiniLM-L6-v2 --train train.jsonl --test test.jsonl \\
        --text-field sentence --freeze 4 --max-length 64 --learning-rate 1e-4

Four modes, each written as a good script of its kind would be:

full     nothing is frozen.
frozen   Telly-K: the embeddings and the bottom K layers are frozen by `requires_grad`, and run again in every step,
         with dropout; batches are padded to their longest sequence.
cached   Telly-K over a cache in memory: the frozen half runs once, without dropout, over length-sorted batches of the
         distinct sequences; what it puts out is kept packed, in half precision. Every step pads the activations of its
         rows to the longest, makes them single precision, and runs the top layers and the head.
forward  no training: the frozen half runs once over the distinct sequences, in single precision, and is timed.

The attention implementation is the one transformers chooses: `sdpa` where the model has it, else `eager` (MPNet). The
optimizer is PyTorch's fused AdamW, the default of transformers' Trainer. All runs on the CPU, in single precision.

The last line on stdout is one JSON object; progress goes to stderr. Memory is the kernel's high-water mark of the whole
process (VmHWM), the imports and the loading of the model included. Packages: scripts/bench/requirements.txt.
"""

import argparse
import copy
import gc
import gzip
import json
import os
import platform
import random
import sys
import time
from itertools import islice
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModel, get_linear_schedule_with_warmup
from transformers.masking_utils import create_bidirectional_mask

TOKEN_BUDGET = 1024
"""Tokens, padding included, that one batch of the frozen pass may hold: the same as telly's (src/frozen/batches.rs)."""

PROGRESS_SECONDS = 10
"""Seconds between two lines of progress."""


class InputError(Exception):
    """The data or the command line is wrong; the message is a sentence that says how."""


# --- data


def read_rows(path, text_field, label_field, limit=None):
    """The first `limit` records of a JSONL file, gzip or not -> texts, labels as they stand."""
    opener = gzip.open if path.suffix == ".gz" else open
    texts, labels = [], []
    with opener(path, "rt", encoding="utf-8") as lines:
        for number, line in enumerate(islice(lines, limit), start=1):
            record = json.loads(line)
            for field in (text_field, label_field):
                if field not in record:
                    raise InputError(f"{path} line {number} has no `{field}`, but {', '.join(record)}")
            texts.append(record[text_field])
            labels.append(str(record[label_field]))
    return texts, labels


def class_of_label(labels):
    """Label -> class, for the labels of the training split: integers by value, then words by the alphabet."""

    def place(label):
        try:
            return (0, int(label), label)
        except ValueError:
            return (1, 0, label)

    return {label: number for number, label in enumerate(sorted(set(labels), key=place))}


def encode(folder, texts, length):
    """Token ids of each text, cut to `length`; padding that tokenizer.json may ask for is switched off."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(texts)]


def mask_of(lengths):
    """Attention mask of sequences that are padded to the longest: [sequences, longest]."""
    lengths = torch.tensor(lengths)
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()


def padded(sequences, pad):
    """Token ids of some sequences -> ids and attention mask, both [sequences, longest]."""
    ids = pad_sequence(sequences, batch_first=True, padding_value=pad)
    return ids, mask_of([len(sequence) for sequence in sequences])


def token_budget_batches(lengths, budget=TOKEN_BUDGET):
    """Indices of sequences, longest first, in batches of at most `budget` tokens, padding included, as telly's."""
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    begin = 0
    while begin < len(order):
        count = max(1, budget // max(1, lengths[order[begin]]))
        yield order[begin : begin + count]
        begin += count


class Data:
    """Both splits: rows 0.. are the training split's, then come those of the test split."""

    def __init__(self, options):
        texts, labels = read_rows(options.train, options.text_field, options.label_field, options.limit)
        test_texts, test_labels = read_rows(options.test, options.text_field, options.label_field)
        if not texts or not test_texts:
            raise InputError(f"{options.test if texts else options.train} holds no records")
        classes = class_of_label(labels)
        unknown = sorted(set(test_labels) - set(classes))
        if unknown:
            raise InputError(f"the label {unknown[0]!r} of {options.test} is not in {options.train}")
        self.classes = len(classes)
        self.labels = torch.tensor([classes[label] for label in labels + test_labels])
        self.sequences = encode(options.model, texts + test_texts, options.max_length)
        self.train = range(len(texts))
        self.test = range(len(texts), len(self.sequences))

    def lengths(self):
        """Tokens of each row."""
        return [len(sequence) for sequence in self.sequences]

    def distinct(self):
        """The distinct sequences, and for each row which of them is its own."""
        index = {}
        rows = [index.setdefault(tuple(sequence.tolist()), len(index)) for sequence in self.sequences]
        return [torch.tensor(sequence) for sequence in index], rows


# --- models


def load_encoder(folder, dropout):
    """The pre-trained encoder without its pooler, in single precision, with `dropout` everywhere."""
    return AutoModel.from_pretrained(
        folder,
        add_pooling_layer=False,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
        dtype=torch.float32,
    )


def freeze(encoder, layers):
    """Take the embeddings and the bottom `layers` layers out of training.

    MPNet's relative position bias is one table that all layers read: it is frozen as soon as one of them is.
    """
    frozen = [encoder.embeddings, *encoder.encoder.layer[:layers]]
    if layers > 0 and hasattr(encoder.encoder, "relative_attention_bias"):
        frozen.append(encoder.encoder.relative_attention_bias)
    for module in frozen:
        module.requires_grad_(False)


def take_top(encoder, layers):
    """Take all but the bottom `layers` layers off `encoder`, which then puts out what the first of them reads."""
    top = encoder.encoder.layer[layers:]
    encoder.encoder.layer = encoder.encoder.layer[:layers]
    return top


class Head(torch.nn.Module):
    """First token's state, dropout, linear: [sequences, length, width] -> logits [sequences, classes]."""

    def __init__(self, width, classes, dropout):
        super().__init__()
        self.dropout = torch.nn.Dropout(dropout)
        self.linear = torch.nn.Linear(width, classes)
        torch.nn.init.normal_(self.linear.weight, std=0.02)
        torch.nn.init.zeros_(self.linear.bias)

    def forward(self, hidden):
        return self.linear(self.dropout(hidden[:, 0]))


class Classifier(torch.nn.Module):
    """The whole encoder and the head: ids and mask, both [sequences, length] -> logits [sequences, classes]."""

    def __init__(self, encoder, classes, dropout):
        super().__init__()
        self.encoder = encoder
        self.head = Head(encoder.config.hidden_size, classes, dropout)

    def forward(self, ids, mask):
        return self.head(self.encoder(ids, attention_mask=mask).last_hidden_state)


class TopClassifier(torch.nn.Module):
    """The top layers and the head: activations [sequences, length, width], mask -> logits [sequences, classes]."""

    def __init__(self, encoder, top, classes, dropout, longest):
        super().__init__()
        self.config = encoder.config
        self.layer = top
        self.head = Head(encoder.config.hidden_size, classes, dropout)
        self.longest = longest
        # Only MPNet has a position bias: its encoder stays, now without layers, to compute it.
        self.bias_encoder = encoder.encoder if hasattr(encoder.encoder, "compute_position_bias") else None
        self.frozen_bias = None

    def position_bias(self, length):
        """MPNet's relative position bias, [1, heads, length, length]; None of a model without one.

        It depends on the distance of two positions alone, so that of the longest sequence holds all others. While it is
        frozen, it is computed once.
        """
        if self.bias_encoder is None:
            return None
        if self.bias_encoder.relative_attention_bias.weight.requires_grad:
            return self.bias_encoder.compute_position_bias(torch.empty(1, length))
        if self.frozen_bias is None:
            self.frozen_bias = self.bias_encoder.compute_position_bias(torch.empty(1, self.longest))
        return self.frozen_bias[:, :, :length, :length]

    def forward(self, hidden, mask):
        attention_mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=mask)
        bias = self.position_bias(hidden.size(1))
        extra = {} if bias is None else {"position_bias": bias}
        for layer in self.layer:
            output = layer(hidden, attention_mask, **extra)
            hidden = output[0] if isinstance(output, tuple) else output
        return self.head(hidden)


# --- the frozen half


@torch.inference_mode()
def frozen_states(encoder, sequences):
    """What `encoder`, its top layers taken off, puts out: activations and mask of one padded batch."""
    ids, mask = padded(sequences, encoder.config.pad_token_id)
    return encoder(ids, attention_mask=mask).last_hidden_state, mask


def run_frozen_half(encoder, sequences, receive):
    """Run over all `sequences`, length-sorted; `receive(index, states)` gets each one's own. Returns padded tokens."""
    encoder.eval()
    lengths = [len(sequence) for sequence in sequences]
    progress = Progress("frozen half", sum(lengths), "tokens")
    computed = 0
    for batch in token_budget_batches(lengths):
        hidden, mask = frozen_states(encoder, [sequences[index] for index in batch])
        for row, index in enumerate(batch):
            receive(index, hidden[row, : lengths[index]])
        computed += mask.numel()
        progress.advance(sum(lengths[index] for index in batch))
    return computed


class ActivationCache:
    """Activations of the distinct sequences, [tokens, width] in half precision, without padding."""

    def __init__(self, encoder, data):
        sequences, self.sequence_of_row = data.distinct()
        self.lengths = [len(sequence) for sequence in sequences]
        self.offsets = [0]
        for length in self.lengths:
            self.offsets.append(self.offsets[-1] + length)
        self.hidden = torch.empty(self.offsets[-1], encoder.config.hidden_size, dtype=torch.float16)
        run_frozen_half(encoder, sequences, self.put)

    def put(self, index, states):
        """Keep the activations of one sequence."""
        self.hidden[self.offsets[index] : self.offsets[index + 1]] = states

    def batch(self, rows):
        """Activations of some rows in single precision, [rows, longest, width], and their mask."""
        indices = [self.sequence_of_row[row] for row in rows]
        states = [self.hidden[self.offsets[index] : self.offsets[index + 1]] for index in indices]
        return pad_sequence(states, batch_first=True).float(), mask_of([self.lengths[index] for index in indices])


# --- training


class Progress:
    """Lines on stderr, one in PROGRESS_SECONDS."""

    def __init__(self, label, total, unit):
        self.label, self.total, self.unit = label, total, unit
        self.done = 0
        self.started = self.said = time.perf_counter()

    def advance(self, count, note=lambda: ""):
        """`count` more are done; `note` is asked only when a line is due."""
        self.done += count
        now = time.perf_counter()
        if now - self.said >= PROGRESS_SECONDS:
            self.said = now
            seconds = now - self.started
            print(f"{self.label}: {self.done} of {self.total} {self.unit}, {seconds:.0f} s{note()}", file=sys.stderr)


def optimizer_of(model, rate, decay):
    """AdamW over what trains, no weight decay on biases and LayerNorm weights."""
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    plain = [value for name, value in trained if name.endswith("bias") or "LayerNorm" in name]
    decayed = [value for name, value in trained if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate, fused=True)


class Training:
    """A model, what lays out its batches (rows -> its arguments), and what moves its weights."""

    def __init__(self, model, batch, data, options):
        self.model, self.batch, self.data, self.options = model, batch, data, options
        self.trained = [value for value in model.parameters() if value.requires_grad]
        self.steps = options.epochs * -(-len(data.train) // options.batch_size)
        self.optimizer = optimizer_of(model, options.learning_rate, options.weight_decay)
        self.schedule = get_linear_schedule_with_warmup(self.optimizer, int(options.warmup * self.steps), self.steps)
        self.padded_tokens = 0

    def epoch(self, order):
        """One pass over the rows in `order`; returns its seconds."""
        self.model.train()
        size = self.options.batch_size
        progress = Progress("training", -(-len(order) // size), "steps")
        started = time.perf_counter()
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            inputs, mask = self.batch(rows)
            loss = torch.nn.functional.cross_entropy(self.model(inputs, mask), self.data.labels[rows])
            self.optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.trained, self.options.clip)
            self.optimizer.step()
            self.schedule.step()
            self.padded_tokens += mask.numel()
            progress.advance(1, lambda loss=loss: f", loss {loss.item():.4f}")
        return time.perf_counter() - started

    @torch.no_grad()
    def evaluate(self):
        """Accuracy and macro F1 on the test split, rows sorted by length so that batches hold little padding."""
        self.model.eval()
        size = self.options.batch_size
        order = sorted(self.data.test, key=lambda row: len(self.data.sequences[row]))
        predictions = torch.zeros_like(self.data.labels)
        for begin in range(0, len(order), size):
            rows = order[begin : begin + size]
            predictions[rows] = self.model(*self.batch(rows)).argmax(1)
        # Imported here, so that its memory (40 MB) does not count as training's.
        from sklearn.metrics import accuracy_score, f1_score

        labels, predictions = self.data.labels[self.data.test], predictions[self.data.test]
        return {
            "accuracy": float(accuracy_score(labels, predictions)),
            "f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
        }


# --- memory


def memory(field):
    """VmRSS, what is resident now, or VmHWM, its high-water mark, in bytes; None where there is none (not Linux)."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    lines = [line for line in status.splitlines() if line.startswith(f"{field}:")]
    return int(lines[0].split()[1]) * 1024 if lines else None


def reset_peak_memory():
    """Let the high-water mark start anew from what is resident now; False where the kernel refuses."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


# --- modes


def train(options, data):
    """Modes full, frozen and cached: every epoch, then the test split; returns the figures."""
    encoder = load_encoder(options.model, options.dropout)
    check_layers(encoder, options)
    if options.mode != "full":
        freeze(encoder, options.freeze)
    attention = encoder.config._attn_implementation
    precompute_seconds, precompute_peak, training_peak_known = 0.0, None, True
    if options.mode == "cached":
        started = time.perf_counter()
        top = take_top(encoder, options.freeze)
        cache = ActivationCache(encoder, data)
        batch = cache.batch
        # The frozen half is not needed any more: its memory should not count as training's. Weights are mapped from
        # their file, and the whole mapping stays while one of them is used: those that stay move out of it.
        encoder.encoder.layer = torch.nn.ModuleList()
        model = copy.deepcopy(TopClassifier(encoder, top, data.classes, options.dropout, max(cache.lengths)))
        del encoder, top
        gc.collect()
        precompute_seconds = time.perf_counter() - started
        precompute_peak = memory("VmHWM")
        training_peak_known = reset_peak_memory()
    else:
        model = Classifier(encoder, data.classes, options.dropout)
        pad = encoder.config.pad_token_id

        def batch(rows):
            return padded([data.sequences[row] for row in rows], pad)

    training = Training(model, batch, data, options)
    shuffler = random.Random(options.seed)
    epoch_seconds = []
    for _ in range(options.epochs):
        epoch_seconds.append(training.epoch(shuffler.sample(data.train, len(data.train))))
    metrics = training.evaluate()
    training_peak = memory("VmHWM") if training_peak_known else None
    peaks = [peak for peak in (precompute_peak, training_peak) if peak is not None]
    return {
        "epoch_seconds": epoch_seconds,
        "precompute_seconds": precompute_seconds,
        "peak_rss_bytes": max(peaks, default=None),
        "precompute_peak_rss_bytes": precompute_peak,
        "training_peak_rss_bytes": training_peak,
        "trainable_parameters": sum(value.numel() for value in training.trained),
        **metrics,
        "steps": training.steps,
        "tokens": options.epochs * sum(len(data.sequences[row]) for row in data.train),
        "padded_tokens": training.padded_tokens,
        "attention": attention,
    }


def forward(options, data):
    """Mode forward: the frozen half over the distinct sequences of both splits, its output dropped; the figures."""
    encoder = load_encoder(options.model, options.dropout)
    check_layers(encoder, options)
    take_top(encoder, options.freeze)
    sequences, _ = data.distinct()
    started = time.perf_counter()
    padded_tokens = run_frozen_half(encoder, sequences, lambda index, states: None)
    seconds = time.perf_counter() - started
    tokens = sum(len(sequence) for sequence in sequences)
    return {
        "seconds": seconds,
        "sequences": len(sequences),
        "tokens": tokens,
        "padded_tokens": padded_tokens,
        "tokens_per_second": tokens / seconds,
        "peak_rss_bytes": memory("VmHWM"),
        "attention": encoder.config._attn_implementation,
    }


def check_layers(encoder, options):
    """Refuse a K that the model does not have."""
    layers = encoder.config.num_hidden_layers
    if not 0 <= options.freeze <= layers:
        raise InputError(f"--freeze {options.freeze}: the model has {layers} layers")


def parse():
    """The command line."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("mode", choices=["full", "frozen", "cached", "forward"], help="what is run, see below")
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER", help="a BERT, RoBERTa or MPNet encoder")
    parser.add_argument("--train", type=Path, required=True, metavar="FILE", help="JSONL, or JSONL.gz")
    parser.add_argument("--test", type=Path, required=True, metavar="FILE", help="the same, for the metrics at the end")
    parser.add_argument("--text-field", default="text", help="default: text")
    parser.add_argument("--label-field", default="label", help="default: label")
    parser.add_argument("--limit", type=int, metavar="ROWS", help="training rows, from the top (default: all)")
    parser.add_argument("--freeze", type=int, default=4, metavar="K", help="layers frozen, with the embeddings (4)")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--learning-rate", type=float, default=5e-5, help="peak rate (default: 5e-5)")
    parser.add_argument("--max-length", type=int, default=256, help="tokens, special ones included (default: 256)")
    add_training_options(parser)
    return parser.parse_args()


def add_training_options(parser):
    """What every kind of training is told."""
    parser.add_argument("--epochs", type=int, default=1, help="default: 1")
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps (default: 0.1)")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="default: 0.01")
    parser.add_argument("--clip", type=float, default=1.0, help="greatest gradient norm (default: 1.0)")
    parser.add_argument("--dropout", type=float, default=0.1, help="everywhere, the head included (default: 0.1)")
    parser.add_argument("--seed", type=int, default=1, help="head, dropout and order of the rows (default: 1)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one a core")


def set_up(options):
    """Threads and seed; transformers says nothing."""
    torch.set_num_threads(options.threads)
    os.environ["RAYON_NUM_THREADS"] = str(options.threads)  # read by the tokenizer at its first batch
    torch.manual_seed(options.seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def versions():
    """Of what the figures depend on."""
    return {
        "Python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def main():
    """Run the mode that was asked for and print its figures."""
    imports = memory("VmRSS")
    started = time.perf_counter()
    options = parse()
    set_up(options)
    try:
        data = Data(options)
        figures = forward(options, data) if options.mode == "forward" else train(options, data)
    except (InputError, OSError, ValueError) as error:
        sys.exit(f"error: {error}")
    result = {
        "mode": options.mode,
        "freeze": None if options.mode == "full" else options.freeze,
        **figures,
        "total_seconds": time.perf_counter() - started,
        "imports_rss_bytes": imports,
        "seed": options.seed,
        "threads": options.threads,
        "versions": versions(),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
