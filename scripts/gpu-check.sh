#!/usr/bin/env bash
# On a machine with a CUDA card: builds telly with CUDA and holds both halves on the card against the CPU and PyTorch.
set -euo pipefail
# shellcheck source=scripts/bench/environment.sh
source "$(dirname "$0")/bench/environment.sh"

out="$root/cache/gpu-check"
stages="$out/stages.tsv"

usage() {
  cat <<'END'
Usage: scripts/gpu-check.sh

From nothing: brings ONNX Runtime and the CUDA libraries (scripts/setup.sh --gpu), NVIDIA's compiler, PyTorch
(.venv-bench/), builds telly with CUDA (scripts/cuda-build.sh), asks `telly doctor`, runs the tests that hold 20 training
steps against PyTorch on the card, the frozen half and training on the card against the CPU, and a benchmark against
PyTorch on the card with peak device memory; prints one report. What is already there is kept.

Needs NVIDIA's driver (580 or newer) and a card; elsewhere it says so and does nothing. Exit status: 0 all passed, 1 not.

  TELLY_BENCH_PYTHON=PYTHON   use this Python, which has the packages of scripts/bench/requirements.txt
END
}

# Needed first: nothing is downloaded where there is no card.
need_card() {
  command -v nvidia-smi >/dev/null 2>&1 ||
    fail "this check needs NVIDIA's driver and a card, and nvidia-smi, which comes with the driver, is not here: run it on a machine that has both"
  nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | grep -q . ||
    fail "this check needs a card, and NVIDIA's driver finds none here: see what nvidia-smi says"
}

# stage NAME DETAIL COMMAND...: run it, its output into a log, and note how long it took.
stage() {
  local name=$1 detail=$2 started=$SECONDS log
  shift 2
  log="$out/logs/${name// /-}.log"
  # In a shell of its own: a script that gives up must not end this one.
  if ! ("$@") >"$log" 2>&1; then
    printf '%s: failed\n' "$name" >&2
    tail -n 20 "$log" >&2
    fail "'$name' failed after $((SECONDS - started)) s: its whole output is in ${log#"$root/"}"
  fi
  printf '%s: %d s\n' "$name" $((SECONDS - started)) >&2
  printf '%s\t%s\t%s\t%d\n' "$name" passed "$detail" $((SECONDS - started)) >>"$stages"
}

bring() {
  if [ "$device" = cuda ]; then "$root/scripts/setup.sh" --gpu; else "$root/scripts/setup.sh"; fi
}

build_telly() {
  if [ "$device" = cuda ]; then
    "$root/scripts/cuda-build.sh"
  else
    cargo build --release --locked --manifest-path "$root/Cargo.toml"
  fi
}

# Both halves can use the card, says telly itself.
ask_doctor() {
  "$telly" doctor --json | tee "$out/doctor.json"
  [ "$device" = cpu ] ||
    python3 -c 'import json, sys; sys.exit(not json.loads(sys.stdin.readlines()[-1])["cuda"]["ready"])' <"$out/doctor.json"
}

run_goldens() {
  local arguments=(test --release --test train -- training_parity clone_parity)
  export TELLY_TEST_DEVICE=$device
  if [ "$device" = cuda ]; then
    "$root/scripts/cuda-build.sh" -- "${arguments[@]}"
  else
    (cd "$root" && cargo "${arguments[0]}" --locked "${arguments[@]:1}")
  fi
}

main() {
  # For testing this script where there is no card: everything on the CPU.
  device=cuda
  case "$*" in
    "") ;;
    -h | --help) usage && exit 0 ;;
    "--device cpu") device=cpu ;;
    *) fail_usage "unknown arguments '$*'" ;;
  esac
  if [ "$device" = cuda ]; then need_card; fi
  need_cargo
  need_python
  need_python_of_the_pins
  cd "$root"
  rm -rf "$out"
  mkdir -p "$out/logs"
  # Where one of them fails, what still runs beside it is of no use.
  trap 'jobs=$(jobs -p); [ -z "$jobs" ] || kill $jobs 2>/dev/null' EXIT
  : >"$stages"
  telly="$root/target/release/telly"
  if [ "$device" = cuda ]; then telly="$root/target/cuda/telly"; fi

  # The network is busy with the first two while the processor is with the third.
  stage "libraries and checkpoint" "scripts/setup.sh" bring &
  local libraries=$!
  stage "PyTorch" "scripts/bench/requirements.txt" choose_python &
  local pytorch=$!
  stage "build" "${telly#"$root/"}" build_telly
  wait "$libraries"
  wait "$pytorch"
  # Chosen above by another process.
  choose_python >/dev/null 2>&1
  stage "telly doctor" "$device" ask_doctor
  stage "20 steps as in PyTorch" "training_parity and clone_parity on $device" run_goldens
  stage "data" "Python's standard library" python3 scripts/quickstart/stdlib_pairs.py --out "$out/data"
  local rows=4096
  if [ "$device" = cpu ]; then rows=96; fi
  exec "$python" scripts/gpu/check.py --device "$device" --telly "$telly" --model models/all-MiniLM-L6-v2 \
    --data "$out/data" --stages "$stages" --out "$out" --rows "$rows" --before "$SECONDS"
}

main "$@"
