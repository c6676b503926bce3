# shellcheck shell=bash
# Sourced by the scripts that measure telly beside PyTorch: their Python environment, and telly itself.
# shellcheck source=scripts/prelude.sh
source "$(dirname "${BASH_SOURCE[0]}")/../prelude.sh"

environment="$root/.venv-bench"
requirements="$root/scripts/bench/requirements.txt"

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

# All that measuring needs; what is already there is kept.
set_up() {
  "$root/scripts/setup.sh" >&2
  choose_python
  build
}

# measure SCRIPT REQUIRED [ARGUMENTS]...: print the usage or set all up, and run scripts/bench/SCRIPT. The first of the
# arguments is missing only where REQUIRED, a flag, is.
measure() {
  local script="$root/scripts/bench/$1" required=$2
  shift 2
  case ${1-} in
    -h | --help) usage && exec python3 "$script" --help ;;
    "") fail_usage "no $required" ;;
  esac
  need_cargo
  need_python
  need_python_of_the_pins
  # Before anything is brought or built.
  python3 "$script" --check "$@"
  set_up
  exec "$python" "$script" "$@"
}
