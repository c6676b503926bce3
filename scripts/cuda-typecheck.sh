#!/usr/bin/env bash
# Type-checks the build for CUDA on any machine, with or without CUDA: what only compiles there breaks unseen otherwise.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

usage() {
  cat <<'END'
Usage: scripts/cuda-typecheck.sh

Runs clippy over the library and the binary with `--features cuda` and with `--features nccl`, warnings denied, in
target/ beside the build for the CPU, with which most of it is shared. CUDA's compiler is always replaced by a stand-in
that writes empty outputs, so neither CUDA nor NCCL is needed, and nothing can be linked or run.
END
}

# The folders a CUDA installation has, with the stand-in as its compiler.
make_toolkit() {
  mkdir -p "$1/bin" "$1/include" "$1/lib64"
  cp "$root/scripts/cuda-typecheck/nvcc" "$1/bin/nvcc"
  chmod +x "$1/bin/nvcc"
}

main() {
  case ${1-} in
    "") ;;
    -h | --help) usage && exit 0 ;;
    *) fail_usage "unknown argument '$1'" ;;
  esac
  need_cargo
  cd "$root"
  local toolkit="$root/target/cuda-typecheck/toolkit"
  make_toolkit "$toolkit"
  say "type-checking --features cuda and nccl with a stand-in for nvcc (also where a real one is installed)"
  local features
  for features in cuda nccl; do
    # cudaforge looks at NVCC first, then at the PATH; cudarc at the CUDA_* variables.
    env -u CUDA_TOOLKIT_ROOT_DIR -u CUDNN_LIB -u NVCC_CCBIN -u CUDARC_CUDA_VERSION \
      NVCC="$toolkit/bin/nvcc" CUDA_HOME="$toolkit" CUDA_PATH="$toolkit" CUDA_ROOT="$toolkit" CUDA_COMPUTE_CAP=80 \
      PATH="$toolkit/bin:$PATH" \
      cargo clippy --locked --features "$features" --lib --bins -- -D warnings ||
      fail "the build with --features $features does not type-check: mend what clippy names above and run scripts/cuda-typecheck.sh again"
  done
  say "the builds for CUDA and NCCL type-check"
}

main "$@"
