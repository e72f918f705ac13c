# Needs Python 3.11 or newer with venv, make, and the OpenSSH client.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help install demo run test check crash power-cut bench seed-load grafana assets clean

help:            ## list the targets
	@grep -hE '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

install: $(STAMP) ## create or update .venv

$(STAMP): pyproject.toml constraints.txt
	@# Debian's python3 without python3-venv makes an environment without pip; then the system's pip fills it.
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)
	@if [ -x $(BIN)/pip ]; then pip="$(BIN)/pip"; else pip="$(PYTHON) -m pip --python $(BIN)/python"; fi; \
	echo "installing into $(VENV)"; \
	$$pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)   ## upload real files over SFTP, see them delivered, stop
	$(BIN)/python examples/demo.py

run: $(STAMP)    ## run ./my-stack (made when missing)
	@test -e my-stack || $(BIN)/entrepot init my-stack
	$(BIN)/entrepot up my-stack

test: $(STAMP)   ## every test, the short crash run included; two at a time
	$(BIN)/pytest -n 2 --dist loadfile

check: $(STAMP)  ## ruff, mypy --strict, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

crash: $(STAMP)  ## 300 rounds of kill -9 and reconciliation, of uploads and of workflows
	$(BIN)/python -m tests.crash --rounds 300
	$(BIN)/python -m tests.crash.workflows --rounds 300

power-cut: $(STAMP) ## power cuts on a loop-mounted image (needs root)
	$(BIN)/python -m tests.crash.power_cut --rounds 30

bench: $(STAMP)  ## measure beside OpenSSH and rclone; writes bench/RESULTS.md
	$(BIN)/python -m bench

SEED := seed-load.stack
FILES ?= 10000000
EVENTS ?= 30000000

seed-load: $(STAMP) ## a stack with 10 million files and 30 million log events (FILES=, EVENTS= for fewer)
	$(BIN)/python -m bench.seed_load $(SEED) --files $(FILES) --events $(EVENTS)
	$(BIN)/python -m bench.pages $(SEED)

grafana: $(STAMP) ## make the dashboards and alert rules of deploy/grafana again
	$(BIN)/python -m deploy.grafana

assets:          ## build the console's charts from npm (needs npm; without them pages show plain ones)
	npm ci --prefix assets --ignore-scripts --no-audit --no-fund
	node assets/copy.mjs

clean:           ## remove .venv and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
