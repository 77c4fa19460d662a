# What there is to do with Keten; `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Words for the command behind a target: make demo ARGS=--exit
ARGS ?=

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: ## run the certificates example on an own broker and PostgreSQL (ARGS=--exit ends it)
	@scripts/need openssl
	@go run ./cmd/keten demo $(ARGS)

.PHONY: test
test: ## run all Go tests, also those on Apache Kafka and PostgreSQL (ARGS="-run Name ./ledger")
	@scripts/need cc
	go run ./internal/teststack -- go test -race -timeout 20m $(or $(ARGS),./...)
	$(if $(ARGS),,go test ./internal/simtest -run Simulation -args -seeds=10000)

# Histories that make simulate runs.
SEEDS ?= 100000

.PHONY: simulate
simulate: ## run SEEDS=100000 simulated histories, each a partition's whole life
	go test ./internal/simtest -run Simulation -timeout 0 -v -args -seeds=$(SEEDS)

.PHONY: chaos-executor
chaos-executor: ## kill, pause and cut off executors on Apache Kafka, in full numbers (ARGS="-run Killed")
	CI=true go test ./tests/chaos -count=1 -parallel 1 -timeout 60m -v $(ARGS) -args -full

.PHONY: test-clients
test-clients: ## read the ledger with consumers that are not ours (Python), run the example worker (Python), check the AsyncAPI description (Node.js)
	@scripts/need python3 node npm openssl
	go run ./internal/teststack -- tests/clients/run

.PHONY: mutants
mutants: ## break every rule once and see what notices (ARGS="-run lanes", ARGS=-list)
	@go run ./internal/mutants $(ARGS)

.PHONY: lint
lint: ## check the Go code and the scripts; the first run builds the linter
	@scripts/need shellcheck
	scripts/golangci-lint run ./...
	shellcheck .ci/run scripts/* tests/clients/run $$(find examples deploy -name "*.sh")

.PHONY: verify
verify: ## make the generated files again and compare them with the committed ones
	scripts/verify

.PHONY: bench
bench: ## measure throughput and latency on Apache Kafka and PostgreSQL, one JSON line per scenario
	@go build -o bin/keten ./cmd/keten
	@go run ./internal/teststack -- bash -c 'bin/keten bench --kafka-brokers "$$KETEN_TEST_BROKERS" --database-url "$$KETEN_TEST_DATABASE_URL" $(ARGS)$(if $(ARGS),, && bin/keten bench executor --kafka-brokers "$$KETEN_TEST_BROKERS")'
	@$(if $(ARGS),,bin/keten bench fold)

.PHONY: build
build: ## build bin/keten
	go build -trimpath -o bin/keten ./cmd/keten

.PHONY: clean
clean: ## remove what build made; the data of keten dev (.keten) stays
	rm -rf bin
