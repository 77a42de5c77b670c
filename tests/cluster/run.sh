#!/usr/bin/env bash
# The demo dataset through a real SLURM of one node: both levels, a cancelled job, a job that runs
# into its time limit, and a second run that does only what is missing.
#
#   tests/cluster/run.sh [DEMO_DIR]    a demo dataset that is there already is used again
#
# Needs Debian's slurm-wlm and munge, root, and 5 to 20 minutes.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
python=${PYTHON:-$root/.venv/bin/python}
export PYTHONPATH=$root
home=$(mktemp -d)
demo=${1:-$home/demo}
readonly subjects=(01 03)
watcher=

finish() {
    local code=$?
    [[ -z $watcher ]] || kill "$watcher" 2> /dev/null || true
    "$here/slurm.sh" stop "$home/slurm"
    if ((code)); then
        echo "run.sh: failed; what it left is in $home." >&2
    else
        rm -rf "$home"
    fi
}
trap finish EXIT

fail() {
    echo "run.sh: $1" >&2
    exit 1
}

# One participant run; its last lines go to the terminal and to a file.
participant() {
    local profile=$1 log=$2
    "$python" -m bids_app "$demo/bids" "$home/out" participant -w "$home/work" \
        --participant-label "${subjects[@]}" --analyses leakage --cluster "$profile" \
        --omp-nthreads 2 -v > "$log" 2>&1
}

# Numbers of all jobs that the scheduler was given so far.
jobs_so_far() {
    find "$home/work/neurolesion_wf/batch" -name '*.sh' | wc -l
}

settings=$("$here/slurm.sh" start "$home/slurm")
eval "$settings"
[[ -d $demo/bids ]] || "$python" -m bids_app.cli.tools demo "$demo"

cat > "$home/plain.yml" <<'PROFILE'
extends: slurm
minutes: 60
poll_s: 1
latency_s: 5
PROFILE
# One step hangs before it starts, as where a network drive is away, until its minute is over.
{
    cat "$home/plain.yml"
    cat <<'PROFILE'
setup: if [[ $SLURM_JOB_NAME == sub_03.fit_leakage ]]; then sleep 600; fi
steps: {fit_leakage: {minutes: 1}}
PROFILE
} > "$home/hangs.yml"

echo "== first run: sub-01's motion correction is cancelled, sub-03's fit runs out of time"
(
    while sleep 0.5; do
        job=$(squeue --noheader --name=sub_01.estimate_motion --states=RUNNING --format=%A)
        if [[ $job ]]; then
            scancel "$job"
            break
        fi
    done
) &
watcher=$!
code=0
participant "$home/hangs.yml" "$home/first.log" || code=$?
tail -n 3 "$home/first.log"
((code == 1)) || fail "the first run ended with $code, not 1."
last=$(tail -n 3 "$home/first.log")
[[ $last == *"sub-01, leakage, estimate_motion: job "*"was cancelled before it had ended"* ]] ||
    fail 'the last lines do not tell of the cancelled job.'
[[ $last == *"sub-03, leakage, fit_leakage: job "*"at its time limit of 1 min"* ]] ||
    fail 'the last lines do not tell of the time limit.'
grep -q 'was cancelled before it had ended' "$home/out/sub-01.html" ||
    fail 'the report does not tell of the cancelled job.'
grep -q 'at its time limit of 1 min' "$home/out/sub-03.html" ||
    fail 'the report does not tell of the time limit.'
! grep -q Traceback "$home/first.log" || fail 'the first run showed a traceback.'
[[ -z $(squeue --noheader) ]] || fail 'the first run left jobs behind.'

echo '== second run: what is missing'
before=$(jobs_so_far)
participant "$home/plain.yml" "$home/second.log" || fail "$(tail -n 3 "$home/second.log")"
tail -n 1 "$home/second.log"
# Motion correction, alignment and fit of sub-01, fit of sub-03.
((before + 4 == $(jobs_so_far))) || fail "$(($(jobs_so_far) - before)) jobs in place of 4."

echo '== third run: nothing is missing'
participant "$home/plain.yml" "$home/third.log" || fail "$(tail -n 3 "$home/third.log")"
tail -n 1 "$home/third.log"
((before + 4 == $(jobs_so_far))) || fail 'the third run submitted jobs.'

echo '== group level, as a job'
sbatch --wait --output="$home/group.log" --wrap \
    "'$python' -m bids_app '$demo/bids' '$home/out' group" > "$home/sbatch.txt" ||
    fail "$(tail -n 3 "$home/group.log")"
tail -n 1 "$home/group.log"
(($(wc -l < "$home/out/phenotype/neurolesion.tsv") == ${#subjects[@]} + 1)) ||
    fail 'the group table does not have a row for each subject.'
echo '== all as it should be'
