#!/usr/bin/env bash
# One cache filled by several processes, under a real Slurm or GNU parallel, beside one filled by a single process.
set -euo pipefail
# shellcheck source=scripts/prelude.sh
source "$(dirname "$0")/prelude.sh"

telly=${CARGO_TARGET_DIR:-target}/release/telly
work=cache/many-machines
shares=4

usage() {
  cat <<'END'
Usage: scripts/many-machines.sh slurm|parallel

Fills a cache of this machine's standard library in four shares, of which the third is killed in the middle and run again,
fills another in one process, and compares every byte of the two. It takes two minutes on two cores.
  slurm     starts a Slurm of one node in cache/many-machines/ (packages slurm-wlm and munge; as root), and stops it
  parallel  with GNU parallel (package parallel)
END
}

need() {
  command -v "$1" >/dev/null 2>&1 || fail "$1 is not on the PATH: install the package $2 and run this again"
}

precompute=(precompute --task search --model models/all-MiniLM-L6-v2 --train "$work/data/train.jsonl" --freeze 4
  --shard-size 2MiB --threads 1)

prepare() {
  need_cargo
  need_python
  scripts/setup.sh
  cargo build --release --locked || fail "the build failed: check that Rust is current (rustup update)"
  rm -rf "$work"
  mkdir -p "$work"
  python3 scripts/quickstart/stdlib_pairs.py --out "$work/all" >"$work/data.log" 2>&1 ||
    fail "the data was not written: see $work/data.log"
  mkdir "$work/data"
  head -n 600 "$work/all/train.jsonl" >"$work/data/train.jsonl"
}

# One share; the third is killed with its first shard written, unless it was killed before.
write_share_script() {
  cat >"$work/share.sh" <<END
#!/usr/bin/env bash
#SBATCH --requeue
#SBATCH --output=$work/share-%a.log
#SBATCH --open-mode=append
set -euo pipefail
cd $(printf %q "$root")
number=\${SLURM_ARRAY_TASK_ID:-\${1-}}
share=\${1:+\$1/$shares}
command=(${telly@Q} ${precompute[*]@Q} --cache $work/shares --shard "\${share:-auto}")
[ "\$number" != 3 ] || mkdir $work/killed 2>/dev/null || number=again
[ "\$number" = 3 ] || exec "\${command[@]}"
"\${command[@]}" &
until compgen -G "$work/shares/share-3-of-$shares/shard-*" >/dev/null; do sleep 0.05; done
kill -KILL \$!
wait \$!
END
  chmod +x "$work/share.sh"
}

start_slurm() {
  export SLURM_CONF=$root/$work/slurm.conf
  local host state=$root/$work/slurm
  host=$(hostname -s)
  mkdir -p "$state/state" "$state/spool"
  cat >"$SLURM_CONF" <<END
ClusterName=telly
SlurmctldHost=$host
SlurmUser=root
AuthType=auth/munge
StateSaveLocation=$state/state
SlurmdSpoolDir=$state/spool
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd.pid
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
ReturnToService=2
MpiDefault=none
NodeName=$host CPUs=$(nproc) State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
END
  munge -n >/dev/null 2>&1 || service munge start >/dev/null || fail "munge does not start: see its log"
  slurmctld -f "$SLURM_CONF" || fail "slurmctld does not start: see $state/slurmctld.log"
  slurmd -f "$SLURM_CONF" || fail "slurmd does not start: see $state/slurmd.log"
  trap stop_slurm EXIT
}

stop_slurm() {
  local daemon
  for daemon in slurmd slurmctld; do
    kill "$(cat "$work/slurm/$daemon.pid")" 2>/dev/null || true
  done
}

# Until no task of job $1 is waiting or running.
wait_for_job() {
  while squeue --noheader --job "$1" --states PENDING,CONFIGURING,RUNNING,COMPLETING 2>/dev/null | grep -q .; do
    sleep 0.5
  done
}

run_slurm() {
  need sbatch slurm-wlm
  need munge munge
  [ "$(id -u)" = 0 ] || fail "Slurm's daemons are started here: run this as root"
  start_slurm
  local job
  job=$(sbatch --parsable --array="1-$shares" --cpus-per-task=1 "$work/share.sh") ||
    fail "sbatch failed: see $work/slurm/slurmctld.log"
  say "Slurm $(sbatch --version | cut -d ' ' -f 2), job array $job"
  wait_for_job "$job"
  squeue --array --job "$job" --states all --format '%.10i %.10T %.10M'
  [ ! -e "$work/shares/manifest.json" ] || fail "the cache is whole although a share was killed"
  say "requeueing ${job}_3, which was killed"
  scontrol requeue "${job}_3" || fail "scontrol requeue failed: see $work/slurm/slurmctld.log"
  wait_for_job "$job"
  squeue --array --job "$job" --states all --format '%.10i %.10T %.10M'
}

run_parallel() {
  need parallel parallel
  say "$(parallel --version | head -n 1)"
  seq "$shares" | parallel --jobs 2 --joblog "$work/parallel.log" "$work/share.sh {}" >"$work/shares.log" 2>&1 &&
    fail "no share failed, although one was killed"
  cut -f 1,4,7,8,9 "$work/parallel.log"
  [ ! -e "$work/shares/manifest.json" ] || fail "the cache is whole although a share was killed"
  say "running what failed again"
  parallel --retry-failed --joblog "$work/parallel.log" >>"$work/shares.log" 2>&1 ||
    fail "a share failed twice: see $work/shares.log"
  tail -n 1 "$work/parallel.log" | cut -f 1,4,7,8,9
}

compare() {
  say "the same in one process"
  "$telly" "${precompute[@]}" --cache "$work/alone" 2>"$work/alone.log" >/dev/null ||
    fail "telly precompute failed: see $work/alone.log"
  diff -r "$work/alone" "$work/shares" || fail "the two caches differ"
  say "equal, every byte: $(find "$work/alone" -type f | wc -l) files, $(du -sb "$work/alone" | cut -f 1) bytes"
}

main() {
  case ${1-} in
    -h | --help) usage && exit 0 ;;
    slurm | parallel) ;;
    *) fail_usage "slurm or parallel?" ;;
  esac
  cd "$root"
  prepare
  write_share_script
  "run_$1"
  compare
}

main "$@"
