"""Learning rates of each step, out of transformers' schedulers."""

import json

import torch
from transformers import (
    get_constant_schedule_with_warmup,
    get_cosine_schedule_with_warmup,
    get_linear_schedule_with_warmup,
)

PEAK = 3e-4
# Warmup steps and steps in all; the last two are all warmup, and none.
LENGTHS = [(0, 7), (2, 20), (3, 100), (5, 5), (0, 1)]


def rates(scheduler, warmup, steps):
    """The rate of each of `steps` steps, and of the one after the last."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=PEAK)
    lengths = (warmup,) if scheduler is get_constant_schedule_with_warmup else (warmup, steps)
    schedule = scheduler(optimizer, *lengths)
    found = []
    for _ in range(steps + 1):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def make_schedules(path, versions):
    """One JSON object, a case a line."""
    schedulers = {
        "linear": get_linear_schedule_with_warmup,
        "cosine": get_cosine_schedule_with_warmup,
        "constant": get_constant_schedule_with_warmup,
    }
    cases = [
        {"schedule": name, "warmup": warmup, "steps": steps, "rates": rates(scheduler, warmup, steps)}
        for name, scheduler in schedulers.items()
        for warmup, steps in LENGTHS
    ]
    lines = ",\n    ".join(json.dumps(case) for case in cases)
    path.write_text(
        f'{{\n  "versions": {json.dumps(versions)},\n  "peak": {PEAK},\n  "cases": [\n    {lines}\n  ]\n}}\n'
    )
