#!/usr/bin/env bash
# From a fresh clone to a fine-tuned code search model: set-up, build, data, precompute, train, evaluate, predict.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

model=models/all-MiniLM-L6-v2
data=cache/quickstart/data
activations=cache/quickstart/activations
results=cache/quickstart/results
run=runs/quickstart
telly=${CARGO_TARGET_DIR:-target}/release/telly
lengths=(--max-query-length 64 --max-code-length 256)

usage() {
  cat <<'END'
Usage: scripts/quickstart.sh [QUERY]

Fine-tunes a small pre-trained encoder to find Python functions by what they do, on the standard library of this machine,
and answers QUERY (default: "merge several sorted inputs into a single sorted output") with it. It takes minutes on two
cores, about 250 MB of downloads for the tools and the model, and writes only into this folder:
  .onnxruntime/ models/   what scripts/setup.sh brings
  target/                 the build
  cache/quickstart/       the data, the activation cache and what each command reported
  runs/quickstart/        the trained model and its predictions; replaced by every run
END
}

build() {
  say "building target/release/telly"
  cargo build --release --locked ||
    fail "the build failed: check that Rust is current (rustup update) and run scripts/quickstart.sh again"
}

write_data() {
  mkdir -p "$results"
  python3 scripts/quickstart/stdlib_pairs.py --out "$data" ||
    fail "the data was not written: do what is said above and run scripts/quickstart.sh again"
}

# run_telly ARGUMENTS...: show the command as it could be typed, and run it.
run_telly() {
  {
    printf '\n$ %s' "$telly"
    printf ' %q' "$@"
    printf '\n'
  } >&2
  "$telly" "$@" ||
    fail "\`telly $1\` failed: do what it says above and run scripts/quickstart.sh again"
}

# report NAME ARGUMENTS...: run a command with --json, keep the object it ends with as NAME.json, print what went before.
report() {
  local name=$1
  shift
  run_telly "$@" --json >"$results/$name.out"
  sed '$d' "$results/$name.out"
  tail -n 1 "$results/$name.out" >"$results/$name.json"
}

answer() {
  local query=$1
  python3 -c 'import json, sys; print(json.dumps({"docstring": sys.argv[1]}))' "$query" >"$results/query.jsonl"
  run_telly predict --run "$run" --input "$results/query.jsonl" --against "$data/test.jsonl" --top 3 \
    --output "$run/predictions.jsonl"
  say
  python3 scripts/quickstart/report.py matches "$run/predictions.jsonl"
}

main() {
  case ${1-} in
    -h | --help) usage && exit 0 ;;
    -*) fail_usage "unknown argument '$1'" ;;
  esac
  [ $# -le 1 ] || fail_usage "more than one query: put quotation marks around it"
  local query=${1:-merge several sorted inputs into a single sorted output}
  need_cargo
  need_python
  cd "$root"
  scripts/setup.sh
  build

  local started=$SECONDS
  write_data
  report zero_shot evaluate --model "$model" --task search --data "$data/test.jsonl" "${lengths[@]}"
  report precompute precompute --task search --model "$model" --train "$data/train.jsonl" --valid "$data/valid.jsonl" \
    --test "$data/test.jsonl" --freeze 4 --cache "$activations" "${lengths[@]}"
  report train train --cache "$activations" --out "$run" --epochs 1 --batch-size 32 --lr 5e-5 --seed 1 --force
  report trained evaluate --run "$run" --data "$data/test.jsonl"
  answer "$query"
  say
  python3 scripts/quickstart/report.py table --results "$results" --data "$data" --total-seconds $((SECONDS - started))
}

main "$@"
