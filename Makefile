# Every target makes its own set-up: Python 3.11 or newer and make are all that is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo demo-llm test test-fast lint docs docs-check base bases bench mismatch settings long-tail kill-test fuzz site clean test-wheel test-track test-newest test-trl test-unirl test-tinker test-skyrl test-trinity test-ms-swift parity parity-skyrl test-verl test-verl-e2e test-vllm

help:
	@echo "make demo    install, then train the shipped base under DRPO (a few minutes on 2 CPU cores)"
	@echo "make demo-llm  install, fetch SmolLM2-135M-Instruct (93 MB), train it on sums under DRPO, look at its tokens (docs/demo-llm.md)"
	@echo "make test    install, then run the tests"
	@echo "make test-fast  the tests that take no more than some seconds a file"
	@echo "make test-trl | test-verl | test-verl-e2e | test-tinker | test-skyrl | test-unirl | test-trinity | test-ms-swift   the plug-ins, each with its real host"
	@echo "make test-trl TRL=1.15.0  the same in another release of TRL, in an environment of its own"
	@echo "make test-skyrl SKYRL=0.4.0  the same in that release, on Python 3.12 (PYTHON312 names it; 5.6 GB)"
	@echo "make test-newest  each host's tests with the newest releases of the index, for docs/integrations (about half an hour)"
	@echo "make test-vllm  the vLLM sampler with the real engine on the CPU (about three minutes)"
	@echo "make test-wheel  build wheel and sdist, install them, and try what they install"
	@echo "make test-track  the trackers, each with its real package"
	@echo "make lint    ruff and pyright"
	@echo "make docs    write the generated pages, blocks and figures of docs/ from docstrings, recipes and results/, then the site"
	@echo "make docs-check  name every page that differs from what make docs would write"
	@echo "make parity  measure the plug-ins' gradients against ours again, for docs/integrations"
	@echo "make bench   kernels, sampler, training steps and inspect against what people use instead (about twenty minutes)"
	@echo "make mismatch  the absolute probability shift of each source of mismatch, for docs/mismatch.md"
	@echo "make settings  run the six settings once each, for docs/settings.md (about half an hour)"
	@echo "make long-tail  the objectives on a recommender's logged clicks, no LLM (about an hour on one core)"
	@echo "make kill-test  20 runs killed at random moments, resumed and compared bit for bit"
	@echo "make fuzz    generated overrides, data files and logs: no traceback, no hang (hours; FUZZ='--count 1000' for less)"
	@echo "make base    make the demo's base model again (about 15 minutes on 2 cores)"
	@echo "make bases   make the bases of the lab's settings again: dense, moe, hybrid, reasoner (docs/bases.md)"
	@echo "make site    build the documentation as a static site in build/site; it needs no network"

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "drpo needs Python 3.11 or newer; set PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.train: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train]'
	@touch $@

$(VENV)/.demo-llm: $(VENV)/.train
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,demo-llm]'
	@touch $@

$(VENV)/.dev: $(VENV)/.train
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.train
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,lab,docs]'
	@touch $@

$(VENV)/.trl: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev,trl]'
	@touch $@

# TRL=1.15.0: that release of TRL instead of the pinned one, in an environment of its own, .venv-trl-1.15.0.
TRL_VENV := $(if $(TRL),.venv-trl-$(TRL),$(VENV))
.venv-trl-%/.trl: constraints.txt pyproject.toml
	$(PYTHON) -m venv .venv-trl-$*
	grep -v '^trl==' constraints.txt > .venv-trl-$*/constraints.txt
	.venv-trl-$*/bin/pip install --quiet --disable-pip-version-check -c .venv-trl-$*/constraints.txt -e '.[train,dev,trl]' 'trl==$*'
	@touch $@

$(VENV)/.track: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev,track]'
	@touch $@

# The rest of what UniRL asks for is CUDA's; its algorithms need torch and ray. It declares Python 3.12.
$(VENV)/.unirl: $(VENV)/.dev
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python -c constraints.txt unirl
	@touch $@

$(VENV)/.bench: $(VENV)/.trl
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,dev,trl,bench]'
	@touch $@

# A host whose pins exclude the others' gets an environment of its own: .venv-tinker, .venv-skyrl …
.venv-%/.installed: constraints/%.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check -c $< -e '.[$*,test]'
	@touch $@

# What verl, vLLM and their parts ask for has no common solution, and a package that the cookbook of Tinker asks for is on
# no index, so that the file is the whole environment and nothing is resolved but torch (whose CUDA build, where pip
# chooses it, needs its libraries).
.venv-verl/.installed .venv-tinker/.installed: .venv-%/.installed: constraints/%.txt pyproject.toml
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-compile -c $< torch
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps -r $<
	.venv-$*/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

# SKYRL=0.4.0: that release of SkyRL, which needs Python 3.12, in an environment of its own. There torch comes with CUDA
# (5.6 GB), so that .ci/run leaves it out.
SKYRL ?= 0.3.0
PYTHON312 ?= python3.12
.venv-skyrl-%/.installed: constraints/python3.12/skyrl-%.txt pyproject.toml
	$(PYTHON312) -m venv .venv-skyrl-$*
	.venv-skyrl-$*/bin/pip install --quiet --disable-pip-version-check -c $< -e '.[skyrl,test]'
	@touch $@

# Hosts that import what verl does and little else: that is in a folder of their own, and verl's packages serve them.
# Among verl's packages vLLM would find and load Trinity-RFT's plug-in, and versions would clash.
.venv-verl/trinity/.installed .venv-verl/ms-swift/.installed: .venv-verl/%/.installed: constraints/verl/%.txt .venv-verl/.installed
	rm -rf .venv-verl/$*
	.venv-verl/bin/pip install --quiet --disable-pip-version-check --no-compile --no-deps --target .venv-verl/$* -r $<
	@touch $@

demo: $(VENV)/.train
	$(BIN)/drpo train

demo-llm: $(VENV)/.demo-llm
	$(BIN)/python -m examples.smollm2

test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

test-fast: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal -m "not slow"

test-wheel: $(VENV)/.dev
	$(BIN)/python -m tools.check_wheel

test-track: $(VENV)/.track
	$(BIN)/pytest tests/trackers

test-trl: $(TRL_VENV)/.trl
	OMP_NUM_THREADS=1 $(TRL_VENV)/bin/pytest -n 2 --dist worksteal tests/hosts/trl

test-unirl: $(VENV)/.unirl
	OMP_NUM_THREADS=1 $(BIN)/pytest tests/hosts/unirl

test-verl: .venv-verl/.installed
	OMP_NUM_THREADS=1 .venv-verl/bin/pytest -n 2 --dist loadfile tests/hosts/verl

test-verl-e2e: .venv-verl/.installed
	.venv-verl/bin/pytest tests/hosts/verl_e2e $(E2E) --durations=0

test-vllm: .venv-verl/.installed
	.venv-verl/bin/pytest tests/hosts/vllm --durations=3

test-tinker: .venv-tinker/.installed
	OMP_NUM_THREADS=1 .venv-tinker/bin/pytest -n 2 --dist worksteal tests/hosts/tinker

ifeq ($(SKYRL),0.3.0)
test-skyrl: .venv-skyrl/.installed
	OMP_NUM_THREADS=1 .venv-skyrl/bin/pytest -n 2 --dist loadfile tests/hosts/skyrl
else
test-skyrl: .venv-skyrl-$(SKYRL)/.installed
	OMP_NUM_THREADS=1 .venv-skyrl-$(SKYRL)/bin/pytest -n 2 --dist loadfile tests/hosts/skyrl
endif

test-trinity: .venv-verl/trinity/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv-verl/trinity .venv-verl/bin/pytest -n 2 --dist worksteal tests/hosts/trinity

test-ms-swift: .venv-verl/ms-swift/.installed
	OMP_NUM_THREADS=1 PYTHONPATH=$(CURDIR)/.venv-verl/ms-swift .venv-verl/bin/pytest tests/hosts/ms-swift

parity: $(VENV)/.trl .venv-trl-1.15.0/.trl .venv-trl-1.14.1/.trl $(VENV)/.unirl .venv-verl/.installed .venv-tinker/.installed .venv-skyrl/.installed .venv-verl/trinity/.installed .venv-verl/ms-swift/.installed
	$(BIN)/python -m tools.measure.parity trl
	.venv-trl-1.15.0/bin/python -m tools.measure.parity trl
	.venv-trl-1.14.1/bin/python -m tools.measure.parity trl
	$(BIN)/python -m tools.measure.parity prime_rl
	$(BIN)/python -m tools.measure.parity unirl
	$(BIN)/python -m tools.measure.parity unirl-authors
	.venv-verl/bin/python -m tools.measure.parity verl
	.venv-tinker/bin/python -m tools.measure.parity tinker
	.venv-skyrl/bin/python -m tools.measure.parity skyrl
	PYTHONPATH=.venv-verl/trinity .venv-verl/bin/python -m tools.measure.parity trinity
	PYTHONPATH=.venv-verl/ms-swift .venv-verl/bin/python -m tools.measure.parity ms_swift
	$(BIN)/python -m tools.docs

# make parity leaves out the release of SkyRL that needs 5.6 GB: make parity-skyrl SKYRL=0.4.0
parity-skyrl: .venv-skyrl-$(SKYRL)/.installed
	.venv-skyrl-$(SKYRL)/bin/python -m tools.measure.parity skyrl

# What the index has today: docs/integrations gets the table. SkyRL's newest release needs Python 3.12.
test-newest: $(VENV)/.dev
	-$(BIN)/python -m tools.measure.newest --python skyrl=$(PYTHON312)
	$(BIN)/python -m tools.docs

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests benchmarks tools examples
	$(BIN)/ruff format --check src tests benchmarks tools examples
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.dev
	$(BIN)/python -m tools.docs
	$(MAKE) site

docs-check: $(VENV)/.dev
	$(BIN)/python -m tools.docs --check

base: $(VENV)/.train
	$(BIN)/python -m tools.warm_start arithmetic

# The others start from the dense one.
bases: $(VENV)/.train
	for base in dense moe hybrid reasoner; do $(BIN)/python -m tools.warm_start $$base || exit 1; done

bench: $(VENV)/.bench
	$(BIN)/drpo bench --out results/bench
	$(BIN)/python benchmarks/profile_step.py --json results/bench/profile.json
	$(BIN)/python -m tools.docs

mismatch: $(VENV)/.dev .venv-verl/.installed
	$(BIN)/python -m tools.measure.mismatch
	.venv-verl/bin/python -m tools.measure.mismatch vllm
	$(BIN)/python -m tools.docs

settings: $(VENV)/.dev
	$(BIN)/python -m tools.measure.settings
	$(BIN)/python -m tools.docs

long-tail: $(VENV)/.dev
	$(BIN)/python -m examples.long_tail
	$(BIN)/python -m tools.docs

kill-test: $(VENV)/.dev
	$(BIN)/python -m tools.kill_and_resume

FUZZ ?= --count 100000
fuzz: $(VENV)/.dev
	$(BIN)/python -m tools.fuzz $(FUZZ)

# A warning is an error: a link that leads nowhere, a page that the navigation does not have.
site: $(VENV)/.docs
	rm -rf build/site
	$(BIN)/python -m sphinx -q -E -W --keep-going -c tools/site . build/site
	@echo "build/site/index.html"

clean:
	rm -rf $(VENV) .venv-* build *.egg-info src/*.egg-info
