# The commands of this repository; CONTRIBUTING.md tells when to use which.
PYTHON ?= python3
SET_UP := $(PYTHON) -m demo.venvs
IN_VENV := .venv/bin/python -m
LOCK := .venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes
SYSTEM_PACKAGES := chromium etcd-server prometheus prometheus-alertmanager

.PHONY: up down demo test check lint bench-judge bench-monitoring test-system lock

up:  ## start everything; TRAFFIC=0 without live traffic, DETACH=1 returns when ready
	@$(SET_UP) app fleet
	@exec $(IN_VENV) demo.up

down:  ## stop everything, data stays
	@$(SET_UP) app
	@$(IN_VENV) demo.down

demo:  ## tell the story on the running system, or on one started for it, and check it
	@$(SET_UP) app fleet
	@DETACH=1 $(IN_VENV) demo.up
	@$(IN_VENV) demo.story

test:  ## the whole suite against the real parts
	@$(SET_UP) dev fleet
	@$(IN_VENV) pytest -n 2 $(PYTEST)

check: lint test  ## all of CONTRIBUTING's rules, then the suite

lint:
	@$(SET_UP) dev
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports --config importlinter.toml

bench-judge:  ## the judge's table, simulated (hours); BENCH="--only dead --runs 50" narrows it
	@$(SET_UP) app
	$(IN_VENV) benchmarks.judge --out docs/measurements/judge.csv $(BENCH)

bench-monitoring:  ## the tables of docs/benchmarks.md (half an hour); BENCH="counting" runs one
	@$(SET_UP) app
	$(IN_VENV) benchmarks.monitoring $(BENCH)

test-system:  ## Debian packages for the tests marked `system`; needs root
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SYSTEM_PACKAGES)

lock:  ## compile every *.in to its lock
	@$(SET_UP) app
	$(LOCK) requirements.in -o requirements.txt
	$(LOCK) requirements-dev.in -o requirements-dev.txt
	$(LOCK) requirements-fleet.in -o requirements-fleet.txt
	$(LOCK) --no-deps requirements-triton.in -o requirements-triton.txt
