"""What the scripts that measure telly beside PyTorch share: settings of both sides, processes, the machine."""

import argparse
import datetime
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


# --- the scripts of cases: tasks.py and text.py


def run_commands(case, rows, commands, folder, keep):
    """Run a case's commands (side, step, command) in their order and `keep` what each gave.

    A side goes no further once one of its own has failed. Returns the sides that failed.
    """
    failed = set()
    for side, step, command in commands:
        if side in failed:
            continue
        print(f"{case.name}: {step} ...", end=" ", file=sys.stderr, flush=True)
        record = {"case": case.name, "rows": rows, "step": step, **run_process(command, folder / "logs" / f"{step}.log")}
        keep(record)
        if "result" not in record:
            failed.add(side)
            print(f"failed with exit status {record['exit_status']}: {record['stderr']}", file=sys.stderr)
        else:
            print(f"{record['wall_seconds']:.1f} s", file=sys.stderr)
    return failed


def add_case_options(parser, cases, sides, epochs, out):
    """What both scripts are told."""
    folder = {"type": Path, "metavar": "FOLDER"}
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help="folder of the data sets")
    parser.add_argument("--cases", type=names_of(cases), default=list(cases), metavar="A,B", help="default: all")
    parser.add_argument("--sides", type=names_of(sides), default=sides, metavar="A,B", help="default: telly,pytorch")
    parser.add_argument("--scale", type=float, default=1.0, help="times the rows of each case (default: 1)")
    parser.add_argument("--epochs", type=int, default=epochs, help=f"default: {epochs}")
    parser.add_argument("--seed", type=int, default=1, help="default: 1")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="default: one a core")
    parser.add_argument("--models", **folder, default=ROOT / "models", help="default: models")
    parser.add_argument("--out", **folder, default=ROOT / "cache" / out, help=f"default: cache/{out}")
    parser.add_argument("--telly", type=Path, default=TELLY, metavar="FILE", help="default: target/release/telly")
    parser.add_argument("--check", action="store_true", help="check the command line, telly aside, and run nothing")


def parse_case_options(parser):
    """The command line; paths are made absolute, as the processes run in the project's folder."""
    options = parser.parse_args()
    for name in ("data", "models", *([] if options.check else ["telly"])):
        if not getattr(options, name).exists():
            parser.error(f"--{name}: {getattr(options, name)} is not there")
    for name in ("data", "models", "telly", "out"):
        setattr(options, name, getattr(options, name).resolve())
    return options


def measure_cases(name, options, run_case, report):
    """Run the cases, print the report, and keep what was measured. Returns the exit status: 1 if a process failed."""
    if options.check:
        return 0
    header = {
        "machine": machine(options.threads),
        "versions": telly_versions(options.telly),
        "command": shlex.join([f"scripts/bench/{name}.sh", *sys.argv[1:]]),
    }
    stamp = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    results = options.out / "results" / f"{name}-{stamp}.jsonl"
    results.parent.mkdir(parents=True, exist_ok=True)
    records = []

    def keep(record):
        records.append(record)
        text = "".join(json.dumps(line) + "\n" for line in [header, *records])
        results.write_text(text, encoding="utf-8")
        results.with_suffix(".md").write_text(report(header, records), encoding="utf-8")

    interrupted = False
    try:
        for case in options.cases:
            run_case(case, options, keep)
    except KeyboardInterrupt:
        interrupted = True
    print(report(header, records), end="")
    print(f"kept: {results} and {results.with_suffix('.md').name}", file=sys.stderr)
    if interrupted:
        return 130
    return 0 if all("result" in record for record in records) else 1
