"""Loss scales of each step, out of PyTorch's GradScaler.

    .venv-goldens/bin/python scripts/goldens/loss_scaler.py tests/goldens/loss-scaler.json
"""

import json
import sys
from pathlib import Path

import torch

# Steps in a row that double the scale, and the steps with an infinite gradient.
CASES = [
    (3, 20, []),
    (3, 20, [0, 1, 7, 8, 9, 15]),
    (2, 300, []),
    (5, 40, [4, 9, 10, 14, 19, 20, 33]),
    (2000, 2050, [0, 30]),
]


def scales(interval, steps, infinite):
    """The scale of each of `steps` steps, and of the one after the last; PyTorch halves and doubles from 2**16."""
    scaler = torch.amp.GradScaler("cpu", growth_interval=interval)
    parameter = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    found = []
    for step in range(steps):
        found.append(scaler.get_scale())
        scaler.scale(parameter.sum()).backward()
        if step in infinite:
            parameter.grad.fill_(float("inf"))
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
    return [*found, scaler.get_scale()]


def runs(numbers):
    """Number and how often in a row."""
    found = []
    for number in numbers:
        if found and found[-1][0] == number:
            found[-1][1] += 1
        else:
            found.append([number, 1])
    return found


def main():
    cases = [
        {"interval": interval, "steps": steps, "infinite": infinite, "scales": runs(scales(interval, steps, infinite))}
        for interval, steps, infinite in CASES
    ]
    lines = ",\n    ".join(json.dumps(case) for case in cases)
    versions = json.dumps({"torch": torch.__version__})
    Path(sys.argv[1]).write_text(f'{{\n  "versions": {versions},\n  "cases": [\n    {lines}\n  ]\n}}\n')


if __name__ == "__main__":
    main()
