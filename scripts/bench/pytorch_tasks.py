"""The PyTorch side of scripts/bench/tasks.py: one case, the frozen layers run again in every step.

    python scripts/bench/pytorch_tasks.py --case pystd --model models/all-MiniLM-L6-v2 --data cache/tasks/pystd/data

The embeddings and the bottom K layers are frozen by `requires_grad`; each column of a batch is padded to its longest
sequence; dropout is on everywhere, as scripts/bench/pytorch.py's mode `frozen` has it, of which the model, the
optimizer and the batches are. All vectors are means over all tokens. What is learnt:

classify  dropout, a linear layer, cross-entropy
search    cosines of each query with all codes of the batch, times 20, cross-entropy
pairs     (cosine - label)^2
groups    each row with another of its group: its cosine with that one, times 20, against those with all rows of other
          groups and their partners (src/task/contrast.rs)

The last line on stdout is one JSON object.
"""

import argparse
import json
import random
import time
from pathlib import Path

import numpy
import torch
from pytorch import (
    Progress,
    add_training_options,
    encode,
    freeze,
    load_encoder,
    memory,
    optimizer_of,
    padded,
    set_up,
    versions,
)
from task_cases import CASES, read_part
from torch.nn.functional import cross_entropy, normalize
from transformers import get_linear_schedule_with_warmup

SCORE_SCALE = 20.0


class TaskModel(torch.nn.Module):
    """The encoder, and for classify a linear layer: ids and mask, both [sequences, length] -> [sequences, width]."""

    def __init__(self, encoder, classes, dropout):
        super().__init__()
        self.encoder = encoder
        self.head = None
        if classes:
            self.head = torch.nn.Sequential(
                torch.nn.Dropout(dropout), torch.nn.Linear(encoder.config.hidden_size, classes)
            )
            torch.nn.init.normal_(self.head[1].weight, std=0.02)
            torch.nn.init.zeros_(self.head[1].bias)

    def forward(self, ids, mask):
        hidden = self.encoder(ids, attention_mask=mask).last_hidden_state
        weights = mask[:, :, None].to(hidden.dtype)
        pooled = (hidden * weights).sum(1) / weights.sum(1)
        return self.head(pooled) if self.head else normalize(pooled, dim=1)


class Task:
    """The rows of both splits as token ids, the loss of a batch, and the metric of the test split."""

    def __init__(self, options):
        self.case = case = CASES[options.case]
        (train_rows, train_targets), (test_rows, test_targets) = read_part(case, options.data)
        self.train_targets, self.test_targets = torch.tensor(train_targets), numpy.array(test_targets)
        self.classes = len(set(train_targets)) if case.task == "classify" else 0
        self.train, self.test = (
            [encode(options.model, [row[column] for row in rows], length) for column, length in enumerate(case.lengths)]
            for rows in (train_rows, test_rows)
        )
        self.groups = {}
        for row, group in enumerate(train_targets):
            self.groups.setdefault(group, []).append(row)

    def distinct_tokens(self):
        """Tokens of the distinct sequences of both splits."""
        return sum(map(len, {tuple(ids.tolist()) for column in self.train + self.test for ids in column}))

    def columns(self, rows, draw):
        """Row numbers of each column of a batch, with the place of the column."""
        if self.case.task != "groups":
            return [(column, rows) for column in range(len(self.train))]
        others = [[other for other in self.groups[int(self.train_targets[row])] if other != row] for row in rows]
        return [(0, rows), (0, [draw.choice(choices) for choices in others])]

    def loss(self, outputs, rows):
        """Of a batch, from what the model makes of its columns."""
        targets = self.train_targets[rows]
        if self.case.task == "classify":
            return cross_entropy(outputs[0], targets)
        first, second = outputs
        if self.case.task == "pairs":
            return (((first * second).sum(1) - targets) ** 2).mean()
        if self.case.task == "search":
            return cross_entropy(SCORE_SCALE * first @ second.T, torch.arange(len(rows)))
        same = targets[:, None] == targets[None]
        own = torch.eye(len(rows), dtype=torch.bool)
        scores = SCORE_SCALE * first @ torch.cat([first, second]).T
        scores = scores.masked_fill(torch.cat([same, same & ~own], 1), -1e9)
        return cross_entropy(scores, torch.arange(len(rows), 2 * len(rows)))

    @torch.no_grad()
    def metric(self, model, pad, size):
        """The case's metric on the test split."""
        from sklearn.metrics import accuracy_score, f1_score

        model.eval()
        outputs = [outputs_of(model, column, pad, size) for column in self.test]
        targets = self.test_targets
        if self.case.task == "classify":
            return float(accuracy_score(targets, outputs[0].argmax(1)))
        if self.case.task == "pairs":
            return float(f1_score(targets, (outputs[0] * outputs[1]).sum(1) > 0.5))
        if self.case.task == "search":
            return mean_reciprocal_rank(*outputs, [tuple(ids.tolist()) for ids in self.test[1]])
        return map_at_r(outputs[0], targets)


def outputs_of(model, sequences, pad, size):
    """What the model makes of each sequence: [sequences, width]; equal ones once, batches are sorted by length."""
    keys = [tuple(ids.tolist()) for ids in sequences]
    distinct = sorted(dict(zip(keys, sequences)).items(), key=lambda item: len(item[0]))
    outputs = {}
    progress = Progress("test", len(distinct), "sequences")
    for begin in range(0, len(distinct), size):
        batch = distinct[begin : begin + size]
        made = model(*padded([ids for _, ids in batch], pad)).numpy()
        outputs |= zip((key for key, _ in batch), made)
        progress.advance(len(batch))
    return numpy.stack([outputs[key] for key in keys])


def mean_reciprocal_rank(queries, codes, keys):
    """Of each query's code among all codes; equal scores of other codes rank before it, equal codes do not count."""
    number = {key: place for place, key in enumerate(set(keys))}
    numbers = numpy.array([number[key] for key in keys])
    scores = queries @ codes.T
    own = scores.diagonal()[:, None]
    ranks = 1 + ((scores >= own) & (numbers[:, None] != numbers[None])).sum(1)
    return float((1 / ranks).mean())


def map_at_r(vectors, groups):
    """CodeXGLUE's: of the R others of a row's group, average precision over the first R of all others."""
    scores = vectors @ vectors.T
    numpy.fill_diagonal(scores, -numpy.inf)
    precisions = []
    for row, order in enumerate(numpy.argsort(-scores, axis=1)):
        wanted = int((groups == groups[row]).sum()) - 1
        hits = groups[order[:wanted]] == groups[row]
        precisions.append((hits * hits.cumsum() / numpy.arange(1, wanted + 1)).sum() / wanted)
    return float(numpy.mean(precisions))


def train(model, task, options, pad):
    """All epochs; returns the seconds of each."""
    case = task.case
    count = len(task.train[0])
    steps = options.epochs * -(-count // case.batch_size)
    trained = [value for value in model.parameters() if value.requires_grad]
    optimizer = optimizer_of(model, case.learning_rate, options.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, int(options.warmup * steps), steps)
    draw = random.Random(options.seed)
    progress = Progress("training", steps, "steps")
    epochs = []
    for _ in range(options.epochs):
        order = draw.sample(range(count), count)
        model.train()
        started = time.perf_counter()
        for begin in range(0, count, case.batch_size):
            rows = order[begin : begin + case.batch_size]
            columns = task.columns(rows, draw)
            outputs = [model(*padded([task.train[column][row] for row in those], pad)) for column, those in columns]
            loss = task.loss(outputs, rows)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, options.clip)
            optimizer.step()
            schedule.step()
            progress.advance(1, lambda loss=loss: f", loss {loss.item():.4f}")
        epochs.append(time.perf_counter() - started)
    return epochs


def parse():
    """The command line."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the rows that tasks.py wrote")
    add_training_options(parser)
    return parser.parse_args()


def main():
    """Run the case and print its figures."""
    options = parse()
    set_up(options)
    task = Task(options)
    encoder = load_encoder(options.model, options.dropout)
    freeze(encoder, task.case.freeze)
    pad = encoder.config.pad_token_id
    model = TaskModel(encoder, task.classes, options.dropout)
    epochs = train(model, task, options, pad)
    figures = {
        "epoch_seconds": epochs,
        "metric": task.metric(model, pad, task.case.batch_size),
        "distinct_tokens": task.distinct_tokens(),
        "peak_rss_bytes": memory("VmHWM"),
        "versions": versions(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
