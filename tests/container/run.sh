#!/usr/bin/env bash
# Builds the image and runs it as clusters do: an unknown user, no network, a read-only root; then
# compares each file that it writes with those of a run on the bare machine.
#
#   tests/container/run.sh [FOLDER]
#
# FOLDER keeps the demo dataset and both outputs; a second call with it goes on where it can.
# `neurolesion`, `neurolesion-tools` and `python` of the bare machine are those on PATH.
#
#   ENGINE           podman (default) or docker
#   ENGINE_OPTIONS   options before the engine's command, such as --storage-driver vfs
#   BUILD_OPTIONS    options of the build: build arguments, network, secrets, volumes
#   RUN_OPTIONS      options of each run
#   MAKE_BASE=1      makes the base image from Debian packages first (make_base.sh)
#   TRACES           words that the image may not hold, such as the host of a registry
#   ROOMS            analyses that run (default: leakage tumor)
set -euo pipefail
cd "$(dirname "$0")/../.."

engine=${ENGINE:-podman}
read -ra engine_options <<< "${ENGINE_OPTIONS:-}"
read -ra build_options <<< "${BUILD_OPTIONS:-}"
read -ra run_options <<< "${RUN_OPTIONS:-}"
read -ra rooms <<< "${ROOMS:-leakage tumor}"
image=localhost/neurolesion:test
user=12345
other_user=$((20000 + RANDOM))

mkdir -p "${1:-demo_data/container}"
folder=$(cd "${1:-demo_data/container}" && pwd)
demo=$folder/demo/bids
mkdir -p "$folder"/bare/out "$folder"/bare/work "$folder"/container/out "$folder"/container/work
chmod a+rwx "$folder"/container/out "$folder"/container/work

# Other kernels give other last bits: what tells the bare run which to take tells the container.
kernels=()
for name in ${!OPENBLAS_@} ${!MKL_@} ${!ATEN_@}; do
    kernels+=(--env "$name=${!name}")
done

engine() { "$engine" "${engine_options[@]}" "$@"; }

# One container: nothing from outside, nothing written but /tmp and what is mounted.
contained() {
    engine run --rm --network none --read-only --tmpfs /tmp --cap-drop all \
        --security-opt no-new-privileges --env OMP_NUM_THREADS=1 "${kernels[@]}" \
        "${run_options[@]}" "$@"
}

say() { printf '\n== %s (%s s)\n' "$1" "$SECONDS"; }
fail() { echo "container-test: $1" >&2; exit 1; }

if [ -n "${MAKE_BASE:-}" ]; then
    say 'base from Debian packages'
    tests/container/make_base.sh
fi

say build
version=$(neurolesion --version | tail -n 1)
version=${version##* }
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
engine build "${build_options[@]}" --build-arg REVISION="$revision" --tag "$image" .
label() {
    engine image inspect --format "{{index .Config.Labels \"org.opencontainers.image.$1\"}}" "$image"
}
[ "$(label version)" = "$version" ] || fail "the label of the image does not say version $version."
[ "$(label revision)" = "$revision" ] || fail "its label does not say revision $revision."

say size
engine image inspect --format '{{.Size}}' "$image" \
    | awk '{printf "image: %.2f GB\n", $1 / 1e9; if ($1 > 2.5e9) exit 1}' \
    || fail 'the image is larger than 2.5 GB.'
contained --entrypoint sh "$image" -c \
    'cat /opt/templateflow/STATE.txt; du -sm /opt/* /usr /var
    du -sm /opt/neurolesion/lib/python3*/site-packages/* | sort -rn | head -n 15'

say 'checks from inside, and no trace of this machine'
contained --user "$user" --entrypoint python \
    --volume "$PWD/tests/container/check_image.py:/check_image.py:ro" \
    "$image" /check_image.py "$version" cpu
for trace in "$PWD" "$folder" ${TRACES:-}; do
    ! contained --entrypoint grep "$image" -rlF "$trace" /opt /etc \
        || fail "the image holds the words $trace of this machine."
done

say 'start'
for user_id in "$user" "$other_user" 0; do
    start=$(date +%s.%N)
    contained --user "$user_id" --env HOME=/ "$image" --version
    echo "$start $(date +%s.%N)" | awk '{printf "neurolesion --version: %.2f s\n", $2 - $1}'
done

say 'demo dataset'
[ -f "$demo/dataset_description.json" ] || neurolesion-tools demo "$folder/demo"
chmod -R a+rX "$folder/demo"

options=(--participant-label 01 --analyses "${rooms[@]}" --nprocs 2 --omp-nthreads 1 --mem 6GB
    --output-spaces MNI152NLin2009aSym:res-2)

say 'an input that is absent, an output that cannot be written'
code=0
message=$(contained --user "$user" "$image" /data/absent /tmp/out participant 2>&1) || code=$?
echo "exit code $code: $message"
[ "$code" = 16 ] || fail "an absent input ends with $code, not 16."
code=0
message=$(contained --user "$user" --volume "$demo:/data:ro" "$image" /data /data/derivatives \
    participant 2>&1) || code=$?
echo "exit code $code: $message"
[ "$code" = 73 ] || fail "an output that cannot be written ends with $code, not 73."
[[ $message != *Traceback* ]] || fail 'the message has a traceback.'

say "participant level as user $user"
contained --user "$user" --volume "$demo:/data:ro" --volume "$folder/container/out:/out" \
    --volume "$folder/container/work:/work" "$image" /data /out participant -w /work "${options[@]}"
# The group level is somebody else's, who has no home.
contained --user "$user" --volume "$folder/container/out:/out" --entrypoint sh "$image" -c \
    'chmod -R a+rwX /out/*'
say "group level as user $other_user with HOME=/"
contained --user "$other_user" --env HOME=/ --volume "$demo:/data:ro" \
    --volume "$folder/container/out:/out" "$image" /data /out group -w /tmp/work

say 'participant and group level on the bare machine'
OMP_NUM_THREADS=1 neurolesion "$demo" "$folder/bare/out" participant -w "$folder/bare/work" \
    "${options[@]}"
OMP_NUM_THREADS=1 neurolesion "$demo" "$folder/bare/out" group -w "$folder/bare/work"

say comparison
python tests/container/compare.py "$folder/bare/out" "$folder/container/out"
echo "container-test passed in $SECONDS s."
