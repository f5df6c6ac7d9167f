# `make demo` and `make test` work from a fresh clone, with Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# In parallel: each process takes consecutive tests, so a module's fixtures are made once or twice, and idle ones take over tests of others.
PYTEST := $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 20 --durations-min 5
# llama.cpp is compiled for this processor; on another one it is built again.
PROCESSOR := $(shell grep -m1 'model name' /proc/cpuinfo 2>/dev/null | cksum | cut -d' ' -f1)

# Its server alone, in one file, without the page and without HTTPS.
LLAMA_SERVER := -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
	-DLLAMA_OPENSSL=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF

QUICK ?= --quick
GPU_TESTS := tests/attention tests/backends/cuda tests/engine/test_oracle.py tests/engine/test_stress.py

.PHONY: help setup demo test lint types tests reference proofs lm-eval clients open-webui soak mini mini-text mini-dialogues smol from-sequential paper rl-correctness rl-acceleration rl-collapse rl-sequential rl-mismatch bench latency bench-envs stock-engines joins group-packing gpu gpu-check clean
.DEFAULT_GOAL := help

help:  ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(STAMP)  ## make the virtual environment and install everything

# torch first and alone: with the pinned version installed, no other package replaces its build.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch numpy
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: setup  ## a language model answers, forking where a question has parts, and is timed beside its base; a puzzle model nests
	$(BIN)/python -m recipes.demo

test: lint types tests  ## lint, types and tests

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

tests: setup
	tests/programs.sh
	$(PYTEST)

reference: setup  ## write docs/cli.md, docs/configuration.md and docs/modules.md from the code, and tables of figures from the JSON files
	$(BIN)/python docs/reference.py
	$(BIN)/python docs/measured.py

# What builds the site, and what builds and checks packages: nothing of it is shipped.
$(VENV)/.docs $(VENV)/.release: $(VENV)/.%: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	touch $@

.PHONY: docs docs-serve docs-publish dist deploy-check
docs: $(VENV)/.docs reference  ## build the site into site/: a warning is an error, links and anchors are checked
	$(BIN)/python docs/pictures.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

docs-serve: $(VENV)/.docs  ## the site at http://127.0.0.1:8001, built again when a page changes
	$(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

# A folder for each version on the branch gh-pages: "dev", or the tag's number with the alias "latest".
VERSION ?= dev
docs-publish: docs
	$(BIN)/mike deploy --push $(if $(filter v%,$(VERSION)),--update-aliases $(VERSION:v%=%) latest,$(VERSION))
	$(if $(filter v%,$(VERSION)),$(BIN)/mike set-default --push latest)

# The files' dates are the commit's, so that anyone who builds the same commit gets the same bytes.
dist: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct 2>/dev/null || echo 1580601600)
dist: $(VENV)/.release  ## wheel, sdist and SBOM in dist/: built twice to the same bytes, checked, the wheel tried from an empty folder
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/twine check --strict dist/*
	$(BIN)/check-wheel-contents dist/*.whl
	$(BIN)/pytest -m slow tests/test_dist.py
	$(BIN)/python tools/sbom.py dist/multiverse-llm.cdx.json

KUBERNETES ?= 1.30
deploy-check: $(VENV)/.release  ## linters of Dockerfile, Compose, Kubernetes manifests, workflows, issue forms and the citation file
	$(BIN)/hadolint Dockerfile
	$(BIN)/yamllint --strict .yamllint.yml recipes/serving .github mkdocs.yml CITATION.cff
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec recipes/serving/compose*.yaml
	$(BIN)/kubernetes-validate --strict --kubernetes-version $(KUBERNETES) recipes/serving/kubernetes/multiverse.yaml \
		recipes/serving/kubernetes/autoscaling.yaml
	$(BIN)/zizmor --offline --quiet --config .github/zizmor.yml .github/workflows
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/bug.yml .github/ISSUE_TEMPLATE/idea.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-config .github/ISSUE_TEMPLATE/config.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.citation-file-format CITATION.cff

proofs: setup  ## the slow tests (many more random trees)
	$(BIN)/pytest -m slow

# lm-eval has dependencies of its own, and shares no environment with the server that it asks.
lm-eval: setup  ## run lm-eval, unmodified and in .venv-lm-eval, against the server: log-likelihoods, texts, chats
	test -x .venv-lm-eval/bin/lm_eval || { $(PYTHON) -m venv .venv-lm-eval && \
		.venv-lm-eval/bin/python -m pip install --quiet --disable-pip-version-check 'lm-eval[api]'; }
	$(BIN)/pytest -m slow tests/serving/test_conformance_lm_eval.py

clients: setup  ## clients that people use, against the server: openai-agents, LiteLLM, LangChain and llm, each in an environment of its own
	$(PYTHON) -m venv runs/clients/agents && runs/clients/agents/bin/pip install --quiet openai-agents
	$(PYTHON) -m venv runs/clients/litellm && runs/clients/litellm/bin/pip install --quiet litellm
	$(PYTHON) -m venv runs/clients/langchain && runs/clients/langchain/bin/pip install --quiet langchain-openai
	$(PYTHON) -m venv runs/clients/llm && runs/clients/llm/bin/pip install --quiet llm
	$(BIN)/pytest -m slow tests/serving/test_clients.py tests/serving/test_clients_example.py

# Two and a half gigabytes. torch first, so that the build for CPUs stays.
open-webui: setup  ## Open WebUI, unmodified and without the network, against the server
	test -x runs/clients/open-webui/bin/open-webui || { $(PYTHON) -m venv runs/clients/open-webui && \
		runs/clients/open-webui/bin/pip install --quiet -c constraints.txt torch && runs/clients/open-webui/bin/pip install --quiet open-webui; }
	$(BIN)/pytest -m slow tests/serving/test_clients.py -k open-webui

soak: setup  ## soak test: ten minutes of two hundred requests on a pool sized for twenty
	mkdir -p runs
	$(BIN)/python -m benchmarks.soak --json runs/soak.json

mini: setup  ## train multiverse-mini from random weights into runs/mini, more than an hour on two cores
	$(BIN)/python -m recipes.mini.start runs/mini/start
	$(BIN)/python -m recipes.mini.data runs/mini/data.jsonl
	$(BIN)/multiverse train recipes/mini/train.yaml

# What it starts from and is compared with is the model that comes with the package.
mini-text: setup  ## fine-tune multiverse-mini for a join by text, for engines that cannot join keys and values, into runs/mini-text
	test -f runs/mini-text/data.jsonl || $(BIN)/python -m recipes.mini.data runs/mini-text/data.jsonl --documents 800 --seed 77 --narrow 0
	test -f runs/mini-text/run/model/README.md || $(BIN)/multiverse train recipes/mini/text.yaml

# Evaluated before and after on the same dialogues, whose answers are kept.
DIALOGUES = $(BIN)/multiverse eval dialogues tasks --limit 200 --seed 2026
mini-dialogues: setup  ## fine-tune multiverse-mini on dialogues of several turns into runs/mini-dialogues, and compare it by turn with itself before
	test -f runs/mini-dialogues/data.jsonl || $(BIN)/python -m recipes.mini.dialogues runs/mini-dialogues/data.jsonl
	$(DIALOGUES) --out runs/mini-dialogues/before
	test -f runs/mini-dialogues/run/model/README.md || $(BIN)/multiverse train recipes/mini/dialogues.yaml
	$(DIALOGUES) --model runs/mini-dialogues/run/model --out runs/mini-dialogues/after
	$(BIN)/multiverse eval report runs/mini-dialogues/before runs/mini-dialogues/after --out runs/mini-dialogues/report

# A run that was stopped resumes: answers, documents and checkpoints are kept.
# The second composition uses the answers of the first; its documents have more parts, and more of them do not fork.
# GSM8K is read from the hub; or name a file: make smol GSM8K=train.jsonl
COMPOSE = $(BIN)/multiverse curate compose recipes/smol/questions/single.jsonl recipes/smol/questions/general.jsonl \
	--on-error stop --out runs/smol/composed -m smollm2
smol: setup  ## teach SmolLM2-135M-Instruct to answer in parallel, from its own answers, about four hours on two cores
	$(COMPOSE) --num-documents 1800
	$(BIN)/multiverse curate dataflow $(GSM8K) --dialect multiverse-answer --out runs/smol/dataflow
	$(BIN)/python -m recipes.smol.calculations runs/smol/dataflow/data runs/smol/calculations.jsonl
	$(BIN)/multiverse train recipes/smol/train.yaml
	$(COMPOSE) --fresh --num-documents 2600 --max-parts 7 --unforked 0.35 --unsplit 0.5
	$(BIN)/multiverse train recipes/smol/further.yaml
	$(BIN)/python -m recipes.smol.measure runs/smol/further/adapter --json runs/smol/figures.json

from-sequential: setup  ## fine-tune a model of sequential text, and evaluate it before and after
	$(BIN)/python -m recipes.from_sequential.run

# About three hours on two cores. A run that was stopped resumes: existing start weights, cells and timings are kept.
paper: setup  ## compare the ways of forking and joining: missing cells, then tables and plots
	test -f recipes/paper/start/config.json || $(BIN)/python -m recipes.paper.base
	$(BIN)/python -m recipes.paper.run
	test -f recipes/paper/timing-paper.json || $(BIN)/python -m recipes.paper.timing
	$(BIN)/python -m recipes.paper.report

# Each a quarter of an hour of one core. A run that was stopped resumes; finished ones are kept. Another seed: make rl-correctness SEED=1
SEED ?= 0
RL_RUN = $(BIN)/python -m recipes.rl.run --seed $(SEED)
RL_REPORT = $(BIN)/python -m recipes.rl.report

rl-correctness: setup  ## reinforcement learning from a model that forks and is often wrong: rewarded if right
	$(RL_RUN) correctness
	$(RL_REPORT)

rl-acceleration: setup  ## with a reward for a shorter critical path, from a model that forks or not
	$(RL_RUN) acceleration
	$(RL_REPORT)

rl-collapse: setup  ## whether forking is lost where only right answers are rewarded, beside rl-acceleration
	$(RL_RUN) no-acceleration
	$(RL_REPORT)

rl-sequential: setup  ## as rl-correctness, with the same model thinking in a line
	$(RL_RUN) sequential
	$(RL_REPORT)

rl-mismatch: setup  ## as rl-correctness, with rollouts that the update sees otherwise than the engine
	$(RL_RUN) mismatch-positions
	$(RL_RUN) mismatch-guard
	$(RL_REPORT)

bench: setup  ## decode speed in one run, beside llama.cpp and vLLM if bench-envs has installed them
	mkdir -p runs
	$(BIN)/python -m benchmarks.engine --json runs/bench.json --plot runs/bench.svg

latency: setup  ## latency against parallelism, and speed-up against batch size (the paper's Figure 8)
	mkdir -p runs
	$(BIN)/python -m benchmarks.latency --json runs/latency.json --plot runs/latency.svg

stock-engines: mini-text bench-envs  ## a model with a text join on vLLM and llama.cpp, against our engine: 200 questions of each family
	mkdir -p runs
	$(BIN)/python -m benchmarks.stock_engines --json runs/stock-engines.json

joins: mini-text bench-envs  ## joins of keys and values and of text, head to head: our engine, vLLM, llama.cpp
	mkdir -p runs
	$(BIN)/python -m benchmarks.joins --json runs/joins.json

group-packing: setup  ## reinforcement learning: an update on a group, with a shared prompt and without
	mkdir -p runs
	$(BIN)/python -m benchmarks.group_packing --json runs/group-packing.json --plot runs/group-packing.svg

gpu: setup  ## speed of the engine on a CUDA GPU, in ten minutes; QUICK= for all sizes
	mkdir -p runs
	$(BIN)/python -m benchmarks.gpu $(QUICK) --json runs/gpu.json

gpu-check: setup  ## the oracle, the stress test and the kernels on a CUDA GPU
	MULTIVERSE_TEST_DEVICE=cuda $(BIN)/pytest -W default $(GPU_TESTS)

bench-envs: .venv-llama/.server-for-$(PROCESSOR) .venv-vllm/.installed  ## install llama.cpp and vLLM on CPU, each in its own environment

# No cached wheel, which may be for another processor. The source distribution has all of llama.cpp: its server comes from there.
.venv-llama/.built-for-$(PROCESSOR): benchmarks/others/llama.txt
	$(PYTHON) -m venv --clear .venv-llama
	.venv-llama/bin/python -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-binary llama-cpp-python -r $<
	touch $@

.venv-llama/.server-for-$(PROCESSOR): .venv-llama/.built-for-$(PROCESSOR)
	rm -rf .venv-llama/source && mkdir .venv-llama/source
	.venv-llama/bin/python -m pip download --quiet --disable-pip-version-check --no-cache-dir --no-deps --no-binary llama-cpp-python \
		--dest .venv-llama/source `grep ^llama-cpp-python benchmarks/others/llama.txt`
	tar xzf .venv-llama/source/*.tar.gz -C .venv-llama/source --strip-components 1
	.venv-llama/bin/cmake -S .venv-llama/source/vendor/llama.cpp -B .venv-llama/source/build -DCMAKE_BUILD_TYPE=Release $(LLAMA_SERVER)
	.venv-llama/bin/cmake --build .venv-llama/source/build --target llama-server --parallel
	mv .venv-llama/source/build/bin/llama-server .venv-llama/bin && rm -rf .venv-llama/source
	touch $@

# Its requirements name a CPU build of torch. torchvision, torchaudio and torchcodec come in builds that do not fit it and are
# not needed.
.venv-vllm/.installed: benchmarks/others/vllm.txt
	$(PYTHON) -m venv --clear .venv-vllm
	.venv-vllm/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	.venv-vllm/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

clean:  ## remove the virtual environments and caches
	rm -rf $(VENV) .venv-llama .venv-vllm .pytest_cache .mypy_cache .ruff_cache .hypothesis dist site
