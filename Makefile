# Everything one does with Forkyard, a line each. `make serve` and `make test` need Rust, Python 3 and make.
.DEFAULT_GOAL := help
.PHONY: help serve test check conformance bench bench-python storm docs fresh

ARGS ?=

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/: *[^#]*## /\t/' | expand -t 14

serve:           ## build and run the TCP server with its status page (more flags: ARGS="--mode prefork")
	@ci/setup.sh build
	@cargo build --release -p forkyard-cli
	@exec target/release/forkyard serve --status 127.0.0.1:8082 $(ARGS)

test:            ## everything that must hold, with set-up
	@ci/setup.sh test
	@ci/test.sh

check:           ## formatting and lints
	@ci/setup.sh build
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	@ci/python.sh check || [ $$? = 77 ]

conformance:     ## the interpreter's own multiprocessing tests against the Python package
	@ci/setup.sh build
	@ci/python.sh build
	@ci/python.sh conformance $(ARGS)

bench:           ## Forkyard against its peers, ratios in one run
	@ci/setup.sh bench
	@ci/bench.sh $(ARGS)

bench-python:    ## the Python package against multiprocessing, in one run (ARGS=--quick is shorter)
	@ci/setup.sh build
	@ci/python.sh build
	@ci/python.sh bench $(ARGS)

storm:           ## 100 000 connections under random SIGKILL, with exact accounting
	@ci/setup.sh build
	@cargo build --release -p forkyard-cli
	@ci/leaks.py -- ci/storm.py --connections 100000 $(ARGS) target/release/forkyard

docs:            ## the API documentation, in target/doc
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps

fresh:           ## clone HEAD into a temporary directory and run `make test` there
	@ci/fresh.sh
