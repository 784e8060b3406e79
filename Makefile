# The ways to work on Earmark. `make help` lists them; CONTRIBUTING.md gives each as plain lines too.

VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PYTEST := $(PY) -m pytest
WORKERS := 2

.PHONY: accounts help run test quick lint docs bench constraints ci clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(STAMP) ## set up, then do the main job on this host; ends with a readable picture
	@PATH="$(CURDIR)/$(VENV)/bin:$$PATH" bash examples/first_run.sh

test: $(STAMP) ## set up, then run every test
	@$(PYTEST) -n $(WORKERS)

quick: $(STAMP) ## the tests that take less than a second each
	@$(PYTEST) -n $(WORKERS) -m "not long"

prove: $(STAMP) ## random lives of instances over three nodes: STEPS=200000 of them, or one walk again: SEED=17
	@EARMARK_TEST_STEPS=$(or $(STEPS),200000) $(if $(SEED),EARMARK_TEST_SEED=$(SEED)) $(PYTEST) -q -s tests/proof/test_lives.py::test_any_life_over_three_nodes

lint: $(STAMP) ## style, types, floors, secrets, generated pages
	@bash tools/lint.sh

docs: $(STAMP) ## make the generated pages again
	@$(PY) -m tools.rules_page
	@$(PY) -m tools.settings_page
	@$(PY) -m tools.events_page
	@$(PY) -m tools.cli_page

accounts: $(STAMP) ## replay recorded lives of instances (FILE=…, plain or .gz) and compare every book; STORE=sqlite
	@test -n "$(FILE)" || { echo "make accounts FILE=recording.jsonl[.gz]: FILE is not given" >&2; exit 2; }
	@$(PY) -m tools.accounts "$(FILE)" --store $(or $(STORE),memory) $(if $(JSON),--json)

bench: $(STAMP) ## measure, with durable writes on the disk under TMPDIR; a line of JSON for each bench
	@$(PY) bench/all.py

constraints: ## resolve constraints.txt again (installs uv into a temporary folder)
	@python3 -m venv $(VENV)-uv && $(VENV)-uv/bin/pip install -q --disable-pip-version-check uv
	@$(VENV)-uv/bin/uv pip compile pyproject.toml --all-extras --upgrade --no-header --no-annotate -q -o constraints.txt
	@rm -rf $(VENV)-uv

ci: ## everything that CI runs, in a new environment
	@bash .ci/run

clean: ## remove the environment and all caches
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist

$(STAMP): pyproject.toml constraints.txt
	@echo "setting up $(VENV) (once, and again when pyproject.toml or constraints.txt change) ..."
	@test -x $(PY) || python3 -m venv $(VENV)
	@$(PY) -m pip install -q --disable-pip-version-check --no-input -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
