#!/usr/bin/env bash
# Measures telly and PyTorch side by side: sets up both, then runs scripts/bench/compare.py.
set -euo pipefail
# shellcheck source=scripts/bench/environment.sh
source "$(dirname "$0")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/bench/compare.sh --case sst2 --model FOLDER --train FILE --test FILE [OPTIONS]
       scripts/bench/compare.sh --case poj104 --model FOLDER --data FILE [OPTIONS]

Brings ONNX Runtime and the sample checkpoint (scripts/setup.sh), makes a Python environment with PyTorch and
transformers (.venv-bench/, about 6 GB on Linux, where PyTorch's package carries CUDA; from
scripts/bench/requirements.txt), builds telly, and measures both on this machine. What is already there is kept, so it
can be run again at any time. The table goes to stdout, and with all figures to cache/bench/results/.

  TELLY_BENCH_PYTHON=PYTHON   use this Python, which has those packages, and make no environment

Let nothing else run beside it. The options:

END
}

measure compare.py --case "$@"
