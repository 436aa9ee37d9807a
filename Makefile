# What people type. Needs Rust 1.95 or newer and gcc, nothing else.

CARGO ?= cargo

.PHONY: help build demo test

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 10

build: ## the release binary, target/release/cauce
	$(CARGO) build --release --locked --package cauce

demo: build ## build, then a broker, fifty emulated plugs and subscribers in two tenants, live
	@./target/release/cauce demo $(ARGS)

test: ## everything: format, lints, tests, conformance
	@./scripts/test.sh $(ARGS)
