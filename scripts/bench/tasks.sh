#!/usr/bin/env bash
# Measures telly and PyTorch on the understanding tasks: sets up both, then runs scripts/bench/tasks.py.
set -euo pipefail
# shellcheck source=scripts/bench/environment.sh
source "$(dirname "$0")/environment.sh"

usage() {
  cat <<'END'
Usage: scripts/bench/tasks.sh --data DATA [OPTIONS]

Sets up what scripts/bench/compare.sh does, and measures the tasks. models/ must hold all-MiniLM-L6-v2, and
all-mpnet-base-v2 for its case (models/README.md).

Let nothing else run beside it. The options:

END
}

measure tasks.py --data "$@"
