# `make demo` and `make test` set up everything from nothing: a virtual environment with the pinned versions of
# constraints.txt. PYTHON is the interpreter to make it with, VENV the folder to make it in.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A process for each core; each gets a stretch of tests that share what they build, and takes from others at the end.
PYTEST := $(BIN)/python -m pytest --numprocesses auto --dist worksteal
# `make test SLOW=1` runs the slow tests too, in the same processes: they share what the others have built.
SLOW ?=
SECONDS ?= 60
SEED ?= 0
TARGET ?=
DEMO_RUN ?= runs/digits-$(shell date +%Y%m%d-%H%M%S)

.PHONY: help demo docs test slow fuzz peers ruff lint types format clean

help:
	@echo "make demo    train on handwritten digits, evaluate, predict; leaves a run folder in runs/"
	@echo "make test    every check and test but the slow ones"
	@echo "make slow    the slow tests; make test SLOW=1 does both in less time than one after the other"
	@echo "make fuzz    read mutated files until something else happens than an error of one line: SECONDS=60 for each"
	@echo "             target, SEED=0, TARGET= one or several; findings go to fuzz-findings/"
	@echo "make peers   compare with the libraries whose weights are read; they are 1.6 GB"
	@echo "make types   check that every public name has a complete type"
	@echo "make docs    the site, from docs/ into build/site; a broken link or reference is an error"
	@echo "make format  put the code into its form"
	@echo "make clean   remove what make made, but no run folder"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed, $(PYTHON) is older; name another with make PYTHON=..."; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[digits,reports]'
	@touch $@

$(VENV)/.test: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	@touch $@

$(VENV)/.docs: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	@touch $@

# In a folder of their own, which only `make peers` looks into; torch-fidelity brings its own tests as a package `tests`.
# timm's tests are in its source distribution only.
# Of their thousands of modules only those that are imported are compiled.
$(VENV)/.peers: $(VENV)/.test tests/peers/requirements.txt
	rm -rf $(VENV)/peers
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --target $(VENV)/peers --requirement tests/peers/requirements.txt
	rm -rf $(VENV)/peers/tests $(VENV)/peers-timm
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary timm --dest $(VENV)/peers-timm $$(grep '^timm==' tests/peers/requirements.txt)
	tar -xzf $(VENV)/peers-timm/timm-*.tar.gz -C $(VENV)/peers-timm --strip-components=1 --wildcards '*/tests/*'
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/inceptionnet train digits --out $(DEMO_RUN) --model inception_resnet_v1 --width 0.25 --size 75 --epochs 12
	$(BIN)/inceptionnet evaluate $(DEMO_RUN) digits
	$(BIN)/python examples/save_digits.py $(DEMO_RUN)/images
	$(BIN)/inceptionnet predict $(DEMO_RUN) $(DEMO_RUN)/images --top 3
	@echo "the run folder is $(DEMO_RUN); look at its report.html"

ruff: $(VENV)/.test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

lint: ruff
	$(BIN)/mypy

# What a user's type checker sees; basedpyright brings 60 MB of Node.js, so it is installed only for this.
$(VENV)/.types: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt basedpyright
	@touch $@

types: $(VENV)/.types
	@PATH="$(abspath $(BIN)):$$PATH" $(BIN)/basedpyright --verifytypes inceptionnet --ignoreexternal > $(VENV)/types.txt; \
	complete=$$?; grep -A 2 'error:' $(VENV)/types.txt; grep '^Type completeness' $(VENV)/types.txt; exit $$complete

# mypy uses one core for up to a minute, so it runs beside the tests; what it says comes after them.
test: ruff
	@$(BIN)/mypy > $(VENV)/mypy.txt 2>&1 & mypy=$$!; \
	$(PYTEST) $(if $(SLOW),-m "slow or not slow"); tests=$$?; \
	wait $$mypy; types=$$?; cat $(VENV)/mypy.txt; \
	exit $$((tests || types))

slow: $(VENV)/.test
	$(PYTEST) -m slow

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --seconds $(SECONDS) --seed $(SEED) --target "$(TARGET)"

peers: $(VENV)/.peers
	PYTHONPATH=$(VENV)/peers $(PYTEST) tests/peers

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W -n --keep-going -q -d build/doctrees docs build/site
	@echo "the site is build/site/index.html"

format: $(VENV)/.test
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) build dist docs/generated .mypy_cache .pytest_cache .ruff_cache
