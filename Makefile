# What a developer does here; `make help` lists it. Each target makes the environment it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# A benchmark that fails is not made good by the `tee` behind it.
SHELL := /bin/bash
.SHELLFLAGS := -o pipefail -c

.DEFAULT_GOAL := help

.PHONY: help
help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/installed  ## draw clips, embed them in a Towhee pipeline, find them by text: ./demo
	$(BIN)/mdmmt demo --out demo

# In two processes of one thread each, so two cores are enough. Each process takes whole files, since
# the tests of a file share what is slow to make.
PYTEST_IN_TWO := OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 --dist loadscope

.PHONY: test
test: lint test-towhee09 test-integrations  ## lint, then run all tests, as CI does
	$(PYTEST_IN_TWO)

.PHONY: test-quick
test-quick: $(VENV)/installed-test  ## run the tests that take neither long, Towhee's pipelines nor a browser
	$(PYTEST_IN_TWO) -m 'not slow and not towhee and not browser and not milvus_server'

# Its pins and those of the other tests exclude each other; see tests/towhee09.
.PHONY: test-towhee09
test-towhee09: $(VENV)-towhee09/installed  ## run the tests of the published spelling in Towhee 0.9
	$(VENV)-towhee09/bin/python -m pytest tests/towhee09 --noconftest

# Without Towhee: LlamaIndex needs a newer Setuptools than Towhee can use.
.PHONY: test-integrations
test-integrations: $(VENV)-integrations/installed  ## run the examples of docs/integrations.md
	$(VENV)-integrations/bin/python -m pytest tests/integrations --noconftest

# In some minutes; the other tests of a cluster are among all tests.
.PHONY: test-ray
test-ray: $(VENV)/installed-test  ## run the tests of faults and memory on a Ray cluster
	$(BIN)/python -m pytest tests/clusters

# The wheel holds a Milvus server for Linux on x86-64. Without it, `make test` skips these tests.
.PHONY: test-milvus
test-milvus: $(VENV)/installed-test  ## run the tests of a Milvus server, which they start
	$(BIN)/python -m pip install --quiet milvus==2.3.5
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m milvus_server

# Several GB, as that torch comes with CUDA.
.PHONY: test-oldest
test-oldest: $(VENV)-oldest/installed  ## run the tests with the oldest packages that are supported
	$(VENV)-oldest/bin/python -m pytest

# Tells whether the upper bound of torch can rise: the tests run in a copy of the working tree whose
# requirements admit any torch 2. Several GB, as for the oldest.
NEWEST := $(VENV)-newest
.PHONY: test-newest
test-newest:  ## run the tests with the newest torch, beyond the bound of requirements.txt
	rm -rf $(NEWEST)/clone && mkdir -p $(NEWEST)/clone
	git ls-files -z | tar --create --null --files-from - | tar --extract --directory $(NEWEST)/clone
	cd $(NEWEST)/clone && sed -E -i 's/(torch>=[0-9.]+,<)[0-9.]+/\13/' pyproject.toml requirements.txt
	test -x $(NEWEST)/bin/python || $(PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet --upgrade torch --editable '$(NEWEST)/clone[test]'
	cd $(NEWEST)/clone && ../bin/python -m pytest

# The packages that made the goldens. They are large, and only needed to check the goldens.
.PHONY: test-oracles
test-oracles: $(VENV)-oracles/installed  ## compare with torchvision, torchvggish, resampy, TensorFlow
	PYTHONPATH=tests/support $(VENV)-oracles/bin/python -m pytest tests/oracles --noconftest

.PHONY: bench
bench: $(VENV)/installed-test  ## measure everything, some hours: ./bench and README's plot
	mkdir -p bench
	$(BIN)/python -W ignore benchmarks/towers.py --out bench/towers.json | tee bench/towers.txt
	$(BIN)/python -W ignore benchmarks/towers.py --corpus 10000 --only captions --ways exact int8 \
	  --rounds 1 | tee bench/corpus.txt
	$(BIN)/python benchmarks/plot.py bench/towers.json pictures
	$(BIN)/python -m pip install --quiet nncf==3.4.0  # makes the 8-bit networks of OpenVINO
	$(BIN)/python -W ignore benchmarks/towers.py --quick --threads 1 --errors \
	  | tee bench/errors.txt
	$(BIN)/python -W ignore benchmarks/on_cuda.py | tee bench/cuda.txt
	$(BIN)/python -W ignore benchmarks/experts_on_cuda.py | tee bench/experts-cuda.txt
	$(BIN)/python -W ignore benchmarks/precisions.py | tee bench/precisions.txt
	$(BIN)/python benchmarks/pipelines.py | tee bench/pipelines.txt
	$(BIN)/python benchmarks/start.py | tee bench/start.txt
	$(BIN)/python benchmarks/experts.py networks | tee bench/networks.txt
	$(BIN)/python benchmarks/experts.py files | tee bench/files.txt
	$(BIN)/python benchmarks/experts.py cost | tee bench/cost.txt
	$(BIN)/python benchmarks/experts.py jobs | tee bench/jobs.txt
	$(BIN)/python benchmarks/experts.py rounding | tee bench/rounding.txt
	$(BIN)/python benchmarks/actors.py | tee bench/actors.txt
	$(BIN)/python benchmarks/index.py | tee bench/index.txt
	$(BIN)/python benchmarks/combined.py | tee bench/combined.txt
	$(BIN)/python benchmarks/metrics.py | tee bench/metrics.txt
	$(BIN)/python benchmarks/files.py | tee bench/flush.txt
	$(BIN)/python benchmarks/memory.py | tee bench/memory.txt
	$(BIN)/python -W ignore benchmarks/training.py | tee bench/training.txt

.PHONY: fuzz
fuzz: $(VENV)/installed-test  ## read mutated media files, SECONDS=3600 SEED=0
	PYTHONPATH=tests/support $(BIN)/python -m fuzz_media --seconds $(or $(SECONDS),3600) --seed $(or $(SEED),0)

.PHONY: lint
lint: $(VENV)/installed-test  ## check style, formatting, types and the layers of the package
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

.PHONY: format
format: $(VENV)/installed-test  ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: sample
sample: $(VENV)/installed-test  ## train the shipped sample model anew
	$(BIN)/python -m mdmmt.sample.train --out mdmmt/sample/model

.PHONY: docs
docs: $(VENV)/installed-test  ## build the documentation into ./site; a warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: pictures
pictures: $(VENV)/installed-test  ## take the pictures of README and the docs anew from real runs
	PYTHONPATH=tests/support $(BIN)/python -m make_pictures

.PHONY: notebooks
notebooks: $(VENV)/installed-test  ## run the notebooks of docs/notebooks and store what they show
	PYTHONPATH=tests/support $(BIN)/python -m notebooks

# In a bare environment, as a user has it: neither this clone nor what the tests need is there.
.PHONY: release-check
release-check: $(VENV)/installed-release  ## build wheel and sdist, check them, run the demo from the wheel
	rm -rf dist build $(VENV)-release
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/python -m pip install --quiet dist/*.whl
	cd $(VENV)-release && bin/mdmmt demo --out demo

.PHONY: clean
clean:  ## remove the environments and everything made
	rm -rf $(VENV) $(VENV)-* build dist demo bench site *.egg-info \
	  .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)-towhee09/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-towhee09
	$(VENV)-towhee09/bin/python -m pip install --quiet --editable '.[towhee09]'
	touch $@

$(VENV)-integrations/installed: pyproject.toml tests/integrations/requirements.txt
	$(PYTHON) -m venv $(VENV)-integrations
	grep -vE '^(towhee|setuptools)\b' requirements.txt > $(VENV)-integrations/requirements.txt
	$(VENV)-integrations/bin/python -m pip install --quiet \
	  --requirement $(VENV)-integrations/requirements.txt --requirement tests/integrations/requirements.txt
	$(VENV)-integrations/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

$(VENV)-oldest/installed: pyproject.toml tests/oldest.txt
	$(PYTHON) -m venv $(VENV)-oldest
	$(VENV)-oldest/bin/python -m pip install --quiet --constraint tests/oldest.txt --editable '.[test]'
	touch $@

# torchvggish 0.2 asks for more than it uses.
$(VENV)-oracles/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)-oracles
	$(VENV)-oracles/bin/python -m pip install --quiet --editable '.[test,oracles]'
	$(VENV)-oracles/bin/python -m pip install --quiet --no-deps torchvggish==0.2 torchvision==0.28.0
	touch $@

$(VENV)/installed-test: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[test,app,ray]'
	touch $@

$(VENV)/installed-release: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	touch $@
