# vllama with the vLLM for NVIDIA GPUs, or with its CPU build: docker build --build-arg EXTRA=cpu -t vllama:cpu .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim-bookworm AS wheel
# What is on a warm request's way is compiled.
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev
WORKDIR /src
COPY setup.py pyproject.toml README.md LICENSE ./
COPY vllama ./vllama
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

FROM python:${PYTHON}-slim-bookworm
ARG EXTRA=vllm
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# vLLM compiles kernels while it runs (Triton, torch.compile), and numactl's library places its threads on a CPU.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ libnuma1 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=wheel /wheels /wheels
# The CPU build of torch is not on PyPI.
RUN if [ "$EXTRA" = cpu ]; then index="--extra-index-url $TORCH_INDEX"; fi \
    && pip install --no-cache-dir $index "$(echo /wheels/vllama-*.whl)[$EXTRA]" \
    && rm -rf /wheels
RUN useradd --create-home --uid 1000 vllama \
    && install --directory --owner=vllama /config /models
USER vllama
# 0.0.0.0 is the container's own network; what of it is reachable is said where the port is published.
ENV VLLAMA_HOST=0.0.0.0 \
    VLLAMA_PORT=33258 \
    VLLAMA_CONFIG_DIR=/config \
    VLLAMA_TRANSFORMERS_CACHE=/models
VOLUME ["/config", "/models"]
EXPOSE 33258
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:33258/health', timeout=4)"]
ENTRYPOINT ["vllama"]
CMD ["serve"]
