"""Fine-tune an encoder on SST-2 by hand in PyTorch: the figure that Telly's accuracy and speed are held against.

    python scripts/bench/sst2_pytorch.py --model models/all-MiniLM-L6-v2 --train train.jsonl.gz --test test.jsonl.gz \\
        --freeze 4 --seed 1

Frozen layers run forward in every step, with dropout, as fine-tuning scripts that freeze by `requires_grad` do.
The last line on stdout is one JSON object; progress goes to stderr. Packages: scripts/goldens/requirements.txt.
"""

import argparse
import gzip
import json
import random
import resource
import sys
import time
from pathlib import Path

import torch
import transformers
from sklearn.metrics import accuracy_score, f1_score
from tokenizers import Tokenizer
from transformers import AutoModel, get_linear_schedule_with_warmup


def read_rows(path, limit=None):
    """The first `limit` records of a JSONL file, gzip or not -> sentences, labels."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for _, line in zip(range(limit or sys.maxsize), lines)]
    return [record["sentence"] for record in records], [int(record["label"]) for record in records]


def encode(folder, sentences, length):
    """Token ids of each sentence, cut to `length`; padding that tokenizer.json may ask for is switched off."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(length)
    return [encoding.ids for encoding in tokenizer.encode_batch(sentences)]


def padded(sequences, pad):
    """Lists of token ids -> ids and attention mask, both [sequences, longest]."""
    longest = max(len(sequence) for sequence in sequences)
    ids = torch.tensor([sequence + [pad] * (longest - len(sequence)) for sequence in sequences])
    mask = torch.tensor([[1] * len(sequence) + [0] * (longest - len(sequence)) for sequence in sequences])
    return ids, mask


class Classifier(torch.nn.Module):
    """Encoder, first token's last hidden state, dropout, linear: [sequences, length] -> logits [sequences, 2]."""

    def __init__(self, folder, dropout):
        super().__init__()
        self.encoder = AutoModel.from_pretrained(
            folder,
            add_pooling_layer=False,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            dtype=torch.float32,
        )
        self.dropout = torch.nn.Dropout(dropout)
        self.head = torch.nn.Linear(self.encoder.config.hidden_size, 2)
        torch.nn.init.normal_(self.head.weight, std=0.02)
        torch.nn.init.zeros_(self.head.bias)

    def forward(self, sequences):
        ids, mask = padded(sequences, self.encoder.config.pad_token_id)
        hidden = self.encoder(ids, attention_mask=mask).last_hidden_state
        return self.head(self.dropout(hidden[:, 0]))


def freeze(encoder, layers):
    """Take the embeddings and the bottom `layers` layers out of training; None leaves everything in."""
    if layers is None:
        return
    for module in [encoder.embeddings, *encoder.encoder.layer[:layers]]:
        module.requires_grad_(False)


def optimizer_of(model, rate, decay):
    """AdamW over what trains, no weight decay on biases and LayerNorm weights."""
    trained = [(name, value) for name, value in model.named_parameters() if value.requires_grad]
    plain = [value for name, value in trained if name.endswith("bias") or "LayerNorm" in name]
    decayed = [value for name, value in trained if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=rate)


def train_epoch(model, sequences, labels, order, options, optimizer, schedule):
    """One pass over the rows in `order`; returns its seconds."""
    model.train()
    trained = [value for value in model.parameters() if value.requires_grad]
    started = time.perf_counter()
    for step, begin in enumerate(range(0, len(order), options.batch_size), start=1):
        rows = order[begin : begin + options.batch_size]
        logits = model([sequences[row] for row in rows])
        loss = torch.nn.functional.cross_entropy(logits, torch.tensor([labels[row] for row in rows]))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, options.clip)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(f"step {step}: loss {loss.item():.4f}, {time.perf_counter() - started:.1f} s", file=sys.stderr)
    return time.perf_counter() - started


def evaluate(model, sequences, labels, batch_size):
    """Accuracy and macro F1, rows sorted by length so that batches hold little padding."""
    model.eval()
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row]))
    predictions = [0] * len(sequences)
    with torch.no_grad():
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            for row, label in zip(rows, model([sequences[row] for row in rows]).argmax(1).tolist()):
                predictions[row] = label
    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", zero_division=0)),
    }


def layer_count(text):
    return None if text == "none" else int(text)


def parse():
    parser = argparse.ArgumentParser(description="Fine-tune an encoder on SST-2 in plain PyTorch.")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of a BERT or RoBERTa encoder")
    parser.add_argument("--train", type=Path, required=True, help="JSONL or JSONL.gz with `sentence` and `label`")
    parser.add_argument("--test", type=Path, required=True, help="the same, for the figures at the end")
    parser.add_argument("--valid", type=Path, help="the same, evaluated after each epoch")
    parser.add_argument("--rows", type=int, default=12_800, help="training rows, from the top (default: 12800)")
    parser.add_argument("--freeze", type=layer_count, default=4, help="layers frozen with the embeddings, or none (4)")
    parser.add_argument("--epochs", type=int, default=1, help="default: 1")
    parser.add_argument("--batch-size", type=int, default=32, help="default: 32")
    parser.add_argument("--learning-rate", type=float, default=1e-4, help="peak rate (default: 1e-4)")
    parser.add_argument("--warmup", type=float, default=0.1, help="share of the steps (default: 0.1)")
    parser.add_argument("--weight-decay", type=float, default=0.01, help="default: 0.01")
    parser.add_argument("--clip", type=float, default=1.0, help="greatest gradient norm (default: 1.0)")
    parser.add_argument("--max-length", type=int, default=64, help="tokens, special ones included (default: 64)")
    parser.add_argument("--dropout", type=float, default=0.1, help="everywhere, the head included (default: 0.1)")
    parser.add_argument("--seed", type=int, default=1, help="head, dropout and order of the rows (default: 1)")
    parser.add_argument("--threads", type=int, default=2, help="default: 2")
    parser.add_argument("--json", type=Path, help="also append the JSON line to this file")
    return parser.parse_args()


def main():
    options = parse()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    sentences, labels = read_rows(options.train, options.rows)
    sequences = encode(options.model, sentences, options.max_length)
    model = Classifier(options.model, options.dropout)
    freeze(model.encoder, options.freeze)
    optimizer = optimizer_of(model, options.learning_rate, options.weight_decay)
    steps = options.epochs * -(-len(sequences) // options.batch_size)
    schedule = get_linear_schedule_with_warmup(optimizer, int(options.warmup * steps), steps)
    shuffler = random.Random(options.seed)
    seconds, valid = [], []
    for _ in range(options.epochs):
        order = shuffler.sample(range(len(sequences)), len(sequences))
        seconds.append(train_epoch(model, sequences, labels, order, options, optimizer, schedule))
        if options.valid:
            valid_sentences, valid_labels = read_rows(options.valid)
            valid_sequences = encode(options.model, valid_sentences, options.max_length)
            valid.append(evaluate(model, valid_sequences, valid_labels, options.batch_size))
    test_sentences, test_labels = read_rows(options.test)
    test_sequences = encode(options.model, test_sentences, options.max_length)
    result = {
        "seed": options.seed,
        "freeze": "none" if options.freeze is None else options.freeze,
        **evaluate(model, test_sequences, test_labels, options.batch_size),
        "valid": valid,
        "rows": len(sequences),
        "tokens": sum(map(len, sequences)),
        "steps": steps,
        "epoch_seconds": sorted(seconds)[len(seconds) // 2],
        "threads": options.threads,
        "trainable_parameters": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "versions": {"torch": torch.__version__.split("+")[0], "transformers": transformers.__version__},
    }
    print(json.dumps(result))
    if options.json:
        with options.json.open("a") as lines:
            lines.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
