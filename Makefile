# Two commands: `make repro` and `make test`. Each sets up .venv first and is safe to run again.
# Bytecode is compiled at set-up: where Python may not write it, as in many containers, each start
# would pay for it again.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Stage commands find their tools through the PATH; the index address is the user's own setting.
export PATH := $(CURDIR)/$(BIN):$(PATH)
export DVC_NO_ANALYTICS := 1
# Files and their names are UTF-8, whatever the machine's language.
export PYTHONUTF8 := 1
# Waiting threads spin shortly, then sleep: on a busy machine long spinning is ten times slower.
export GOMP_SPINCOUNT ?= 1000

.PHONY: help setup repro plan test test-processors test-encoders test-benchmarks soak esc10 quick real bench book notebooks lock use lint clean-checkpoints
help:               ## Lists the commands
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## */\t/' | expand -t 22

setup: $(VENV)/.ready  ## Makes .venv with everything in requirements.txt
$(VENV)/.ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else "matpac needs Python 3.11 or 3.12, but $(PYTHON) is %d.%d; try make PYTHON=python3.12" % v)'
	@echo 'Installing into $(VENV): about 3 GB, some minutes'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-build-isolation --no-deps -e .
	@touch $@
	@echo 'Ready: source .venv/bin/activate, then matpac --help'

.PHONY: git
git:
	@git rev-parse --git-dir > /dev/null || { echo 'DVC needs a git repository; where the project came without its own, run `git init`'; exit 1; }

repro: git setup    ## Regenerates every table and figure of the profile in params.yaml
	@$(BIN)/matpac check
	@$(BIN)/matpac sources
	$(BIN)/dvc repro
	@$(BIN)/matpac minutes

plan: git setup     ## What `make repro` would run now: hours, GPU-hours, disk
	@$(BIN)/matpac check
	@$(BIN)/matpac plan

test: setup         ## All tests, notebooks included
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests
	$(BIN)/python -m pytest --nbval notebooks
	$(BIN)/python tests/processors.py --numerical

test-processors: setup ## The same as on other processors and busy machines; more than an hour
	$(BIN)/python tests/processors.py

# `uv` links packages from its cache, so that these environments share one copy of torch.
EXTRA ?= passt htsat mae-ast beats yamnet speech dasheng onnx
test-encoders: setup ## What needs other packages, encoders and ONNX, in environments of their own: EXTRA=passt for one
	@mkdir -p .venv-encoders; results=; status=0; \
	for extra in $(EXTRA); do \
	  venv=.venv-encoders/$$extra; log=$$venv.log; test=tests/encoders/test_$$(echo $$extra | tr - _).py; \
	  echo "$$extra: $$test, log in $$log"; \
	  { { test -x $$venv/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $$venv; } && \
	    $(BIN)/uv pip install --quiet --python $$venv/bin/python -e ".[$$extra]" pytest && \
	    CUDA_VISIBLE_DEVICES= $$venv/bin/python -m pytest -q --confcutdir=tests/encoders $$test; \
	  } > $$log 2>&1 && tail -1 $$log | grep -q ' passed' || { status=1; tail -40 $$log; }; \
	  results="$$results$$extra: $$(grep . $$log | tail -1)\n"; \
	done; printf "$$results"; exit $$status

KIT ?= heareval xares mteb
test-benchmarks: setup ## HEAR's, X-ARES's and MTEB's own programs, each likewise: KIT=xares for one
	@mkdir -p .venv-encoders; results=; status=0; \
	for kit in $(KIT); do \
	  venv=.venv-encoders/$$kit; log=$$venv.log; test=tests/kits/test_$$kit.py; \
	  echo "$$kit: $$test, log in $$log"; \
	  { { test -x $$venv/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python $$venv; } && \
	    $(BIN)/uv pip install --quiet --python $$venv/bin/python -e . pytest -r tests/kits/$$kit.txt && \
	    { test $$kit != heareval || \
	      $(BIN)/uv pip install --quiet --python $$venv/bin/python --no-deps heareval==2021.1.3; } && \
	    CUDA_VISIBLE_DEVICES= $$venv/bin/python -m pytest -q -rP --confcutdir=tests/kits $$test; \
	  } > $$log 2>&1 && tail -1 $$log | grep -q ' passed' || { status=1; tail -40 $$log; }; \
	  results="$$results$$kit: $$(grep . $$log | tail -1)\n"; \
	done; printf "$$results"; exit $$status

soak: setup         ## Long tests: kills training many times, reads 20,000 damaged files
	MATPAC_SOAK=1 $(BIN)/python -m pytest tests/audio/test_fuzz.py tests/pretraining/test_soak.py \
	  tests/pretraining/test_trainer.py tests/test_wheel.py

esc10: setup        ## Pretrains and probes on real recordings: make esc10 FOLDER=/path/to/ESC-10
	@test -d "$$FOLDER/audio" || { printf 'FOLDER: got "%s", needed: a folder with audio/ and meta/esc10.csv\n' "$$FOLDER"; exit 1; }
	ESC10="$$(cd "$$FOLDER" && pwd)" $(BIN)/matpac use esc10 -- $(MAKE) repro

quick: setup        ## Tables and figures in 9 to 18 minutes: half of the runs, half the training
	$(BIN)/matpac use quick -- $(MAKE) repro

real: setup         ## Pretrains and probes on words and ESC-10: make real WORDS=... ESC10=... YAMNET=... (docs/real.md)
	$(BIN)/uv pip install --quiet --python $(BIN)/python -e '.[yamnet]'
	$(BIN)/matpac use real -- $(MAKE) repro

bench: setup        ## Measures the speed on this machine; ESC10=/path/to/ESC-10 adds its files
	$(BIN)/python -m benchmarks --docs docs/performance.md

book: setup         ## README, docs, notebooks and reference as pages: _book/docs/index.html
	test -x .venv-encoders/book/bin/python || $(BIN)/uv venv --quiet --python $(BIN)/python .venv-encoders/book
	$(BIN)/uv pip install --quiet --python .venv-encoders/book/bin/python -e '.[book]' pytest
	.venv-encoders/book/bin/python -m sphinx -q -a -W --keep-going -c docs . _book
	.venv-encoders/book/bin/python -m pytest -q --noconftest tests/test_book.py

notebooks: setup    ## Re-executes the notebooks at smoke size and saves them in canonical form
	$(BIN)/python tests/canonical.py

lint: setup         ## Formats and checks the code
	$(BIN)/ruff format . && $(BIN)/ruff check --fix .

lock: setup         ## Refreshes requirements.txt from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 \
	  --extra test --no-emit-index-url --no-header --output-file requirements.txt pyproject.toml

PROFILE ?= mini
use: setup          ## Switches the profile: make use PROFILE=paper (and back: PROFILE=mini)
	$(BIN)/matpac use $(PROFILE)

clean-checkpoints:  ## Removes all training states of the active profile
	$(BIN)/matpac clean
