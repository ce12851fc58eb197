# Needs python3 (3.11 or later), git, make and coreutils; everything else is fetched once into .venv.
PYTHON ?= python3
SKU ?=
QTY ?= 1
WORKERS ?=
ROUNDS ?= 10
ARGS ?=
SEEDS ?= 200
FIRST ?= 1
MINUTES ?= 30
SEED ?=
FAULT ?=

SHELL := /bin/sh
.DEFAULT_GOAL := help
.SUFFIXES:
.PHONY: help setup protos kafka check contracts catalogue asyncapi-parser format test simulate mutants faults bench scaling demo outage plug-in up order clean lock

V := .venv/bin
RUN := $(V)/python
COMPILE = .venv/lock/bin/uv pip compile --universal --generate-hashes --no-emit-index-url --no-emit-find-links \
	--no-header --python-version 3.11 --quiet $(ARGS)

define HELP
Services on a backbone of events: the runtime `backbone` and a shop built on it.

  make demo    the whole platform on a log of its own: real orders, live progress, the laws checked
               (ORDERS=all STOCK=full places the whole file with enough stock)
  make outage  payments is stopped: orders wait; for too long: they are rejected; nothing else is restarted
  make plug-in a service is generated and joins the running shop: it reads the whole history, nobody else notices
  make up      the whole platform on a log that stays; Ctrl-C stops it
               (WORKERS=3 runs three processes of each context, WORKERS="1 payments=3" of payments alone)
  make order   one order to a platform that is up: make order SKU=... QTY=2
  make test    every test (ARGS='-k words' for some of them)
  make simulate  the whole shop in one thread, and what goes wrong drawn from seeds: SEEDS=1000 FIRST=1
  make scaling  workers come, go, die and start anew under a stream of orders: ROUNDS=10
  make mutants  plants every mistake in turn, and prints which rule of the checker finds it
  make faults  faults of every kind on the real stack under load, judged by the checker: MINUTES=30 SEED=1 FAULT='kill ordering'
  make contracts  what the contracts promise, against every release
  make catalogue  docs/generated/: pages of every event, topic and service, made from contracts and tables; what they read of
               one another, by evidence, into protos/expectations/
               (make asyncapi-parser fetches the official parser for the test of its AsyncAPI document; needs npm)
  make check   ruff, mypy, basedpyright, import rules, contracts; `make format` mends what it can
  make bench   benchmarks: ratios measured side by side
  make protos  code from the contracts in protos/
  make kafka   Kafka's jars, fetched once and checked, and what makes it start fast
  make setup   .venv with hash-pinned packages (every other target does this first)
  make clean   removes what was made here; asks before it deletes a log
  make lock    resolves requirements.in anew into requirements.lock, and what images need into deploy/requirements/

PYTHON=python3.12 chooses the interpreter.
endef

help:
	@: $(info $(HELP))

setup:
	@command -v $(PYTHON) >/dev/null || { echo "setup: no '$(PYTHON)' on the PATH: install Python 3.11 or later, or name one: make PYTHON=/path/to/python3 setup" >&2; exit 1; }
	@$(PYTHON) bootstrap.py

protos: setup
	@$(RUN) build_protos.py

kafka: protos
	@$(RUN) -m backbone.local.kafka

check: protos
	$(V)/ruff check .
	$(V)/ruff format --check .
	$(V)/mypy
	$(V)/basedpyright
	$(V)/lint-imports
	$(V)/buf lint
	@command -v diff >/dev/null || { echo "check: buf format needs the program diff: install the package diffutils" >&2; exit 1; }
	$(V)/buf format -d --exit-code protos

contracts: protos
	@$(V)/backbone contracts check $(if $(AGAINST),--against "$(AGAINST)")

catalogue: protos
	@$(V)/backbone contracts catalogue

# The official parser of AsyncAPI, for the one test that wants it; needs npm and a network once.
asyncapi-parser: setup
	npm install --silent --no-audit --no-fund --prefix .venv/asyncapi @asyncapi/parser@3.6.6

format: protos
	$(V)/ruff check --fix .
	$(V)/ruff format .
	$(V)/buf format -w protos

test: kafka contracts
	@$(RUN) -m pytest $(ARGS)

simulate: protos
	@$(RUN) -m tests.simulation --seeds $(SEEDS) --first $(FIRST) $(ARGS)

scaling: kafka
	@ROUNDS=$(ROUNDS) $(RUN) -m pytest tests/e2e/test_scaling.py --timeout 3600 $(ARGS)

mutants: kafka
	@$(RUN) -m tests.mutants $(ARGS)

faults: kafka
	@$(RUN) -m tests.faults --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) $(if $(FAULT),--fault "$(FAULT)") $(ARGS)

bench: kafka
	@$(RUN) -m benchmarks $(ARGS)

demo: kafka
	@$(RUN) -m demo $(ARGS)

outage: kafka
	@$(RUN) -m demo.outage $(ARGS)

plug-in: kafka
	@$(RUN) -m demo.plug_in $(ARGS)

up: kafka
	@$(V)/backbone up $(foreach one,$(WORKERS),--workers $(one)) $(ARGS)

order: protos
	@test -n "$(SKU)" || { echo "order: which article? make order SKU=... QTY=2" >&2; exit 2; }
	@$(RUN) -m demo.order --sku "$(SKU)" --qty "$(QTY)" $(ARGS)

clean: protos
	@$(V)/backbone clean $(ARGS)

lock: setup
	@$(PYTHON) -m venv .venv/lock
	@.venv/lock/bin/pip install --quiet uv
	@$(COMPILE) requirements.in --output-file requirements.lock
	@for part in run build servers; do \
		$(COMPILE) --constraints requirements.lock deploy/requirements/$$part.in --output-file deploy/requirements/$$part.lock || exit 1; \
	done
