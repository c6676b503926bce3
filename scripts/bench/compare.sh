#!/usr/bin/env bash
# Measures telly and PyTorch side by side: sets up both, then runs scripts/bench/compare.py.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/../prelude.sh"

environment="$root/.venv-bench"
requirements="$root/scripts/bench/requirements.txt"

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

environment_is_current() {
  cmp -s "$requirements" "$environment/requirements.txt" && "$environment/bin/python" -c "" 2>/dev/null
}

make_environment() {
  if environment_is_current; then
    say ".venv-bench/: already there" >&2
    return
  fi
  say ".venv-bench/: installing PyTorch, transformers and what they need, as pinned in scripts/bench/requirements.txt (6 GB)" >&2
  python3 -m venv --clear "$environment" ||
    fail "python3 cannot make a virtual environment: install its venv module (the system's python3-venv package) and run this again"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r "$requirements" >&2 ||
    fail "the packages did not install (pip says why above): check the network and the free disk and run this again"
  # Copied last: only a finished environment carries it.
  cp "$requirements" "$environment/requirements.txt"
}

need_python_of_the_pins() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$(python3 --version) is too old for the pinned packages: put Python 3.11 or newer first on the PATH and run this again"
}

# The Python with PyTorch: $python.
choose_python() {
  if [ -n "${TELLY_BENCH_PYTHON-}" ]; then
    python=$TELLY_BENCH_PYTHON
    command -v "$python" >/dev/null 2>&1 || fail "TELLY_BENCH_PYTHON=$python is no program: name a Python 3, or unset it"
    "$python" -c "import sklearn, tokenizers, torch, transformers" >&2 ||
      fail "TELLY_BENCH_PYTHON=$python lacks a package of scripts/bench/requirements.txt: install them there, or unset it"
  else
    need_pip
    make_environment
    python="$environment/bin/python"
  fi
}

build() {
  say "building telly" >&2
  cargo build --release --locked --manifest-path "$root/Cargo.toml" ||
    fail "the build failed: check that Rust is current (rustup update) and run this again"
}

main() {
  case ${1-} in
    -h | --help) usage && exec python3 "$root/scripts/bench/compare.py" --help ;;
    "") fail_usage "no --case" ;;
  esac
  need_cargo
  need_python
  need_python_of_the_pins
  # Before anything is brought or built.
  python3 "$root/scripts/bench/compare.py" --check "$@"
  "$root/scripts/setup.sh" >&2
  choose_python
  build
  exec "$python" "$root/scripts/bench/compare.py" "$@"
}

main "$@"
