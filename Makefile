# Everything a newcomer or CI does here is one of these targets. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Without a provider configured, `make run` starts the built-in sample provider.
SAMPLE := $(if $(strip $(ROUTERHUB_API_KEY)$(METER_UPSTREAM_URL)$(wildcard meter.toml)),,--sample)

# Many tests wait for something, so that there may be more of them at once than cores.
TESTS_AT_ONCE := $(shell expr $$(getconf _NPROCESSORS_ONLN) \* 3 / 2)

.DEFAULT_GOAL := help
.PHONY: secrets rolling bench bench-memory bench-others bench-ledger help install install-dev run demo test test-long screenshots cases stock asgi fuzz money dashboards series security audit sbom faults soak idle-streams slow-clients quota bench-calls bench-admission bench-journal bench-limits bench-metrics bench-page bench-prices reports-bench check fmt lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Build .venv with exactly what requirements.lock says

install-dev: $(VENV)/.installed-dev

run: install ## Start meter on an embedded SQLite database
	$(BIN)/meter serve $(SAMPLE)

demo: install ## Show everything with made-up data; nothing is left behind
	$(BIN)/meter demo

test: install-dev ## Run the tests, but for those that take long
	$(BIN)/pytest -n $(TESTS_AT_ONCE) --dist worksteal -q -m "not long"

test-long: install-dev ## Run those: faults, workers, upgrades, nginx, Prometheus, hang-ups at every byte
	$(BIN)/pytest -n $(TESTS_AT_ONCE) --dist worksteal -q -m long

screenshots: install-dev ## Take the pictures in docs/ anew, with Chromium
	METER_TEST_SCREENSHOTS=docs/images $(BIN)/pytest -q tests/web/test_browser.py

cases: install-dev ## Run every recorded case through the proxy at 200 random splittings (minutes)
	METER_TEST_SPLITTINGS=200 $(BIN)/pytest -n auto -q tests/proxy/test_cases.py

stock: install-dev ## Run the proxy's tests with httpx's own transport (minutes)
	METER_TEST_TRANSPORT=httpx $(BIN)/pytest -n $(TESTS_AT_ONCE) --dist worksteal -q tests/proxy --deselect tests/proxy/test_transport.py --deselect tests/proxy/test_connections.py

asgi: install-dev ## Run the proxy's tests with every request going through ASGI (minutes)
	METER_TEST_ASGI=1 $(BIN)/pytest -n $(TESTS_AT_ONCE) --dist worksteal -q tests/proxy tests/security --ignore tests/proxy/test_transport.py --ignore tests/proxy/test_connections.py

money: install-dev ## Price 100,000 random usages, and sum ten million calls on both databases (minutes)
	METER_TEST_MONEY_EXAMPLES=$(or $(EXAMPLES),100000) $(BIN)/pytest -q tests/core/test_prices.py -k costs_are_exact
	METER_TEST_CALLS=$(or $(CALLS),10000000) $(BIN)/pytest -q tests/store/test_money.py

fuzz: install-dev ## Make up requests to the admin API, and inputs of every property for SECONDS=10 each (minutes)
	METER_TEST_EXAMPLES=300 $(BIN)/pytest -q tests/web/test_schemathesis.py
	METER_TEST_FUZZ_SECONDS=$(or $(SECONDS),10) $(BIN)/python -m pytest -p tests.fuzz -n $(TESTS_AT_ONCE) -q tests

security: install-dev ## Run the tests of every threat in docs/security.md, and print the table (minutes)
	$(BIN)/python -m tests.security.threats --jobs $(TESTS_AT_ONCE)

audit: install-dev ## Ask for known vulnerabilities of what meter is built from
	$(BIN)/python -m tests.security.audit

sbom: install-dev ## Write what meter is built from to sbom.json (CycloneDX)
	$(BIN)/python -W ignore -m cyclonedx_py requirements requirements.lock --pyproject pyproject.toml \
		--output-reproducible -o sbom.json

dashboards: install-dev ## Write grafana/dashboards from the Python and SQL beside it
	$(BIN)/python -m grafana.build

series: install-dev ## Make up 50,000 models, paths and users, and count series (minutes)
	METER_TEST_MADE_UP=50000 $(BIN)/pytest -q tests/metrics/test_page.py -k make_up

faults: install-dev ## Kill, stop, cut and damage everything; SEEDS=5000 by default, JOBS=1 (long)
	$(BIN)/python -m tests.faults --seeds $(or $(SEEDS),5000) --jobs $(or $(JOBS),1)

soak: install-dev ## Load a server on both databases with a fault every ten seconds; MINUTES=30 by default, SEED=
	$(BIN)/python -m tests.soak --minutes $(or $(MINUTES),30) $(if $(SEED),--seed $(SEED))

idle-streams: install-dev ## Hold idle streams open in one process; STREAMS=10000 by default (minutes)
	$(BIN)/python -m tests.soak.idle --streams $(or $(STREAMS),10000)

slow-clients: install-dev ## Send and read slowly with slowhttptest; CONNECTIONS=4000 by default (minutes)
	$(BIN)/python -m tests.soak.slow --connections $(or $(CONNECTIONS),4000)

reports-bench: install-dev ## Print how long reports take; EVENTS=10000000 by default (long)
	$(BIN)/python -m tests.bench.reports --events $(or $(EVENTS),10000000)

bench-page: install-dev ## Print how long the spend page takes; URL= of a database that tests.seed_ledger has filled
	$(BIN)/python -m tests.bench.page $(URL)

quota: install-dev ## Hold budgets against bursts, kills, outages and seeds; SEEDS=4000, KILLS=100, JOBS=2 (long)
	$(BIN)/python -m tests.quota --seeds $(or $(SEEDS),4000) --kills $(or $(KILLS),100) --jobs $(or $(JOBS),2)
	$(BIN)/python -m tests.bench.admission

secrets: ## Make the secrets of docker-compose.yml in deploy/secrets; none is made twice
	@deploy/secrets.sh

rolling: install-dev ## Replace two servers behind nginx under load; ROUNDS=10 by default (minutes)
	METER_TEST_ROLLING_ROUNDS=$(or $(ROUNDS),10) $(BIN)/pytest -q -s tests/deploy/test_stack.py

bench: install-dev ## Measure meter beside nginx: CPU a request, latency, streams, usage, memory (needs nginx and wrk)
	$(BIN)/python -m benchmarks $(BENCH)
	$(BIN)/python -m tests.bench.tap
	-$(BIN)/python -m tests.bench.admission
	$(BIN)/python -m tests.bench.prices
	$(BIN)/python -m tests.bench.journal
	$(BIN)/python -m tests.bench.ledger

bench-memory: install-dev ## Print what meter takes after many requests; REQUESTS=1000000 by default (long)
	$(BIN)/python -m benchmarks.long --requests $(or $(REQUESTS),1000000)

bench-others: install-dev ## Put Portkey's gateway and LiteLLM's proxy beside meter: CPU a request (minutes; installs both)
	$(BIN)/python -m benchmarks.others

bench-calls: install-dev ## Print how many functions a request calls, by module (needs wrk)
	$(BIN)/python -m benchmarks.calls $(CALLS)

bench-admission: install-dev ## Print what admission costs with budgets and rates, in CPU
	$(BIN)/python -m tests.bench.admission

bench-ledger: install-dev ## Print how many events a second get into the ledger
	$(BIN)/python -m tests.bench.ledger

bench-journal: install-dev ## Print what the journal costs a request, in CPU and in waiting
	$(BIN)/python -m tests.bench.journal

bench-metrics: install-dev ## Print what counting an event for the page of metrics costs, in CPU
	$(BIN)/python -m tests.bench.metrics

bench-prices: install-dev ## Print what rating an event costs, in CPU
	$(BIN)/python -m tests.bench.prices

bench-limits: install-dev ## Print what lists of models, concurrency and rates cost a request, in CPU
	$(BIN)/python -m tests.bench.limits

check: install-dev ## Lint, types, format, the migrations' consistency, and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_migrations.py
	$(BIN)/python -m tests.security.audit

fmt: install-dev ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: install-dev ## Renew both lock files from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --custom-compile-command "make lock" $(LOCK_FLAGS) --group build pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
		--no-annotate --custom-compile-command "make lock" $(LOCK_FLAGS) --group build --group dev --group lock -c requirements.lock pyproject.toml -o requirements-dev.lock

clean: ## Remove the virtual environment and caches (never the data)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "meter needs Python 3.11 or newer; name one with make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python requirements.lock pyproject.toml
	$(PIP) install --require-hashes -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	$(PIP) install --require-hashes -r requirements-dev.lock
	@touch $@
