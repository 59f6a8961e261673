# make run    serve on http://localhost:3000 (PORT=, STAND_IN_PORT=), with a stand-in for Stripe unless STRIPE_SECRET_KEY is set
# make test   linters, types and the tests
# make proof  the others: the store ended at every step, hostile input, smuggling, fuzzing
# make coverage all tests once more, and what they have run, in the servers too
# make torture whole journeys for minutes, while everything breaks that can (SECONDS=, SEED=)
# make bench  measure heroimg beside Express, FastAPI and bare nginx (takes twenty minutes; OUTPUT=, ROUNDS=)
# make lint   linters and types alone
# make audit  ask PyPI which dependencies have known faults (needs the network)
# make sweep  remove expired pictures and leftovers once
# make rehearse follow docs/operations.md in an empty Debian (as root; SUITE=trixie for another; takes minutes and the network)
# make system install the Debian packages that some tests use (as root)

PYTHON ?= python3
PORT ?= 3000
STAND_IN_PORT ?= 12111
SUITE ?= bookworm
SECONDS ?= 90
OUTPUT ?= test-output
ROUNDS ?= 5
SEED ?= $(shell date +%s)
VENV = .venv
BIN = $(VENV)/bin

.PHONY: run test proof coverage torture bench lint audit sweep rehearse system clean

run: $(VENV)/.installed
	$(BIN)/python -m demo.run --port $(PORT) --stand-in-port $(STAND_IN_PORT)

test: lint
	$(BIN)/pytest -n 3 -m "not proof"

proof: lint
	$(BIN)/pytest -n 3 -m proof

coverage: $(VENV)/.installed-dev
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 3
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

torture: $(VENV)/.installed-dev
	$(BIN)/python -m tests.soak.torture --seconds $(SECONDS) --seed $(SEED)

bench: $(VENV)/.installed-dev $(VENV)-bench/.installed
	$(BIN)/python -m benchmarks.speed --output $(OUTPUT) --rounds $(ROUNDS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy heroimg demo tests benchmarks wsgi.py deploy/rehearse
	PATH="$(BIN):$$PATH" $(BIN)/npm run --silent lint

audit:
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.txt -r requirements-redis.txt

sweep: $(VENV)/.installed
	$(BIN)/flask --app wsgi sweep

rehearse:
	$(PYTHON) deploy/rehearse --suite $(SUITE)

system:
	apt-get update -q
	apt-get install -qy --no-install-recommends chromium curl libapache2-mod-passenger libapache2-mod-wsgi-py3 nginx openssl redis-server strace

clean:
	rm -rf $(VENV) $(VENV)-audit $(VENV)-bench node_modules benchmarks/others/express/node_modules test-output .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "heroimg needs Python 3.11 or later; name one with PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: requirements.txt | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt requirements-redis.txt package-lock.json | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	$(BIN)/npm ci --silent --ignore-scripts
	touch $@

$(VENV)-bench/.installed: benchmarks/others/requirements.txt benchmarks/others/express/package-lock.json $(VENV)/.installed-dev
	$(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --disable-pip-version-check -r benchmarks/others/requirements.txt
	PATH="$(BIN):$$PATH" $(BIN)/npm ci --silent --ignore-scripts --prefix benchmarks/others/express
	touch $@
