# What a person types. The work itself is in scripts/, one script per target.
.DEFAULT_GOAL := help
SHELL := /bin/bash
ONCE ?= 0
ALLOW_SKIP ?= 0
FUZZ_SECONDS ?= 60
export ONCE ALLOW_SKIP FUZZ_SECONDS

.PHONY: help demo test test-all bench lint guests prover install-parts fuzz soak

help: ## show this list
	@echo "NowConnect: a reverse-tunnel gateway governed by policies and plugins"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "First time here: make demo"

demo: ## watch real traffic go through the gateway (ONCE=1: show it and end)
	@scripts/demo.sh

test: ## everything that must hold before a change lands (ALLOW_SKIP=1: parts may be missing)
	@scripts/test.sh

test-all: ## make test, and the tests that are too slow for each change
	@TEST_ALL=1 scripts/test.sh

bench: ## measure beside other tunnels and proxies, as ratios
	@scripts/bench.sh

lint: ## formatting, clippy and documentation, without running anything
	@scripts/test.sh --only lint

guests: ## build the WebAssembly plugins
	@scripts/need.sh rust guests
	@scripts/build-guests.sh

prover: ## build nowconnect-prove, which proves what a change of policies lets in
	@scripts/need.sh rust prover
	@scripts/build-prover.sh

install-parts: ## install the real servers that the tests run against
	@scripts/need.sh rust guests parts node

fuzz: ## look for new inputs that break the wire (FUZZ_SECONDS=60 per target)
	@scripts/fuzz.sh

soak: ## reserved: hours of traffic with faults; comes with the cluster
	@echo "there is no soak run yet; it comes with the cluster" >&2; exit 2
