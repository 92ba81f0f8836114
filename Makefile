# Two commands set up a fresh machine: `make demo` and `make test`. Python 3.11 or newer and pip are all they need.
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.PHONY: demo test bench lint fashion-mnist clean

demo: .venv/installed
	rm -rf $(DEMO)
	$(BIN)/asgd-lab compare scenarios/quickstart.yaml scenarios/does-the-server-saturate.yaml --out $(DEMO)

test: .venv/installed
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -q -n 2 --dist loadgroup

bench: .venv/installed
	$(BIN)/python -m tests.benchmarks

# Everything is pinned. pip takes the CPU build of torch where the index offers one.
.venv/installed: pyproject.toml constraints.txt
	test -d .venv || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

# Real images: as Debian's package where that is at hand; otherwise torchvision downloads them at the first use.
fashion-mnist:
	apt-get install -y dataset-fashion-mnist

clean:
	rm -rf .venv runs build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
