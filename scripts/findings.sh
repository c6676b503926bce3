#!/usr/bin/env bash
# Repeats a case of docs/findings.md: draws its rows, sweeps K over them, and compares the layers before and after training.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

usage() {
  cat <<'END'
Usage: scripts/findings.sh sst2|search|clones --data DATA [--model MODEL] [--freeze LIST] [--lr LR]

Builds telly, draws the rows of the case out of DATA, which holds a folder for each data set (sst2, pystd, poj104) with a
JSON Lines file for each split, and writes to cache/findings/CASE/:

  train.jsonl, valid.jsonl, test.jsonl   the rows, the same for the same data
  NAME/sweep                             telly sweep over K and three seeds, one epoch each
  NAME/rsa.json                          telly rsa of MODEL and the run with nothing frozen, where LIST has `none`
  NAME/report.html                       a page of both

  --model MODEL   folder of a checkpoint, whose last name is NAME (models/all-MiniLM-L6-v2)
  --freeze LIST   K, as telly sweep takes them (none,0..5)
  --lr LR         peak learning rate (1e-4)

Times are worth something only if nothing else runs beside it. After Ctrl-C the same command goes on; a longer LIST goes
on from what a shorter one has trained.

  scripts/findings.sh clones --data DATA --model models/all-mpnet-base-v2 --freeze none,0..11 --lr 5e-5
END
}

# The flags of telly sweep that a case has: $flags, and of its texts those that are compared: $texts.
choose_case() {
  case $1 in
    sst2)
      flags=(--task classify --text-field sentence --max-length 64)
      texts=(--text-field sentence --max-length 64)
      ;;
    search)
      flags=(--task search --max-query-length 32 --max-code-length 96)
      texts=(--text-field code --max-length 96)
      ;;
    clones)
      flags=(--task clone --text-field code --label-field label --max-length 96)
      texts=(--text-field code --max-length 96)
      ;;
    *) fail_usage "unknown case '$1'" ;;
  esac
}

main() {
  case ${1-} in
    -h | --help) usage && exit 0 ;;
    "") fail_usage "no case" ;;
  esac
  local name=$1 data="" model="$root/models/all-MiniLM-L6-v2" freeze=none,0..5 lr=1e-4 flags texts
  choose_case "$name"
  shift
  while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || fail_usage "$1 without its value"
    case $1 in
      --data) data=$2 ;;
      --model) model=$2 ;;
      --freeze) freeze=$2 ;;
      --lr) lr=$2 ;;
      *) fail_usage "unknown argument '$1'" ;;
    esac
    shift 2
  done
  [ -n "$data" ] || fail_usage "no --data"
  # As the folders of runs are named.
  [[ $lr =~ ^[1-9](\.[0-9]*[1-9])?e-[1-9]$ ]] || fail_usage "--lr $lr: write it as 5e-5"
  [ -d "$data" ] || fail "--data $data is no folder"
  [ -d "$model" ] || fail "--model $model is no folder: scripts/setup.sh brings models/all-MiniLM-L6-v2"
  data=$(cd "$data" && pwd)
  model=$(cd "$model" && pwd)
  need_cargo
  need_python
  cd "$root"
  local rows="cache/findings/$name"
  local out
  out="$rows/$(basename "$model")"
  scripts/setup.sh
  scripts/bench/findings_rows.py "$name" --data "$data" --out "$rows"
  cargo build --release --locked ||
    fail "the build failed: check that Rust is current (rustup update) and run this again"
  local telly="${CARGO_TARGET_DIR:-target}/release/telly"
  "$telly" sweep --model "$model" "${flags[@]}" --train "$rows/train.jsonl" --valid "$rows/valid.jsonl" \
    --test "$rows/test.jsonl" --freeze "$freeze" --seeds 1,2,3 --lr "$lr" --epochs 1 --out "$out/sweep"
  local compared=() trained="$out/sweep/runs/freeze-none/lr-$lr/seed-1"
  if [ -d "$trained" ]; then
    "$telly" rsa "$model" "$trained" --data "$rows/test.jsonl" "${texts[@]}" --json >"$out/rsa.json.partial"
    mv "$out/rsa.json.partial" "$out/rsa.json"
    compared=("$out/rsa.json")
  fi
  "$telly" report "$out/sweep" ${compared[@]+"${compared[@]}"} --out "$out/report.html"
  say "$out/report.html has it on a page"
}

main "$@"
