# Everything starts from a checkout: `make run` and `make test` make .venv first if they need to.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run demo test bench lint docs-check audit licenses clean

run: $(READY)
	@$(BIN)/ratchet train

demo: $(READY)
	@$(BIN)/ratchet demo

test: $(READY)
	$(BIN)/pytest -q --numprocesses 2 --dist worksteal

bench: $(READY)
	$(BIN)/python -m benchmarks $(QUICK)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/python .ci/file_size.py
	$(BIN)/ratchet dvc-yaml --check

docs-check: $(READY)
	$(BIN)/pytest -q tests/system/test_readme.py

# exits 3 and says so where there is no network
audit: $(READY)
	@$(BIN)/python .ci/audit.py constraints.txt

licenses: $(READY)
	@$(BIN)/pip-licenses --from=mixed --order=license --format=markdown

clean:
	rm -rf $(VENV) .ratchet data reports models/checkpoint models/candidates models/bundle .mypy_cache .pytest_cache .ruff_cache *.egg-info build

# what is installed is what constraints.txt pins; a change of either file installs anew
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ". Try: make PYTHON=python3.12 ...")'
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "Installing the pinned packages into $(VENV); this takes some minutes, once."
	@$(PYTHON) .ci/install.py $(VENV)
	@touch $@
