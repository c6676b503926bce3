#!/usr/bin/env python3
"""Loss curves of telly train in fp32, bf16 and fp16 side by side, over one cache, as a Markdown table.

    scripts/bench/mixed_precision.py --telly target/release/telly --cache cache/sst2 --out runs/mixed -- --epochs 1 --lr 1e-4

Everything after -- goes to telly train. Needs Python alone.
"""

import argparse
import json
import subprocess
from pathlib import Path

PRECISIONS = ["none", "bf16", "fp16"]


def train(telly, cache, out, precision, flags):
    """The lines of the steps, and the summary."""
    command = [telly, "train", "--cache", cache, "--out", out, "--force", "--log-every", "1", "--json"]
    command += ["--ops", "composed", "--mixed-precision", precision, *flags]
    ended = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    lines = map(json.loads, (out / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if "loss" in line], json.loads(ended.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--telly", default="target/release/telly")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--every", type=int, default=20, help="steps a row of the table")
    parser.add_argument("flags", nargs="*")
    options = parser.parse_args()
    runs = {}
    for precision in PRECISIONS:
        runs[precision] = train(options.telly, options.cache, options.out / precision, precision, options.flags)
    print("| mean loss of steps | fp32 | bf16 | fp16 |\n|---|---|---|---|")
    steps = len(runs["none"][0])
    for start in range(0, steps, options.every):
        means = []
        for precision in PRECISIONS:
            losses = [line["loss"] for line in runs[precision][0][start : start + options.every]]
            means.append(f"{sum(losses) / len(losses):.4f}")
        print(f"| {start + 1} to {min(start + options.every, steps)} | {' | '.join(means)} |")
    exact = [line["loss"] for line in runs["none"][0]]
    apart = ["-"]
    for precision in PRECISIONS[1:]:
        losses = [line["loss"] for line in runs[precision][0]]
        apart.append(f"{max(abs(loss - other) for loss, other in zip(losses, exact)):.4f}")
    print(f"| largest distance of a step's loss from fp32's | {' | '.join(apart)} |")
    for split in ("valid", "test"):
        found = [runs[precision][1][split].get("accuracy") for precision in PRECISIONS]
        if None not in found:
            print(f"| {split} accuracy | {' | '.join(f'{100 * number:.2f}' for number in found)} |")
    seconds = [runs[precision][1]["epoch_seconds"] for precision in PRECISIONS]
    print(f"| seconds an epoch | {' | '.join(f'{number:.1f}' for number in seconds)} |")
    last = runs["fp16"][0]
    skipped = [line["step"] for line in last if line["skipped"]]
    print(f"\nfp16: loss scale {last[0]['loss_scale']:.0f} at the first step, {last[-1]['loss_scale']:.0f} at the last; steps skipped: {skipped}")


if __name__ == "__main__":
    main()
