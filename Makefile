# Needs Python 3.11, git and make. Everything else comes by itself: uv into .cache/, packages into .venv/, jars on first use.
PYTHON ?= python3
UV := .cache/uv/bin/uv
RUN := $(UV) run --frozen --all-extras --no-progress
PACKAGES := trimtab collectors detectors autoscaler serving_stack dashboards embedded benchmarks

.PHONY: help demo test check docs compose-test images e2e format setup clean

help:
	@echo "make demo   start everything on this machine and watch Trimtab run the fleet (SCENARIO=tour SEED=7)"
	@echo "make test   all tests: lint, types, unit tests, and those against real Kafka, Flink, Triton and Envoy;"
	@echo "            with KUBECONFIG set, also those on a real cluster"
	@echo "make check  lint, types, import directions and unit tests only (under a minute)"
	@echo "make images the container images, by role (DOCKER=docker TAG=dev)"
	@echo "make e2e    tests on the Kubernetes cluster of KUBECONFIG, with those images on its nodes"
	@echo "make compose-test  the whole of docker-compose.yml: a bad release, a hang, who was told (needs Docker)"
	@echo "make docs   this documentation as a site, into .cache/site"
	@echo "make format put the code into the project's style"

$(UV):
	@echo "Getting uv into .cache/uv"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] not in ((3, 11), (3, 12)) and "Trimtab needs Python 3.11 or 3.12; say make PYTHON=python3.11")'
	@$(PYTHON) -m venv .cache/uv
	@.cache/uv/bin/pip install --quiet uv==0.13.9

.venv/.ready: $(UV) pyproject.toml uv.lock
	@$(UV) sync --frozen --all-extras --python $(PYTHON)
	@touch $@

setup: .venv/.ready

demo: setup
	@$(RUN) trimtab demo $(if $(SCENARIO),--scenario $(SCENARIO)) $(if $(SEED),--seed $(SEED)) $(if $(OUT),--out $(OUT))

# Four workers on two cores: many of these tests wait for a moment, for a file, a socket or a child.
check: setup
	$(RUN) ruff format --check .
	$(RUN) ruff check .
	$(RUN) mypy
	$(RUN) lint-imports
	$(RUN) pytest -n 4 --dist loadfile -m "not integration and not e2e and not compose"
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet

docs: setup
	NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict --quiet
	@echo "The site is in .cache/site/index.html"

test: check
	$(RUN) pytest -m integration
	$(RUN) pytest -m e2e -rs

# Images for Kubernetes and compose; another builder or registry: make images DOCKER=podman TAG=v1
DOCKER ?= docker
TAG ?= dev
images:
	for role in core serving detect kafka drill; do \
	  $(DOCKER) build --target $$role --tag trimtab-$$role:$(TAG) . || exit 1; done
	@$(DOCKER) images --filter reference='trimtab-*:$(TAG)'

# Needs KUBECONFIG, kubectl and the images on the cluster's nodes.
e2e: setup
	$(RUN) pytest -m e2e

# COMPOSE="docker compose" is what runs it, BUILD_ARGS are further ones of `docker build`, and
# TRIMTAB_COMPOSE_WITHOUT=grafana leaves out what cannot be pulled.
compose-test: setup
	for role in core serving detect; do \
	  $(DOCKER) build $(BUILD_ARGS) --target $$role --tag trimtab-$$role:$(TAG) . || exit 1; done
	TRIMTAB_TAG=$(TAG) $(RUN) pytest -m compose tests/compose

format: setup
	$(RUN) ruff format .
	$(RUN) ruff check --fix .

clean:
	rm -rf .venv .cache runs
