#!/usr/bin/env bash
# Measures telly and PyTorch on the tasks that write text: sets up both, then runs scripts/bench/text.py.
set -euo pipefail
# shellcheck source=scripts/bench/environment.sh
source "$(dirname "$0")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/bench/text.sh --data DATA [OPTIONS]

Sets up what scripts/bench/compare.sh does, and measures the tasks that write text. models/ must hold
SmolLM2-135M-Instruct (models/README.md).

Let nothing else run beside it. The options:

END
}

measure text.py --data "$@"
