# Quorate's tasks. Only Go, git, bash and make are assumed; what else is needed is
# built from tools/go.mod into .cache/tools. `make help` lists the targets.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules --no-print-directory
# The go command uses every core by itself.
.NOTPARALLEL:

MODULE  := github.com/quorate/quorate
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo v0.1.0-dev)
LDFLAGS := -s -w -X $(MODULE)/internal/version.version=$(VERSION)

# What a person may set: make up ARGS='--members 1', make test PKG=./store/... RUN=TestWatch.
ARGS     ?=
PKG      ?= ./...
RUN      ?=
ONLY     ?=
FUZZTIME ?= 30s
# Where make browser puts its pictures.
SCREENSHOTS ?= .cache/screenshots
# How many packages are built and tested at once: many tests run real etcd
# processes, which need the rest.
P        ?= 2
export ONLY

# Tools are kept by the versions they were built from, and by the Go that built them.
TOOLS_KEY := $(shell { go env GOVERSION; cat tools/go.mod tools/go.sum; } | cksum | cut -d' ' -f1)
TOOLS     := $(CURDIR)/.cache/tools/$(TOOLS_KEY)
GOLANGCI  := $(TOOLS)/golangci-lint
GENERATOR := $(TOOLS)/controller-gen
GOTESTSUM := $(TOOLS)/gotestsum
# Its own module, so that a change to it does not have the others built again.
NFPM      := $(CURDIR)/.cache/tools/nfpm-$(shell { go env GOVERSION; cat tools/dist/go.mod tools/dist/go.sum; } | cksum | cut -d' ' -f1)

# The race detector needs a C compiler.
CC_FOUND := $(shell command -v "$$(go env CC)" 2>/dev/null)
RACE     := $(if $(CC_FOUND),-race)
TESTENV  := $(if $(CC_FOUND),CGO_ENABLED=1)
RESULTS  := test-results

##@ Use

.PHONY: help
help: ## List the targets.
	@awk 'BEGIN {FS = ":.*## "} \
		/^##@ / {printf "\n%s\n", substr($$0, 5)} \
		/^[a-z][a-z-]*:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: up
up: build ## Build, then run a cluster on this machine until Ctrl-C; ARGS='--members 1 …'.
	@bin/quorate up $(ARGS)

.PHONY: build
build: ## Build bin/quorate, a static binary.
	@CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/quorate ./cmd/quorate

.PHONY: dist
dist: $(NFPM) ## Make what is published, in dist/: tar.gz, deb and rpm for amd64 and arm64, SHA256SUMS.
	@VERSION='$(VERSION)' LDFLAGS='$(LDFLAGS)' NFPM='$(NFPM)' deploy/dist.sh

##@ Check

.PHONY: check
check: ## All that must hold before a change lands: lint, fmt-check, generate-check, test.
	@failed=; \
	for step in lint fmt-check generate-check test; do \
		echo "== $$step"; \
		$(MAKE) "$$step" || failed+=" $$step"; \
	done; \
	if [[ -n $$failed ]]; then echo "check: failed:$$failed" >&2; exit 1; fi

# Packages with tests that QUORATE_SLOW=1 adds, see test/slow.
SLOW = $(shell git grep -lE 'test/(slow|nspawn|fleetlab)"' -- '*_test.go' | xargs -n1 dirname | sort -u | sed 's|^|./|')

.PHONY: check-slow
check-slow: $(GOTESTSUM) etcd-releases etcd-debian s3-server nspawn-base ## What takes too long for every change: fuzzing, older etcds, slow tests, all others three times shuffled, the console in a browser, prove-ground.
	@$(MAKE) fuzz
	@QUORATE_ETCD_RELEASES=$(CURDIR)/.cache/etcd $(TESTENV) $(GOTESTSUM) --format pkgname -- -run TestOlderEtcd -count 1 -timeout 20m ./test/e2e ./inspect ./driver/host
	@QUORATE_SLOW=1 QUORATE_ETCD_RELEASES=$(CURDIR)/.cache/etcd $(TESTENV) $(GOTESTSUM) --format pkgname -- -p 1 -count 1 -timeout 60m $(SLOW)
	@$(TESTENV) $(GOTESTSUM) --format pkgname -- $(RACE) -p $(P) -count 3 -shuffle on -timeout 60m $(PKG)
	@$(MAKE) browser
	@$(MAKE) prove-ground

# Etcds of other minors and with known bugs, which the tests run besides the one that is linked in.
# They are built from their modules, each in a module of its own.
OLDER_ETCD := 3.5.2 3.5.5 3.5.35 3.6.16
.PHONY: etcd-releases
etcd-releases: $(OLDER_ETCD:%=.cache/etcd/%/etcd) ## Build the older etcds that check-slow tests with.
.cache/etcd/%/etcd:
	@mkdir -p $(@D)/src
	@cd $(@D)/src && rm -f go.mod go.sum && go mod init older 2>/dev/null \
		&& printf '//go:build tools\n\npackage older\n\nimport _ "go.etcd.io/etcd/server/v3"\n' > older.go \
		&& go get go.etcd.io/etcd/server/v3@v$* && go mod tidy \
		&& CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o ../etcd go.etcd.io/etcd/server/v3

# Debian's etcd 3.4, unpacked and not installed, so that no service is started.
# Quorate does not run it, it only looks at such clusters.
DEBIAN_ETCD := .cache/etcd-debian/3.4.23/etcd
.PHONY: etcd-debian
etcd-debian: $(DEBIAN_ETCD) ## Fetch Debian's etcd 3.4, which doctor and import are tested with.
$(DEBIAN_ETCD):
	@mkdir -p $(@D) && cd $(@D) && apt-get download -q etcd-server && dpkg -x etcd-server_3.4.23-*.deb . \
		&& mv usr/bin/etcd etcd && rm -rf usr lib var etc etcd-server_*.deb

# gotestsum ends with the tests that were skipped, each with its reason, the
# failures, and a line with the counts; nothing may be printed after it.
.PHONY: test
test: $(GOTESTSUM) s3-server ## Run all tests with the race detector; PKG=./store/... RUN=TestName.
	@mkdir -p $(RESULTS)
	@echo "Not part of this: what make check-slow runs (fuzzing, repetition, prove-ground), since it takes an hour."
	@$(if $(RACE),,echo "SKIPPED: the race detector, since there is no C compiler ($$(go env CC)): install gcc.")
	@$(TESTENV) $(GOTESTSUM) --format pkgname --format-hide-empty-pkg \
		--jsonfile $(RESULTS)/test.json --junitfile $(RESULTS)/test.xml \
		-- $(RACE) -p $(P) -timeout 20m $(if $(RUN),-run '$(RUN)') $(PKG)

.PHONY: fuzz
fuzz: ## Fuzz each fuzz test for FUZZTIME (30s).
	@found=0; \
	while IFS=: read -r file name; do \
		found=1; \
		echo "== $$name in $$(dirname "$$file"), $(FUZZTIME)"; \
		go test -run '^$$' -fuzz "^$$name\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
	done < <(git ls-files -co --exclude-standard -- '*_test.go' | xargs grep -HoE '^func Fuzz[A-Za-z0-9_]+' | sed 's/func //'); \
	if [[ $$found == 0 ]]; then echo "fuzz: no fuzz test was found" >&2; exit 1; fi

.PHONY: bench
bench: ## Run the Go benchmarks; PKG=./fleet/...
	@go test -run '^$$' -bench . -benchmem $(PKG)

.PHONY: prove-ground
prove-ground: build ## Show on real processes what the ground promises, a line each; ONLY=name runs one.
	@go run ./test/prove ground

.PHONY: browser
browser: ## Drive the console in Chromium, and put pictures of every page into SCREENSHOTS.
	@command -v chromium chromium-browser google-chrome >/dev/null || apt-get install -y -q chromium
	@QUORATE_SCREENSHOTS='$(abspath $(SCREENSHOTS))' go test -count 1 -timeout 20m -v ./test/browser

.PHONY: prove-faces
prove-faces: build ## Show what the command line, the API and the console promise, a line each (over an hour); ONLY=name runs one.
	@go run ./test/prove faces

.PHONY: prove-load
prove-load: build ## Show what load and checker promise, a line each (two hours); ONLY=name runs one.
	@go run ./test/prove load

.PHONY: prove-backup
prove-backup: build s3-server etcd-releases ## Show what backups promise, a line each (an hour); ONLY=name runs one.
	@go run ./test/prove backup

.PHONY: prove-hosts
prove-hosts: build etcd-releases nspawn-base ## Show what hosts promise, a line each (an hour and a half); ONLY=name runs one.
	@go run ./test/prove hosts

include test/repro/repro.mk
include test/perf/perf.mk
include test/s3lab/s3lab.mk
include test/nspawn/nspawn.mk

.PHONY: lint
lint: $(GOLANGCI) ## Run golangci-lint.
	@$(GOLANGCI) run --allow-parallel-runners ./...

.PHONY: fmt-check
fmt-check: $(GOLANGCI) ## Fail if make fmt would change a file.
	@$(GOLANGCI) fmt --diff ./... || { echo "fmt-check: run make fmt" >&2; exit 1; }

.PHONY: generate-check
generate-check: $(GENERATOR) ## Fail if make generate would change a file.
	@tmp=$$(mktemp -d); trap 'rm -rf "$$tmp"' EXIT; \
	$(GENERATOR) object crd:crdVersions=v1 paths=./api/... \
		output:object:dir="$$tmp/object" output:crd:dir="$$tmp/crds"; \
	diff -u api/v1alpha1/zz_generated.deepcopy.go "$$tmp/object/zz_generated.deepcopy.go" && \
	diff -ru api/schema/crds "$$tmp/crds" || { echo "generate-check: run make generate" >&2; exit 1; }

##@ Write

.PHONY: fmt
fmt: $(GOLANGCI) ## Format the Go code (gofumpt, goimports).
	@$(GOLANGCI) fmt ./...

.PHONY: generate
generate: $(GENERATOR) ## Write the deepcopy functions and the CRDs from api/v1alpha1.
	@$(GENERATOR) object paths=./api/... crd:crdVersions=v1 output:crd:dir=api/schema/crds

.PHONY: docs
docs: ## Write docs/reference from the commands, and check the Markdown: links, and the paths and make targets it names.
	@go test -count 1 -run '^TestReference$$' ./cli -update
	@go test -count 1 -run '^TestDocs' .

.PHONY: clean
clean: ## Remove what was built; the tools in .cache stay.
	@rm -rf bin dist $(RESULTS)

##@ Tools

.PHONY: tools
tools: $(GOLANGCI) $(GENERATOR) $(GOTESTSUM) ## Build the tools into .cache/tools; the targets above do so when needed.

$(GOLANGCI):  PACKAGE = github.com/golangci/golangci-lint/v2/cmd/golangci-lint
$(GENERATOR): PACKAGE = sigs.k8s.io/controller-tools/cmd/controller-gen
$(GOTESTSUM): PACKAGE = gotest.tools/gotestsum

$(GOLANGCI) $(GENERATOR) $(GOTESTSUM):
	@echo "Building $(@F) (once; golangci-lint takes minutes)"
	@mkdir -p $(TOOLS)
	@cd tools && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ $(PACKAGE)

$(NFPM):
	@mkdir -p $(@D)
	@cd tools/dist && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $@ github.com/goreleaser/nfpm/v2/cmd/nfpm
