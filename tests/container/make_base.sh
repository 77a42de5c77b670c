#!/usr/bin/env bash
# Makes a stand-in for the image that the Dockerfile starts from, out of Debian's packages.
#
# For machines that reach a Debian mirror and no image registry. Needs root and mmdebstrap; the
# machine's own apt sources are used. ENGINE and ENGINE_OPTIONS are those of run.sh.
set -euo pipefail

engine=${ENGINE:-podman}
read -ra engine_options <<< "${ENGINE_OPTIONS:-}"
base=docker.io/library/python:3.11-slim

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
chmod 755 "$folder"

# Left out is what the official image leaves out too. $1 is for mmdebstrap, which names its folder so.
# shellcheck disable=SC2016
mmdebstrap --variant=minbase \
    --include=python3.11,python3.11-venv,python3-pip,ca-certificates,netbase,tzdata \
    --aptopt='APT::Install-Recommends "false"' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --customize-hook='ln -s /usr/bin/python3.11 "$1/usr/local/bin/python3"' \
    --customize-hook='ln -s python3 "$1/usr/local/bin/python"' \
    --customize-hook='rm -rf "$1"/etc/apt/sources.list "$1"/etc/apt/sources.list.d/*' \
    bookworm "$folder/base.tar" "${APT_SOURCES:-/etc/apt/sources.list.d/debian.sources}"
"$engine" "${engine_options[@]}" import "$folder/base.tar" "$base" > "$folder/id"
echo "made: $base ($(cat "$folder/id"))"
