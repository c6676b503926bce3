# shellcheck shell=bash
# Sourced by the other scripts: where the project lies, how they speak, what they need from the machine.

# shellcheck disable=SC2034
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf '%s\n' "$*"; }

# The sentence says what to do.
fail() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# Exit status 2: the command line was wrong.
fail_usage() {
  printf 'error: %s; see %s --help\n' "$*" "$0" >&2
  exit 2
}

need_cargo() {
  command -v cargo >/dev/null 2>&1 ||
    fail "cargo is not on the PATH: install Rust from https://rustup.rs, open a new terminal and run this again"
}

need_python() {
  command -v python3 >/dev/null 2>&1 ||
    fail "python3 is not on the PATH: install Python 3.9 or newer and run this again"
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' ||
    fail "$(python3 --version) is too old: put Python 3.9 or newer first on the PATH and run this again"
}

need_pip() {
  python3 -m pip --version >/dev/null 2>&1 ||
    fail "python3 has no pip: install it (python3 -m ensurepip, or the system's python3-pip package) and run this again"
}
