# What people type. Needs Rust 1.95 or newer and gcc, nothing else.

CARGO ?= cargo

.PHONY: help build demo bench bench-micro test

help: ## this list
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*## /\t/' | expand -t 14

build: ## the release binary, target/release/cauce
	$(CARGO) build --release --locked --package cauce

demo: build ## build, then a broker, fifty emulated plugs and subscribers in two tenants, live
	@$(or $(CARGO_TARGET_DIR),./target)/release/cauce demo $(ARGS)

bench: ## the standard set, under a quarter of an hour on a quiet machine, into docs/BENCHMARKS.md
	@./scripts/bench.sh $(ARGS)

bench-micro: ## what a message costs inside, in four minutes, into docs/BENCHMARKS.md
	@./scripts/bench-micro.sh $(ARGS)

test: ## everything: format, lints, tests, conformance
	@./scripts/test.sh $(ARGS)
