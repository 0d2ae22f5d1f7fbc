# Each target is one line: the work is in scripts/. `make demo` and `make test` need nothing done before.
PREFIX ?= /usr/local
DESTDIR ?=
export PREFIX DESTDIR

.PHONY: help setup demo test check lint fmt types docs fuzz fuzz-layers bench bench-layers dist install uninstall clean

help:      ; @scripts/targets
setup:     ; @scripts/setup
demo:      ; @scripts/demo/run
test:      ; @scripts/test
check:     setup ; @scripts/check
lint:      setup ; @scripts/lint lint
types:     setup ; @scripts/lint types
fmt:       setup ; @scripts/fmt
docs:      setup ; @scripts/docs
fuzz:      ; @scripts/fuzz
fuzz-layers: ; @scripts/fuzz-layers
bench:     ; @scripts/bench/run all --write docs/benchmarks.md
bench-layers: ; @scripts/bench/layers --write docs/benchmarks.md
dist:      setup ; @scripts/dist && scripts/try-wheel dist/*.whl
install:   ; @scripts/install
uninstall: ; @scripts/uninstall
clean:     ; @scripts/clean
