#!/usr/bin/env python3
"""Train one epoch from a cache several times larger than memory, once in each order of rows.

    scripts/bench/shuffle.py --cache cache/large --limit 300MiB -- --lr 1e-4 --threads 2

What follows `--` goes to `telly train`. Before each run the cache's files are dropped from the page cache. Prints a
table: what the process read from the cache's disk (read operations and bytes, as the control group counts them), the
seconds of the epoch, the share of them that training waited for data, peak anonymous memory, and the test split's
accuracy or MRR if there is one. `--iops` and `--bandwidth` slow the disk down for the process, to what
a rotating disk or a network gives. Needs root and Linux's memory and I/O controllers, of either version.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from memory import ROOT, Group, field, size

BLKIO = Path("/sys/fs/cgroup/blkio")
# A version 1 group counts only where reads are limited; no disk gives more than so many a second.
NO_LIMIT = 1_000_000_000


class DiskGroup(Group):
    """A memory control group that also counts, and may slow down, the reads of one disk."""

    def __init__(self, limit, disk, iops, bandwidth):
        super().__init__(limit)
        self.disk = disk
        self.first = BLKIO.is_dir()
        try:
            if self.first:
                self.disk_folder = BLKIO / self.folder.name
                self.disk_folder.mkdir()
                for what, value in {"iops": iops or NO_LIMIT, "bps": bandwidth}.items():
                    if value:
                        (self.disk_folder / f"blkio.throttle.read_{what}_device").write_text(f"{disk} {value}")
            else:
                (self.folder.parent / "cgroup.subtree_control").write_text("+io")
                for what, value in {"riops": iops, "rbps": bandwidth}.items():
                    if value:
                        (self.folder / "io.max").write_text(f"{disk} {what}={value}")
        except OSError as error:
            self.remove()
            sys.exit(f"error: the reads of disk {disk} cannot be counted or slowed down ({error})")

    def enter(self):
        super().enter()
        if self.first:
            (self.disk_folder / "cgroup.procs").write_text(str(os.getpid()))

    def reads(self):
        """Read operations and bytes so far."""
        if self.first:
            return [self.count(f"blkio.throttle.{what}") for what in ("io_serviced", "io_service_bytes")]
        for line in (self.folder / "io.stat").read_text().splitlines():
            disk, *values = line.split()
            if disk == self.disk:
                values = dict(value.split("=") for value in values)
                return [int(values["rios"]), int(values["rbytes"])]
        return [0, 0]

    def count(self, file):
        for line in (self.disk_folder / file).read_text().splitlines():
            if line.startswith(f"{self.disk} Read "):
                return int(line.split()[2])
        return 0

    def remove(self):
        super().remove()
        if self.first and self.disk_folder.is_dir():
            self.disk_folder.rmdir()


def disk_of(folder):
    """The disk, not the partition, of `folder`, as MAJOR:MINOR."""
    device = folder.stat().st_dev
    found = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    if not found.exists():
        sys.exit(f"error: {folder} lies on no disk of its own")
    found = found.resolve()
    return ((found.parent if (found / "partition").exists() else found) / "dev").read_text().strip()


def forget(folder):
    """Drops the files of `folder` from the page cache."""
    os.sync()
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run(options, order):
    """Trains one epoch in `order`; the row of the table."""
    forget(options.cache)
    group = DiskGroup(options.limit, disk_of(options.cache), options.iops, options.bandwidth)
    anonymous, reads = 0, [0, 0]
    try:
        with tempfile.TemporaryDirectory() as folder:
            command = [
                options.telly, "train", "--cache", options.cache, "--out", folder, "--force", "--json", "--profile",
                "--epochs", "1", "--shuffle", order, *options.flags,
            ]
            process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, preexec_fn=group.enter)
            while process.poll() is None:
                anonymous = max(anonymous, field(process.pid, "RssAnon"))
                time.sleep(0.1)
            output = process.stdout.read()
            if process.returncode:
                sys.exit(f"error: telly train --shuffle {order} ended with status {process.returncode}")
        reads = group.reads()
    finally:
        group.remove()
    summary = json.loads(output.splitlines()[-1])
    test, profile = summary.get("test") or {}, summary["profile"]
    operations, read = reads
    return {
        "order": order,
        "reads": operations,
        "bytes_read": read,
        "bytes_a_read": round(read / max(operations, 1)),
        "epoch_seconds": round(summary["epoch_seconds"], 1),
        "data_wait_share": round(profile["data_wait_seconds"] / profile["step_seconds"], 4),
        "peak_anonymous_bytes": anonymous,
        "test": next((test[name] for name in ("accuracy", "mrr") if name in test), None),
    }


def table(rows, cache, limit):
    """The rows as a Markdown table."""
    print(f"cache: {cache / 1e6:,.0f} MB, {cache / limit:.2f} times the limit of {limit / 1e6:,.0f} MB\n")
    print("| order | reads | MB read | KB a read | s an epoch | waiting for data | peak anonymous MB | test |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        test = "-" if row["test"] is None else f"{100 * row['test']:.2f}"
        print(
            f"| {row['order']} | {row['reads']:,} | {row['bytes_read'] / 1e6:,.0f} | {row['bytes_a_read'] / 1e3:,.0f} "
            f"| {row['epoch_seconds']} | {100 * row['data_wait_share']:.1f} % | {row['peak_anonymous_bytes'] / 1e6:.0f} | {test} |"
        )


def main():
    parser = argparse.ArgumentParser(
        description=__doc__.partition("\n\n")[0], epilog=__doc__.partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--limit", type=size, required=True, help="as 300MiB")
    parser.add_argument("--orders", nargs="+", default=["exact", "block"], choices=["exact", "block"])
    parser.add_argument("--iops", type=int, help="reads a second that the disk gives at most")
    parser.add_argument("--bandwidth", type=size, help="bytes a second that the disk gives at most, as 150MiB")
    parser.add_argument("--telly", type=Path, default=ROOT / "target/release/telly")
    parser.add_argument("--json", action="store_true", help="one JSON object a run instead of the table")
    parser.add_argument("flags", nargs="*", help="of telly train, after --")
    options = parser.parse_args()
    rows = [run(options, order) for order in options.orders]
    if options.json:
        for row in rows:
            print(json.dumps(row))
        return
    table(rows, sum(file.stat().st_size for file in options.cache.iterdir()), options.limit)


if __name__ == "__main__":
    main()
