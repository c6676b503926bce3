#!/usr/bin/env bash
# Does all set-up the tests need, then runs them.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

environment=".venv-test"
requirements="scripts/test-requirements.txt"

usage() {
  cat <<'END'
Usage: scripts/test.sh [TEST]

Brings ONNX Runtime and the sample checkpoint (scripts/setup.sh), makes a Python environment for the tests that compare
with Python's packages (.venv-test/, about 135 MB, from scripts/test-requirements.txt), and runs all tests, or those whose
name or file contains TEST: scripts/test.sh rsa runs tests/study/rsa.rs, among others.

TELLY_TEST_TRANSFORMERS names a Python with transformers, sentence-transformers and ONNX Runtime
(scripts/goldens/export-requirements.txt): without it exports are not loaded in them.

TELLY_TEST_KILLS (20) is how often a run is killed, TELLY_TEST_FUZZ_CASES (5000) how many broken files of each kind are read.
END
}

environment_is_current() {
  cmp -s "$requirements" "$environment/requirements.txt" && "$environment/bin/python" -c "" 2>/dev/null
}

make_environment() {
  if environment_is_current; then
    say "$environment/: already there"
    return
  fi
  say "$environment/: installing numpy, onnx, safetensors and radon, as pinned in $requirements (135 MB)"
  python3 -m venv --clear "$environment" ||
    fail "python3 cannot make a virtual environment: install its venv module (the system's python3-venv package) and run this again"
  "$environment/bin/python" -m pip install --quiet --disable-pip-version-check --only-binary=:all: -r "$requirements" ||
    fail "the test packages did not install (pip says why above): check the network and run scripts/test.sh again"
  # Copied last: only a finished environment carries it.
  cp "$requirements" "$environment/requirements.txt"
}

main() {
  case ${1-} in
    -h | --help) usage && exit 0 ;;
    -*) fail_usage "unknown argument '$1'" ;;
  esac
  need_cargo
  need_python
  cd "$root"
  scripts/setup.sh
  make_environment
  export TELLY_TEST_PYTHON="$root/$environment/bin/python"
  [[ -n ${TELLY_TEST_TRANSFORMERS-} ]] ||
    say "TELLY_TEST_TRANSFORMERS is not set: exports are not loaded in transformers, sentence-transformers and ONNX Runtime's Python"
  # Unless told, candle counts the cores before each product, by reading /proc/cpuinfo: a third of the time of the smallest.
  export RAYON_NUM_THREADS="${RAYON_NUM_THREADS:-$(getconf _NPROCESSORS_ONLN)}"
  # Benches take a name for a cache; clippy looks at them.
  cargo test --locked --lib --bins --tests "$@" ||
    fail "a test failed: mend what is named above, or run it alone with scripts/test.sh NAME"
  cargo test --locked --doc "$@" ||
    fail "an example in the documentation failed: mend what is named above and run scripts/test.sh again"
  say "all tests passed"
}

main "$@"
