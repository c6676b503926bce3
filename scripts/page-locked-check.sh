#!/usr/bin/env bash
# Holds the page-locked buffers that batches are copied to a card from against a stand-in for CUDA's driver.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

usage() {
  cat <<'END'
Usage: scripts/page-locked-check.sh

Builds src/mapping.rs, src/trainable/double_buffer.rs and src/trainable/page_locked.rs as they are with cudarc, in
target/page-locked-check/, and runs them on a driver whose copies come as late as they may. Needs a C compiler, neither
CUDA nor a card. It tells nothing of how fast a card is, nor of what NVIDIA's driver does.
END
}

main() {
  case ${1-} in
    "") ;;
    -h | --help) usage && exit 0 ;;
    *) fail_usage "unknown argument '$1'" ;;
  esac
  need_cargo
  command -v cc >/dev/null 2>&1 || fail "cc is not on the PATH: install a C compiler (gcc or clang) and run this again"
  local folder="$root/target/page-locked-check"
  mkdir -p "$folder"
  cc -std=c11 -Wall -Wextra -Werror -shared -fPIC "$root/scripts/page-locked-check/driver.c" -o "$folder/libcuda.so"
  LIBRARY_PATH="$folder" LD_LIBRARY_PATH="$folder" \
    cargo run --quiet --locked --manifest-path "$root/scripts/page-locked-check/Cargo.toml" --target-dir "$folder" ||
    fail "the page-locked buffers do not hold: mend what is named above and run scripts/page-locked-check.sh again"
  say "the page-locked buffers hold"
}

main "$@"
