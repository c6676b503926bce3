"""The PyTorch side of scripts/bench/text.py: one case, the frozen layers run again in every step.

    python scripts/bench/pytorch_text.py --case conala --model models/SmolLM2-135M-Instruct --freeze 24 \\
        --data cache/text/conala/data --out cache/text/conala/pytorch

The embeddings and the bottom K layers are frozen by `requires_grad`, and with the embeddings the output matrix that is
tied to them. Batches are padded to their longest sequence; tokens that are not learnt have the label -100, and the loss
is the model's own. Texts are written greedily by `generate`, in batches that are padded on the left, into the file
`after.jsonl` of the folder --out. The last line on stdout is one JSON object.
"""

import argparse
import json
import random
import time
from pathlib import Path

import torch
from pytorch import Progress, add_training_options, memory, optimizer_of, set_up, versions
from text_cases import CASES, encode_rows, read_part
from tokenizers import Tokenizer
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, GenerationConfig, get_linear_schedule_with_warmup
from transformers.generation import StoppingCriteria, StoppingCriteriaList

IGNORED = -100


def batch_of(rows, whole):
    """Ids, mask and labels of some rows, all [rows, longest]; every token but the first is learnt if `whole`."""
    ids = [torch.tensor([*prompt, *target]) for prompt, target in rows]
    labels = [torch.tensor([*(prompt if whole else [IGNORED] * len(prompt)), *target]) for prompt, target in rows]
    mask = [torch.ones_like(row) for row in ids]
    return tuple(pad_sequence(part, batch_first=True, padding_value=pad) for part, pad in ((ids, 0), (mask, 0), (labels, IGNORED)))


@torch.no_grad()
def mean_loss(model, rows, size):
    """Cross-entropy of all tokens of the targets, nats a token."""
    model.eval()
    total, count = 0.0, 0
    for begin in range(0, len(rows), size):
        ids, mask, labels = batch_of(rows[begin : begin + size], whole=False)
        scored = int((labels[:, 1:] != IGNORED).sum())
        total += float(model(input_ids=ids, attention_mask=mask, labels=labels).loss) * scored
        count += scored
    return total / count


class LineEnd(StoppingCriteria):
    """A text is over once its last token holds the end of a line."""

    def __init__(self, tokenizer):
        ends = [id for id in range(tokenizer.get_vocab_size()) if "\n" in tokenizer.decode([id])]
        self.ends = torch.tensor(ends)

    def __call__(self, input_ids, scores, **_):
        return torch.isin(input_ids[:, -1], self.ends)


@torch.no_grad()
def write(model, case, tokenizer, end, rows, path, size=16):
    """Write a text for each row, greedily; returns the seconds."""
    model.eval()
    started = time.perf_counter()
    texts = []
    progress = Progress("writing", len(rows), "texts")
    criteria = StoppingCriteriaList([LineEnd(tokenizer)] if case.task == "complete" else [])
    settings = GenerationConfig(do_sample=False, max_new_tokens=case.lengths[1], eos_token_id=end, pad_token_id=end)
    for begin in range(0, len(rows), size):
        prompts = [prompt for prompt, _ in rows[begin : begin + size]]
        longest = max(map(len, prompts))
        ids = torch.tensor([[end] * (longest - len(prompt)) + prompt for prompt in prompts])
        mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        written = model.generate(ids, attention_mask=mask, generation_config=settings, stopping_criteria=criteria)
        for row in written[:, longest:].tolist():
            text = tokenizer.decode(row, skip_special_tokens=True)
            # What comes behind the line is not part of it.
            texts.append((text.splitlines() or [""])[0].strip() if case.task == "complete" else text.strip())
        progress.advance(len(prompts))
    path.write_text("".join(json.dumps({"prediction": text}) + "\n" for text in texts), encoding="utf-8")
    return time.perf_counter() - started


def train(model, case, rows, options):
    """All epochs; returns the seconds of each, and how many tokens there were with padding."""
    trained = [value for value in model.parameters() if value.requires_grad]
    steps = options.epochs * -(-len(rows) // case.batch_size)
    optimizer = optimizer_of(model, case.learning_rate, options.weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, int(options.warmup * steps), steps)
    draw = random.Random(options.seed)
    progress = Progress("training", steps, "steps")
    epochs, padded_tokens = [], 0
    for _ in range(options.epochs):
        order = draw.sample(range(len(rows)), len(rows))
        model.train()
        started = time.perf_counter()
        for begin in range(0, len(rows), case.batch_size):
            batch = [rows[row] for row in order[begin : begin + case.batch_size]]
            ids, mask, labels = batch_of(batch, whole=case.task == "complete")
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, use_cache=False).loss
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(trained, options.clip)
            optimizer.step()
            schedule.step()
            padded_tokens += ids.numel()
            progress.advance(1, lambda loss=loss: f", loss {loss.item():.4f}")
        epochs.append(time.perf_counter() - started)
    return epochs, padded_tokens


def parse():
    """The command line."""
    description, _, details = __doc__.partition("\n\n")
    parser = argparse.ArgumentParser(
        description=description, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=CASES, required=True)
    parser.add_argument("--model", type=Path, required=True, metavar="FOLDER")
    parser.add_argument("--freeze", type=int, required=True, metavar="K")
    parser.add_argument("--data", type=Path, required=True, metavar="FOLDER", help="the rows that text.py wrote")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the written texts go")
    add_training_options(parser)
    return parser.parse_args()


def main():
    """Run the case and print its figures."""
    options = parse()
    set_up(options)
    case = CASES[options.case]
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = Tokenizer.from_file(str(options.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32)
    end = model.config.eos_token_id
    rows, test = (encode_rows(case, tokenizer, end, read_part(case, options.data, split)) for split in ("train", "test"))
    for module in (model.get_input_embeddings(), model.get_output_embeddings(), *model.model.layers[: options.freeze]):
        module.requires_grad_(False)
    loss_before = mean_loss(model, test, case.batch_size)
    epochs, padded_tokens = train(model, case, rows, options)
    training_peak = memory("VmHWM")
    figures = {
        "epoch_seconds": epochs,
        "loss_before": loss_before,
        "loss_after": mean_loss(model, test, case.batch_size),
        "tokens": sum(len(prompt) + len(target) for prompt, target in rows),
        "padded_tokens": padded_tokens // options.epochs,
        "write_seconds": write(model, case, tokenizer, end, test, options.out / "after.jsonl"),
        "trainable_parameters": sum(value.numel() for value in model.parameters() if value.requires_grad),
        "peak_rss_bytes": training_peak,
        "attention": model.config._attn_implementation,
        "versions": versions(),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
