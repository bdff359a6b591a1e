# What there is to do with a checkout. The work is done by the scripts in scripts/; nothing but make, and Python >= 3.11
# or an apt that has it, is assumed to be there.

.NOTPARALLEL:
.PHONY: help setup check test chaos fuzz audit sbom demo bench minio sops lock clean engine

PYTEST_ARGS ?=
CHAOS_SECONDS ?= 180
CHAOS_SEED ?=
BENCH ?=
FUZZ ?=
export FUZZ_RUNS

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

setup: ## make .venv with everything in it, at the locked versions
	@scripts/setup

check: setup ## format, style, types, import contracts, scripts, quick unit tests: under two minutes
	@scripts/check

test: setup engine ## all tests, against real Git servers, Docker and gunicorn; PYTEST_ARGS="-k name" for some
	@scripts/test-tools
	@scripts/run-tests $(PYTEST_ARGS)

demo: setup engine ## from git push to a prediction; stays up until Ctrl-C, DEMO_EXIT=1 ends by itself
	@scripts/test-tools git
	@scripts/with-docker .venv/bin/python examples/demo.py

bench: setup engine ## measure all that is measured, or some: make bench BENCH="deploy idle"
	@scripts/test-tools git wrk
	@scripts/with-docker .venv/bin/python -m benchmarks $(BENCH)

chaos: setup engine ## pushes, kills, harm and runs at once for minutes; CHAOS_SECONDS=600 CHAOS_SEED=7 as printed before
	@scripts/test-tools git
	@CHAOS_SECONDS=$(CHAOS_SECONDS) CHAOS_SEED=$(CHAOS_SEED) scripts/with-docker .venv/bin/python -m pytest -q -s tests/e2e/test_chaos.py

fuzz: setup ## feed a million inputs to each parser of what strangers write; FUZZ_RUNS=10000, FUZZ="paths fields"
	@scripts/fuzz $(FUZZ)

audit: setup ## ask the vulnerability database about the locked packages, where it can be reached
	@scripts/audit

sbom: setup ## write build/sbom.json, what is in a release, in CycloneDX
	@scripts/sbom

minio: ## build the MinIO that the tests of storage run on, too, where Go is there (five minutes)
	@scripts/minio

sops: ## build the program sops, whose files tests read, where Go is there (some minutes)
	@scripts/sops

lock: setup ## resolve setup.cfg's ranges into the lock files anew; LOCK_ARGS=--upgrade for the newest
	@scripts/lock $(LOCK_ARGS)

clean: ## remove what was made here; containers and images stay
	rm -rf .venv build dist controller/serving/orjson *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find controller tests -name __pycache__ -type d -prune -exec rm -rf {} +

# A Docker engine that answers, and the examples' base image in it.
engine:
	@scripts/ensure-docker
	@scripts/with-docker scripts/base-image
