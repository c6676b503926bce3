"""What the scripts that measure telly beside PyTorch share: settings of both sides, processes, the machine."""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TELLY = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target", "release", "telly")

WARMUP, WEIGHT_DECAY, CLIP, DROPOUT = 0.1, 0.01, 1.0, 0.1


class InputError(Exception):
    """The data is wrong; the message is a sentence that says how."""


def names_of(known):
    """`a,b` -> [a, b], each one of `known`."""

    def read(text):
        for name in text.split(","):
            if name not in known:
                raise argparse.ArgumentTypeError(f"no '{name}': choose from {', '.join(known)}")
        return text.split(",")

    return read


def exit_with(main):
    """Ends with the exit status that `main` returns, or with what was wrong in a sentence."""
    try:
        sys.exit(main())
    except (InputError, OSError) as error:
        sys.exit(f"error: {error}")


def run_process(command, log):
    """Run a command to its end: exit status, seconds, peak memory, and the JSON object it ended with.

    What it prints goes to `log` with the endings .stdout and .stderr.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [str(argument) for argument in command]
    output, errors = log.with_suffix(".stdout"), log.with_suffix(".stderr")
    started = time.perf_counter()
    with output.open("wb") as stdout, errors.open("wb") as stderr:
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except KeyboardInterrupt:
            process.terminate()
            process.wait()
            raise
        process.returncode = os.waitstatus_to_exitcode(status)
    record = {
        "command": shlex.join(command),
        "exit_status": process.returncode,
        "wall_seconds": time.perf_counter() - started,
        # Kilobytes, but bytes on macOS.
        "process_peak_rss_bytes": usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    }
    lines = output.read_text(encoding="utf-8", errors="replace").splitlines()
    if process.returncode == 0:
        record["result"] = json.loads(lines[-1])
    else:
        said = errors.read_text(encoding="utf-8", errors="replace").splitlines()
        record["stderr"] = [line for line in said if line.strip()][-5:]
    return record


def machine(threads):
    """CPU model, its widest vector instructions, cores, memory."""
    model, flags = platform.processor() or platform.machine(), []
    try:
        fields = [line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line]
        values = {name.strip(): value.strip() for name, value in fields}
        model, flags = values.get("model name", model), values.get("flags", "").split()
    except OSError:
        pass
    vectors = next((f" ({name})" for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}{vectors}, {os.cpu_count()} cores, {memory:.0f} GiB; {threads} threads for everyone"


def telly_versions(telly):
    """Of telly and of the ONNX Runtime it loads."""
    version = subprocess.run([telly, "--version"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    doctor = subprocess.run([telly, "doctor", "--json"], cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    found = json.loads(doctor[-1]) if doctor else {}
    return {"telly": version[-1] if version else "unknown", "ONNX Runtime": found.get("onnxruntime", "not found")}
