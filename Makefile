# The only door: what people and CI run. `make help` lists it.

CARGO := .ci/cargo
# As cargo names this machine: x86_64-unknown-linux-gnu.
TARGET := $(shell $(CARGO) -vV | sed -n 's/^host: //p')
RUNTIME := target/$(TARGET)/release/runtime
SPEC_TESTS := target/$(TARGET)/release/spec-tests
MANAGER := target/release/manager
PREFIX ?= /usr/local
DESTDIR ?=

# The runtime is one static file: it starts fast and can be copied anywhere. So is the probe of
# spec-tests, which runs in empty root filesystems. Only with an explicit target are build scripts and
# procedural macros left out of that, which are loaded as shared libraries. RUSTFLAGS of the
# environment would replace ours.
STATIC := env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS
STATIC_BUILD := $(CARGO) build --release --target $(TARGET) \
	--config 'target.$(TARGET).rustflags=["-Ctarget-feature=+crt-static","-Crelocation-model=static"]'
OPTIMISED := CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1

.PHONY: help build check test demo spec-tests bench install packages static root

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

build: static ## release binaries: runtime and spec-tests static, manager dynamic
	$(CARGO) build --release -p manager
	@ls -sh $(RUNTIME) $(MANAGER) $(SPEC_TESTS)

static:
	$(STATIC) $(OPTIMISED) $(STATIC_BUILD) -p runtime
	$(STATIC) $(STATIC_BUILD) -p spec-tests

check: ## formatting, clippy and documentation, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps

test: root packages static ## all tests, as root: unit tests, real registries, engines, runtimes
	RUNTIME_BIN=$(abspath $(RUNTIME)) $(CARGO) test --workspace --no-fail-fast

spec-tests: root static ## the conformance suite against the runtime; others: RUNTIME_UNDER_TEST=runc
	$(SPEC_TESTS) --runtime $(or $(RUNTIME_UNDER_TEST),$(RUNTIME))

demo: root packages build ## an image, a registry, a pull and a container, step by step, as root
	.ci/demo $(MANAGER) $(RUNTIME)

bench: root packages static ## times the runtime beside crun and runc, as root; keeps the run in bench/runs
	bench/compare $(RUNTIME)

install: build ## binaries to PREFIX (/usr/local), below DESTDIR
	install -D -m 755 $(RUNTIME) $(DESTDIR)$(PREFIX)/bin/runtime
	install -D -m 755 $(MANAGER) $(DESTDIR)$(PREFIX)/bin/manager

packages:
	@.ci/packages

root:
	@[ "$$(id -u)" = 0 ] || { echo 'make: containers are made as root: sudo make $(MAKECMDGOALS)' >&2; exit 1; }
