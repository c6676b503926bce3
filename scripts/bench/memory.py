#!/usr/bin/env python3
"""Train from a cache in a control group whose memory is smaller than the cache.

    scripts/bench/memory.py --cache cache/large --limit 400MiB -- --epochs 1 --lr 1e-4

What follows `--` goes to `telly train`. Needs root and Linux's memory controller, of either version. Prints the size of
the cache, the limit, and the peaks of the process: anonymous memory (RssAnon, sampled ten times a second), resident
memory (VmHWM), and what the group was charged for, page cache included.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
UNITS = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def size(text):
    """`400MiB` -> bytes."""
    found = re.fullmatch(r"(\d+)(|KiB|MiB|GiB)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"'{text}' is no size: expected a number with KiB, MiB or GiB, as 400MiB")
    return int(found[1]) * UNITS[found[2]]


class Group:
    """A memory control group of its own, removed at the end."""

    def __init__(self, limit):
        one, two = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
        first = one.is_dir()
        self.folder = (one if first else two) / f"telly-{os.getpid()}"
        self.peak_file = "memory.max_usage_in_bytes" if first else "memory.peak"
        try:
            self.folder.mkdir()
            (self.folder / ("memory.limit_in_bytes" if first else "memory.max")).write_text(str(limit))
        except OSError as error:
            sys.exit(f"error: no control group can be made ({error}): run this as root on a Linux with the memory controller")

    def enter(self):
        """Called in the child before it becomes telly."""
        (self.folder / "cgroup.procs").write_text(str(os.getpid()))

    def peak(self):
        """Bytes charged at most, page cache included."""
        return int((self.folder / self.peak_file).read_text())

    def remove(self):
        self.folder.rmdir()


def field(process, name):
    """A field of /proc/PID/status in bytes; 0 once the process has ended."""
    try:
        text = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return 0
    found = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--limit", type=size, required=True, help="as 400MiB")
    parser.add_argument("--telly", type=Path, default=ROOT / "target/release/telly")
    parser.add_argument("flags", nargs="*", help="of telly train, after --")
    options = parser.parse_args()
    group = Group(options.limit)
    anonymous = resident = 0
    try:
        with tempfile.TemporaryDirectory() as run:
            command = [options.telly, "train", "--cache", options.cache, "--out", run, "--force", "--json", *options.flags]
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=group.enter)
            while process.poll() is None:
                anonymous = max(anonymous, field(process.pid, "RssAnon"))
                resident = max(resident, field(process.pid, "VmHWM"))
                time.sleep(0.1)
            output = process.stdout.read()
        peak = group.peak()
    finally:
        group.remove()
    if process.returncode:
        sys.exit(f"error: telly train ended with status {process.returncode}")
    summary = json.loads(output.splitlines()[-1])
    cache = sum(file.stat().st_size for file in options.cache.iterdir())
    figures = {
        "cache_bytes": cache,
        "limit_bytes": options.limit,
        "cache_over_limit": round(cache / options.limit, 2),
        "peak_anonymous_bytes": anonymous,
        "peak_rss_bytes": resident,
        "peak_charged_bytes": peak,
        "epoch_seconds": summary["epoch_seconds"],
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
