# docker build --build-arg TORCH_INDEX=URL --tag neurolesion .
# docs/container.md tells what the arguments are for.

FROM docker.io/library/python:3.11-slim AS base
ENV LANG=C.UTF-8

# What draws the interactive views of reports; without it they are nilearn's.
FROM base AS viewer
WORKDIR /src
COPY requirements.lock ./
COPY javascript/ javascript/
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=secret,id=npmrc,target=/root/.npmrc \
    python3.11 -m venv /deno \
    && /deno/bin/pip install --quiet --constraint requirements.lock deno \
    && { timeout 600 /deno/bin/python javascript/bring.py /niivue \
        || { mkdir -p /niivue && echo 'Reports will have the simpler views of nilearn.'; }; }

# Everything that Python installs; whatever has no wheel must do without a compiler.
FROM base AS builder
ARG DEVICE=cpu
ARG TORCH_INDEX=
ENV PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /src
RUN python3.11 -m venv --without-pip /opt/neurolesion
COPY pyproject.toml requirements.lock ./
# Only what a run needs, at the versions of the lock: this layer outlives a change of our code.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    python3.11 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' > needed.txt \
    && pip --python /opt/neurolesion/bin/python install --no-compile --prefer-binary \
        --constraint requirements.lock --requirement needed.txt \
        ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"}
RUN /opt/neurolesion/bin/python -c 'import sys, torch; \
built = "cuda" if torch.version.cuda else "cpu"; \
sys.exit(sys.argv[1] != built and f"pip found the {built} build of torch for DEVICE={sys.argv[1]}: give the index of the other one as TORCH_INDEX.")' "$DEVICE"
# Left out is what no run opens: the packages' own tests, and what compiles against torch. Compiled
# once here, as a read-only root can keep nothing; a source file's time does not count. Packages hold
# single files for a newer Python, which no run imports.
RUN site=/opt/neurolesion/lib/python3.11/site-packages \
    && find "$site" -type d -name tests -prune -exec rm -r {} + \
    && rm -rf "$site/torch/include" "$site/torch/share" "$site/torch/test" \
    && find "$site/torch/bin" -type f ! -name torch_shm_manager -delete \
    && find "$site/torch" -name '*.a' -delete \
    && { python3.11 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$site" \
        || echo 'The files above stay as they are.'; } \
    && chmod -R a+rX /opt/neurolesion
COPY LICENSE THIRD_PARTY_NOTICES.md README.md ./
COPY bids_app/ bids_app/
COPY derivatives_spec/ derivatives_spec/
COPY templates/ templates/
COPY --from=viewer /niivue templates/reports/niivue
ARG VERSION=0.1.0
# By way of a wheel, so that nothing tells of the folder it was built in.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    --mount=type=cache,target=/root/.cache/pip \
    site=/opt/neurolesion/lib/python3.11/site-packages \
    && pip wheel --no-deps --wheel-dir /wheels . \
    && pip --python /opt/neurolesion/bin/python install --no-compile --no-deps --no-index \
        --find-links /wheels "neurolesion==$VERSION" \
    && pip --python /opt/neurolesion/bin/python check \
    && python3.11 -m compileall -q --invalidation-mode unchecked-hash "$site/bids_app" \
    && chmod -R a+rX "$site"/bids_app "$site"/neurolesion-*

# Templates that the network gives; without it the embedded one serves, and the file says so.
FROM builder AS templates
ARG TEMPLATES="MNI152NLin2009cAsym:res-1 MNI152NLin2009cAsym:res-2"
ARG TEMPLATES_MIRROR=
ENV TEMPLATEFLOW_HOME=/opt/templateflow PATH=/opt/neurolesion/bin:$PATH
# hadolint ignore=SC2086
RUN mkdir -p "$TEMPLATEFLOW_HOME" \
    && if [ -z "$TEMPLATES" ]; then state='None were asked for'; \
    elif timeout 1200 neurolesion-tools templates fetch $TEMPLATES \
        ${TEMPLATES_MIRROR:+--mirror "$TEMPLATES_MIRROR"}; \
    then state="Fetched from TemplateFlow: $TEMPLATES"; \
    else state="Could not be fetched: $TEMPLATES"; fi \
    && { echo "$state."; neurolesion-tools templates list; } > "$TEMPLATEFLOW_HOME/STATE.txt" \
    && cat "$TEMPLATEFLOW_HOME/STATE.txt" \
    && chmod -R a+rX "$TEMPLATEFLOW_HOME"

FROM base
ARG DEVICE=cpu
ARG REVISION=unknown
ARG VERSION=0.1.0
COPY --from=builder /opt/neurolesion /opt/neurolesion
COPY --from=templates /opt/templateflow /opt/templateflow
# No user has a home here, and nothing but /tmp may be written.
ENV PATH=/opt/neurolesion/bin:$PATH \
    HOME=/tmp \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    XDG_CACHE_HOME=/tmp/.cache \
    MPLBACKEND=Agg \
    NO_ET=1 \
    NIPYPE_NO_ET=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONNOUSERSITE=1 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    NEUROLESION_CONTAINER_TYPE=docker \
    NEUROLESION_CONTAINER_TAG=neurolesion:$VERSION
RUN --mount=type=bind,source=tests/container/check_image.py,target=/check/check_image.py \
    python /check/check_image.py "$VERSION" "$DEVICE"
WORKDIR /tmp
LABEL org.opencontainers.image.title=neurolesion \
      org.opencontainers.image.description="BIDS App that turns raw brain MRI and CT into lesion derivatives; research use only" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=https://github.com/neurolesion/neurolesion \
      org.opencontainers.image.licenses="Apache-2.0 AND CC-BY-NC-SA-4.0" \
      org.opencontainers.image.base.name=docker.io/library/python:3.11-slim
ENTRYPOINT ["neurolesion"]
