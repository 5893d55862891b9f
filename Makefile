# Everything that can be run, in one place: `make help`.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
READY := $(VENV)/.ready
# Most tests wait for something, so two run at a time; a file's tests share what they start, so they stay together.
PYTEST := $(RUN) -m pytest -q -n 2 --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test check unit lab-tests lab effect versions brokers trouble node bench peers plane lock clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## the main job, before and after: on a real node where it is built (or LAB_NODE=1), else on a control plane alone
	@$(RUN) -m lab.demo

test: check unit lab-tests ## everything that CI runs (some 40 minutes on two cores, the first time half an hour more)

check: $(READY) ## style, types, and which room may import which
	@$(VENV)/bin/ruff check && $(VENV)/bin/ruff format --check && $(VENV)/bin/mypy && $(VENV)/bin/lint-imports --no-cache

unit: $(READY) ## the tests that need nothing but Python
	@$(PYTEST) -m "not lab"

lab-tests: lab ## the tests on a real control plane, RabbitMQ and Plane-like containers
	@$(RUN) -m lab --tests && $(PYTEST) -m lab

lab: $(READY) ## set up what the lab needs: system packages, control plane, images (cached)
	@$(RUN) -m lab

effect: lab ## the whole fault matrix, resumable, with a table at the end
	@$(RUN) -m bench.effect

versions: lab ## the essential faults on the oldest and newest packages and Pythons, resumable, with a table at the end
	@$(RUN) -m bench.effect.versions

brokers: lab ## RabbitMQ 4.0 and 4.3, classic and quorum queues: workers, publishing, essential faults, a node of three killed
	@$(RUN) -m lab --tests
	@for kind in 4.0 4.0-quorum 4.3 4.3-quorum; do \
		PLANE_WEBHOOK_RABBITMQ=$$kind $(RUN) -m pytest -q -k "publishing or own" \
			tests/effect/test_publishing.py tests/effect/test_publishing_odds.py tests/effect/test_workers.py || exit 1; \
	done
	@$(RUN) -m bench.effect.brokers && $(RUN) -m bench.effect.cluster

trouble: lab ## what a broker in trouble does to the API, upstream and ours side by side, held against the goals
	@$(RUN) -m bench.effect.trouble

node: lab ## the tests on a real node: kubelet, containerd, kube-proxy, kube-router (builds them once: 5 to 8 minutes, kube-router 3 to 7 more; needs root)
	@$(RUN) -m lab --node && LAB_NODE=1 $(RUN) -m pytest -q tests/lab/test_node.py tests/lab/test_image_volume.py tests/e2e/node

bench: lab ## what it costs: a review (beside others that do the same), a pod, many at once, start-up, a publish, keeping a task, operate
	@$(RUN) -m bench.decision && $(RUN) -m bench.peers --output build/bench && $(RUN) -m bench.growth --output build/bench
	@$(RUN) -m bench.creation && $(RUN) -m bench.storm
	@$(RUN) -m bench.startup && $(RUN) -m bench.effect.cost && $(RUN) -m bench.spool
	@$(RUN) -m bench.operate && $(RUN) -m bench.healing

peers: $(READY) ## the unit tests of Celery, kombu and py-amqp, as they are and with our patches
	@$(RUN) -m tests.peers

plane: lab ## the real Plane with and without us, broker troubles included: make plane PLANE=path/to/a/checkout
	@test -n "$(PLANE)" || { echo "Name a checkout of github.com/makeplane/plane: make plane PLANE=..."; exit 2; }
	@$(RUN) -m bench.plane "$(PLANE)"

lock: $(READY) ## resolve the dependencies anew: requirements/, those of the lab's Plane and of the peers' tests
	@$(VENV)/bin/pip install -q uv
	@for what in "runtime pyproject.toml" "dev --group dev pyproject.toml" "build --group build -c requirements/dev.txt"; do \
		set -- $$what; group=$$1; shift; \
		$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
			--no-emit-index-url --no-emit-find-links --no-header "$$@" -o requirements/$$group.txt; \
	done
	@for group in requirements requirements-oldest requirements-newest; do \
		$(VENV)/bin/uv pip compile -q --universal --python-version 3.8 --generate-hashes --upgrade \
			--no-emit-index-url --no-emit-find-links --no-header \
			--directory lab/plane $$group.in -o $$group.txt; \
	done
	@$(VENV)/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
		--no-emit-index-url --no-emit-find-links --no-header \
		--directory tests/peers requirements.in -o requirements.txt

$(READY): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make PYTHON=python3.12 ..."; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing: install the package python3-venv"; exit 2; }
	@echo "setting up $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/pip install -q --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(VENV)/bin/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

clean: ## remove what was made here (not the cache in your cache folder)
	@rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
