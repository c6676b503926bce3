"""A language model's loss and its gradients, beside PyTorch's linear and cross_entropy, in pairs.

    cargo bench --no-run --bench language_loss    # says where the program is
    python scripts/bench/language_loss.py PROGRAM [--rows 2000 --vocabulary 49152 --width 576 --pairs 7]

Each pair runs Telly once and PyTorch once, in turns first; both processes stay, so that memory is warm. Prints
the medians and the median of the pairs' ratios, with the matrix frozen and trained.
"""

import argparse
import statistics
import subprocess
import time

import torch


class Telly:
    """The bench's process, which answers a way with its seconds."""

    def __init__(self, program, sizes):
        command = [program, *map(str, sizes), "on-request"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, way):
        self.process.stdin.write(f"{way}\n")
        self.process.stdin.flush()
        return float(self.process.stdout.readline())


def pytorch_seconds(hidden, matrix, targets, way):
    """One forward and backward pass."""
    hidden = hidden.clone().requires_grad_()
    matrix = matrix.detach().requires_grad_(way == "trained")
    started = time.perf_counter()
    logits = torch.nn.functional.linear(hidden, matrix)
    torch.nn.functional.cross_entropy(logits, targets).backward()
    return time.perf_counter() - started


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rows", type=int, default=2000)
    parser.add_argument("--vocabulary", type=int, default=49152)
    parser.add_argument("--width", type=int, default=576)
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(1)
    hidden = torch.randn(options.rows, options.width)
    matrix = 0.04 * torch.randn(options.vocabulary, options.width)
    targets = torch.randint(0, options.vocabulary, (options.rows,))
    telly = Telly(options.program, (options.rows, options.vocabulary, options.width))
    for way in ("frozen", "trained"):
        runs = [lambda: telly.seconds(way), lambda: pytorch_seconds(hidden, matrix, targets, way)]
        for run in runs:
            run()
        pairs = []
        for index in range(options.pairs):
            order = (0, 1) if index % 2 == 0 else (1, 0)
            found = {which: runs[which]() for which in order}
            pairs.append((found[0], found[1]))
        telly_median, pytorch_median = (statistics.median(pair[which] for pair in pairs) for which in (0, 1))
        ratio = statistics.median(pytorch / own for own, pytorch in pairs)
        print(f"{way}: Telly {telly_median:.3f} s, PyTorch {pytorch_median:.3f} s, ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
