# syntax=docker/dockerfile:1
# The server in two images, for CPUs and for CUDA:
#
#   docker build --target cpu -t multiverse:cpu .
#   docker build --target cuda -t multiverse:cuda .
#   docker run -p 127.0.0.1:8000:8000 -v multiverse:/cache -e MULTIVERSE_API_KEY=... multiverse:cpu
#
# On x86-64, PyPI's torch is built for CUDA: the CPU image is smaller by gigabytes with --build-arg TORCH_INDEX_URL=...,
# PyTorch's own index of builds for CPUs.

ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS wheel
WORKDIR /source
COPY constraints.txt ./
RUN pip install --no-cache-dir --constraint constraints.txt build
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY recipes recipes
COPY src src
RUN python -m build --wheel --outdir /dist

FROM python:${PYTHON}-slim-bookworm AS base
# The native CPU kernels and Triton's launchers are compiled where they run. Debian's versions are those of the base image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --user-group --create-home multiverse \
    && install --directory --owner multiverse --group multiverse /cache
COPY constraints.txt /tmp/constraints.txt
ENV PYTHONUNBUFFERED=1 \
    XDG_CACHE_HOME=/cache \
    HF_HOME=/cache/huggingface \
    TRITON_CACHE_DIR=/cache/triton
# Models that are fetched, and compiled kernels.
VOLUME /cache
WORKDIR /home/multiverse
EXPOSE 8000
# Loading a large model takes minutes: until then, nothing listens.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10m --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/health', timeout=4)"]
ENTRYPOINT ["multiverse"]
# Refused without an API key (MULTIVERSE_API_KEY, or --api-key-file).
CMD ["serve", "--host", "0.0.0.0"]

FROM base AS cpu
ARG TORCH_INDEX_URL=""
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /dist/*.whl)[serve,gguf,chat]"
USER 10001:10001

FROM base AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN pip install --no-cache-dir --constraint /tmp/constraints.txt torch
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    pip install --no-cache-dir --constraint /tmp/constraints.txt "$(echo /dist/*.whl)[serve,gguf,chat,cuda]"
USER 10001:10001
