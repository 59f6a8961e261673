# `make` alone lists the targets, from the comments after "##" below.

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
PYTEST = $(BIN)/pytest -n 4 --dist worksteal
PYTHON_FILES = heroimg demo tests benchmarks docs/settings.py wsgi.py deploy/rehearse
DEBIAN_PACKAGES = chromium chromium-driver curl firefox-esr libapache2-mod-passenger libapache2-mod-wsgi-py3 nginx openssl \
	prometheus redis-server strace uwsgi-core uwsgi-plugin-python3 \
	webkit2gtk-driver xvfb
MADE = $(VENV) $(VENV)-audit $(VENV)-bench node_modules benchmarks/others/express/node_modules test-output .coverage* \
	.hypothesis .mypy_cache .pytest_cache .ruff_cache build dist *.egg-info

.PHONY: help run check lint test test-all proof coverage torture bench settings audit sweep rehearse system clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.installed ## serve on http://localhost:3000, with a stand-in for Stripe unless STRIPE_SECRET_KEY is set (PORT=, STAND_IN_PORT=)
	$(BIN)/python -m demo.run --port $(PORT) --stand-in-port $(STAND_IN_PORT)

check: lint ## run the linters, the type checkers and the unit tests (under 30 seconds)
	$(BIN)/pytest -q tests/unit

lint: $(VENV)/.installed-dev ## run the linters and the type checkers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PYTHON_FILES)
	PATH="$(BIN):$$PATH" $(BIN)/npm run --silent lint

test: lint ## run the linters, the type checkers and all tests except the long proofs (under five minutes)
	$(PYTEST) -m "not proof"

test-all: lint ## run the linters, the type checkers and all tests
	$(PYTEST)

proof: $(VENV)/.installed-dev ## run only the long proofs: crashes at every step, hostile input, load, other servers and browsers
	$(PYTEST) -m proof

coverage: $(VENV)/.installed-dev ## run all tests and show which lines they execute, also in the servers
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -n 4 --dist worksteal
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

torture: $(VENV)/.installed-dev ## let many customers upload, pay and fetch while servers and connections break (SECONDS=, SEED=)
	$(BIN)/python -m tests.soak.torture --seconds $(SECONDS) --seed $(SEED)

bench: $(VENV)/.installed-dev $(VENV)-bench/.installed ## compare heroimg with Express, FastAPI and bare nginx (twenty minutes; OUTPUT=, ROUNDS=)
	$(BIN)/python -m benchmarks.speed --output $(OUTPUT) --rounds $(ROUNDS)

settings: $(VENV)/.installed ## write .env.example and the table in docs/settings.md, after a change in heroimg/config.py
	$(BIN)/python -m docs.settings

audit: ## ask PyPI which dependencies have known vulnerabilities (needs the network)
	$(PYTHON) -m venv $(VENV)-audit
	$(VENV)-audit/bin/pip install --quiet --disable-pip-version-check pip-audit==2.10.1
	$(VENV)-audit/bin/pip-audit --strict --no-deps --disable-pip -r requirements.txt -r requirements-redis.txt

sweep: $(VENV)/.installed ## remove expired pictures and leftovers of crashes
	$(BIN)/flask --app heroimg.wsgi sweep

rehearse: ## run the commands of docs/operations.md in an empty Debian (takes minutes, needs root and the network; SUITE=trixie for Debian 13)
	$(PYTHON) deploy/rehearse --suite $(SUITE)

system: ## install the Debian packages that some tests use, as root
	apt-get update -q
	apt-get install -qy --no-install-recommends $(DEBIAN_PACKAGES)

clean: ## remove virtual environments, packages and reports, but not uploads/ and instance/
	rm -rf $(MADE)

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
