# The commands a person needs. `make` alone lists them.
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
BIN := .venv/bin
ENGINE_PACKAGES := apertium apertium-urd-hin espeak-ng ffmpeg tesseract-ocr tesseract-ocr-ben tesseract-ocr-eng \
    tesseract-ocr-hin tesseract-ocr-tam
FONT_PACKAGES := fonts-noto-core
BENCH_PACKAGES := nginx-light python3-dev python3-venv wrk
BROWSER_PACKAGES := chromium chromium-driver
DOMAINS := identity partners catalog rollouts subscriptions usage rating invoices settlement registry jobs flags feedback reviews
comma := ,
empty :=
space := $(empty) $(empty)

.PHONY: help
help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## Make .venv from requirements.lock (PYTHON=python3.12 chooses the interpreter)
	@PYTHON="$(PYTHON)" sh tools/setup.sh

.PHONY: compile
compile: setup ## Compile the gateway's hot path with mypyc (about half the cost of a call; needs a C compiler)
	@$(BIN)/python tools/compile.py

.PHONY: demo
demo: setup ## Run the platform with a sale on it (ONCE=1 ends after the tour, ENGINES=0 installs no engines)
	@if [ "$(ENGINES)" != 0 ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    $(MAKE) engines || echo "Going on without them; 'make engines' tries again."; \
	fi
	@exec $(BIN)/haat demo $(if $(ONCE),--once)

.PHONY: engines
engines: fonts ## Install the engines for translation, speech and OCR, and the fonts, from Debian (as root)
	@sh tools/apt.sh "translation, speech and OCR" $(ENGINE_PACKAGES)

.PHONY: fonts
fonts: ## Install the fonts for invoices on paper from Debian (as root)
	@sh tools/apt.sh "invoices on paper" $(FONT_PACKAGES)

# A process a core, each with a PostgreSQL of its own; more than eight only share the disk. One that has run out of
# tests takes half of another's rest, so neighbours mostly stay together; one that dies ends the run.
EVERY_CORE := --numprocesses logical --maxprocesses 8 --max-worker-restart 0 --dist worksteal

.PHONY: test
test: setup ## Run the tests on every core (ARGS=... goes to pytest)
	$(BIN)/pytest $(EVERY_CORE) $(ARGS)

.PHONY: check
check: setup ## Check format, lint, types, import rules and the documentation
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest tests/docs

.PHONY: verify
verify: setup compile ## Run the long tests: kills, chaos, browser (as root it installs Chromium from Debian)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh tools/apt.sh "browser tests" $(BROWSER_PACKAGES); fi
	$(BIN)/pytest -m verify $(ARGS)

.PHONY: prove
prove: setup ## Prove the money: a million prices, and seasons of calls while processes are killed (MINUTES=5; SEED=... repeats a run)
	MINUTES=$(MINUTES) SEED=$(SEED) $(BIN)/pytest -m prove $(ARGS) tests/proof tests/rating

.PHONY: ray-tests
ray-tests: ## Run the tests of the Ray engine, in an environment of their own, build/ray
	@VENV=build/ray LOCK=requirements-ray.lock PYTHON="$(PYTHON)" sh tools/setup.sh
	build/ray/bin/pytest -m ray $(ARGS) tests/models/engines

.PHONY: tour
tour: setup compile ## Take the pictures of docs/tour.md anew, with the demo's sale on the platform (as root it installs Chromium)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh tools/apt.sh "the tour" $(BROWSER_PACKAGES); fi
	PYTHONPATH=tests/verify $(BIN)/python tools/tour.py

.PHONY: fuzz
fuzz: setup ## Fuzz the gateway's HTTP from both sides (SECONDS=60 each; SEED=... repeats a run)
	@for side in http_request http_again http_answer http_stream; do \
	    echo "$$side:"; PYTHONPATH=tests $(BIN)/python -m gateway.http.fuzz.$$side --seconds $(or $(SECONDS),60) \
	        $(if $(SEED),--seed $(SEED)) $(ARGS) || exit 1; \
	done

.PHONY: coverage
coverage: setup ## Run the tests with branch coverage; the domains must reach 90 %
	$(BIN)/pytest $(EVERY_CORE) --cov=haat --cov-branch --cov-report=html --cov-report=
	$(BIN)/coverage report --skip-covered
	$(BIN)/coverage report --fail-under=90 \
	    --include="$(subst $(space),$(comma),$(patsubst %,src/haat/%/*,$(DOMAINS)))"

# A call costs half as much again on a Python that was built without optimisations, as many by hand are; a
# distribution's is built with them. So the benchmark has an environment of its own, made with that one if it will do.
BENCH := build/bench/haat
FIT := import sys, sysconfig, ensurepip, pathlib; \
    sys.exit(not ((3, 11) <= sys.version_info[:2] <= (3, 13) and pathlib.Path(sysconfig.get_path("include"), "Python.h").exists()))

.PHONY: bench-gateway
bench-gateway: bench-programs ## Measure the gateway beside nginx and its peers (QUICK=1: under two minutes)
	@/usr/bin/python3 -c '$(FIT)' 2>/dev/null && found=/usr/bin/python3; VENV=$(BENCH) PYTHON="$${PYTHON:-$$found}" sh tools/setup.sh
	@$(BENCH)/bin/python tools/compile.py
	PATH="$$PATH:/usr/sbin" $(BENCH)/bin/python -m bench.gateway $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

.PHONY: bench-models
bench-models: bench-programs ## Measure models beside LitServe, BentoML and Ray Serve (QUICK=1: under two minutes)
	@/usr/bin/python3 -c '$(FIT)' 2>/dev/null && found=/usr/bin/python3; VENV=$(BENCH) PYTHON="$${PYTHON:-$$found}" sh tools/setup.sh
	PATH="$$PATH:/usr/sbin" $(BENCH)/bin/python -m bench.models $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

.PHONY: bench-money
bench-money: ## Measure the way of usage and money: ingest, dashboards, rating, closing a month (QUICK=1: under two minutes)
	@/usr/bin/python3 -c '$(FIT)' 2>/dev/null && found=/usr/bin/python3; VENV=$(BENCH) PYTHON="$${PYTHON:-$$found}" sh tools/setup.sh
	@$(BENCH)/bin/python tools/compile.py
	$(BENCH)/bin/python -m bench.money $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

.PHONY: bench-portal
bench-portal: ## Measure finding and pages with 100,000 listings, and a slow phone (QUICK=1: under two minutes)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then sh tools/apt.sh "the slow phone" $(BROWSER_PACKAGES); fi
	@/usr/bin/python3 -c '$(FIT)' 2>/dev/null && found=/usr/bin/python3; VENV=$(BENCH) PYTHON="$${PYTHON:-$$found}" sh tools/setup.sh
	$(BENCH)/bin/python -m bench.portal $(if $(filter-out 0,$(QUICK)),--quick) $(ARGS)

.PHONY: soak
soak: setup compile ## Load the gateway with a mix of everything and watch its memory (MINUTES=20)
	$(BIN)/python -m bench.soak $(if $(MINUTES),--minutes $(MINUTES)) $(ARGS)

# RUNLEVEL keeps nginx from starting as a service. Who isn't root may have nginx and wrk by other means than Debian's.
bench-programs:
	@PATH="$$PATH:/usr/sbin"; if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    RUNLEVEL=1 sh tools/apt.sh "the benchmark" $(BENCH_PACKAGES); \
	elif ! { command -v nginx && command -v wrk; } >/dev/null; then \
	    sh tools/apt.sh "the benchmark" $(BENCH_PACKAGES); \
	fi

.PHONY: proto
proto: setup ## Make the messages of the Open Inference Protocol anew from their description
	$(BIN)/python -m grpc_tools.protoc --proto_path=src --python_out=src --pyi_out=src haat/bridge/open_inference.proto

COMPILED := pyproject.toml --group dev --universal --python-version 3.11 --generate-hashes --no-header \
    --no-emit-index-url --quiet

.PHONY: messages
messages: setup ## Bring the catalogs of the interface, src/haat/locales, up to the texts in the code
	$(BIN)/python tools/messages.py

.PHONY: lock
lock: ## Write requirements.lock and requirements-ray.lock anew for Python 3.11 to 3.13 (UPGRADE=1 takes the newest versions)
	@$(or $(PYTHON),python3) -m venv build/lock && build/lock/bin/pip install --quiet uv
	build/lock/bin/uv pip compile $(COMPILED) $(if $(UPGRADE),--upgrade) --output-file requirements.lock
	build/lock/bin/uv pip compile $(COMPILED) --extra ray --constraint requirements.lock \
	    $(if $(UPGRADE),--upgrade) --output-file requirements-ray.lock

.PHONY: clean
clean: ## Remove the environment and every cache; data in .haat stays
	rm -rf .venv build dist htmlcov .coverage .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
