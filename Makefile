# The only door: what people and CI run. `make help` lists it.

CARGO := .ci/cargo
# As cargo names this machine: x86_64-unknown-linux-gnu.
HOST := $(shell $(CARGO) -vV | sed -n 's/^host: //p')
RUNTIME := target/$(HOST)/release/runtime
SPEC_TESTS := target/$(HOST)/release/spec-tests
MANAGER := target/release/manager
PREFIX ?= /usr/local
DESTDIR ?=

# The runtime is one static file: it starts fast and can be copied anywhere. So is the probe of
# spec-tests, which runs in empty root filesystems. Only with an explicit target are build scripts and
# procedural macros left out of that, which are loaded as shared libraries. RUSTFLAGS of the
# environment would replace ours.
STATIC := env -u RUSTFLAGS -u CARGO_ENCODED_RUSTFLAGS
STATIC_BUILD := $(CARGO) build --release --target $(HOST) \
	--config 'target.$(HOST).rustflags=["-Ctarget-feature=+crt-static","-Crelocation-model=static"]'
OPTIMISED := CARGO_PROFILE_RELEASE_LTO=fat CARGO_PROFILE_RELEASE_CODEGEN_UNITS=1

# One thing after the other: tests that wait for a machine do not like to share it.
.NOTPARALLEL:
.PHONY: help build check test test-here test-quick test-engines test-vm demo spec-tests bench fuzz stress man install packages static root

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
	$(CARGO) clippy -p runtime --features fault-points --test crash -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --workspace --no-deps
	$(CARGO) fmt --check --manifest-path runtime/fuzz/Cargo.toml
	cd runtime/fuzz && RUSTFLAGS='--cfg fuzzing -D warnings' CUSTOM_LIBFUZZER_PATH=/not/linked.a \
		$(abspath $(CARGO)) check

test: test-here test-quick ## all tests, as root: unit tests, real registries, engines, runtimes; and test-quick

test-here: root packages static
	RUNTIME_BIN=$(abspath $(RUNTIME)) $(CARGO) test --workspace --no-fail-fast
	$(CARGO) test -p runtime --features fault-points --test crash

# The programs of all tests of the runtime but those of engines and of other runtimes.
RUNTIME_TESTS = $$($(CARGO) test -p runtime --tests --no-run 2>&1 | \
	sed -n '/engines\|golden/d; s/^ *Executable tests.*(\(.*\))$$/\1/p')
IN_MACHINES = RUNTIME_BIN=$(abspath $(RUNTIME)) spec-tests/vm
CONFORMANCE = RUNTIME_STRICT=true $(SPEC_TESTS) --runtime $(RUNTIME)

test-quick: root packages static ## the runtime's tests and the conformance suite on a machine with cgroup version 2, AppArmor and Linux 6.1; its systemd tests where systemd runs
	$(IN_MACHINES)/quick --timeout 1800 -- spec-tests/vm/suite $(RUNTIME_TESTS)
	tests="$(RUNTIME_TESTS)" && $(IN_MACHINES)/quick --systemd -- spec-tests/vm/suite \
		$$(printf '%s\n' $$tests | grep '/systemd-')
	spec-tests/vm/quick -- env $(CONFORMANCE)

# `make test` runs them too. ENGINES_ROOT=FOLDER tests the engines of another Debian, whose root that is.
test-engines: root packages static ## containerd, Kubernetes' interface to it, Podman and Docker run containers through the runtime
	RUNTIME_BIN=$(abspath $(RUNTIME)) $(CARGO) test -p runtime --test engines

# QEMU without KVM is slow, so Debian's own kernels get what depends on a kernel or on systemd:
# 6.1 with all controllers, time namespaces and two processors; the controllers of cgroup version 1 that this
# machine may not have; a newer one.
test-vm: test-quick ## on Debian's own kernels too, 6.1 and trixie's, in QEMU: systemd as process 1, for root and a user; all controllers
	tests="$(RUNTIME_TESTS)" && $(IN_MACHINES)/full --systemd -- spec-tests/vm/suite \
		$$(printf '%s\n' $$tests | grep -vE '/(command_line|errors|stress)-')
	tests="$(RUNTIME_TESTS)" && $(IN_MACHINES)/full --cgroup-v1 -- spec-tests/vm/suite \
		$$(printf '%s\n' $$tests | grep -E '/(cgroups|resources)-')
	tests="$(RUNTIME_TESTS)" && $(IN_MACHINES)/full --systemd --kernel trixie -- spec-tests/vm/suite \
		$$(printf '%s\n' $$tests | grep -E '/(apparmor|cgroups|mounts|resources|systemd)-')
	spec-tests/vm/full --kernel trixie -- env $(CONFORMANCE)

# To the letter: without the variable our runtime does as runc does where engines count on it.
spec-tests: root static ## the conformance suite against the runtime; others: RUNTIME_UNDER_TEST=runc
	RUNTIME_STRICT=true $(SPEC_TESTS) --runtime $(or $(RUNTIME_UNDER_TEST),$(RUNTIME))

demo: root packages build ## an image, a registry, a pull and a container, step by step, as root
	.ci/demo $(MANAGER) $(RUNTIME)

bench: root packages static ## times the runtime beside crun and runc, as root; keeps the run in bench/runs
	bench/compare $(RUNTIME)
	bench/parallel $(RUNTIME)

# Coverage as libFuzzer wants it, on the stable toolchain; cargo fuzz gives the same flags and more.
SANCOV := --cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
	-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
	-Cllvm-args=-sanitizer-coverage-trace-compares
TARGETS := $(basename $(notdir $(wildcard runtime/fuzz/fuzz_targets/*.rs)))
SECONDS := 60

fuzz: ## fuzzes the runtime's readers, SECONDS=60 each; only one of them: TARGET=seccomp
	cd runtime/fuzz && RUSTFLAGS='$(SANCOV)' $(abspath $(CARGO)) build --release --target $(HOST)
	cd runtime/fuzz && for target in $(or $(TARGET),$(TARGETS)); do \
		mkdir -p corpus/$$target artifacts/$$target && \
		target/$(HOST)/release/$$target -max_total_time=$(SECONDS) -artifact_prefix=artifacts/$$target/ \
			-print_final_stats=1 corpus/$$target || exit 1; done

CONTAINERS := 1000

KILLS := 200

stress: root packages static ## CONTAINERS=1000 containers one after the other, and again eight at a time; pulls, pushes ... killed KILLS=200 times each
	STRESS_CONTAINERS=$(CONTAINERS) RUNTIME_BIN=$(abspath $(RUNTIME)) $(CARGO) test -p runtime --test stress
	STRESS_KILLS=$(KILLS) $(CARGO) test -p manager --test images killed::

man: static ## the runtime's man pages, in target/man
	rm -rf target/man && mkdir target/man && $(RUNTIME) man target/man

# What engines are told stands where none of them reads it by itself.
install: build man ## binaries, man pages, completion and settings for engines to PREFIX (/usr/local), below DESTDIR
	install -D -m 755 $(RUNTIME) $(DESTDIR)$(PREFIX)/bin/runtime
	install -D -m 755 $(MANAGER) $(DESTDIR)$(PREFIX)/bin/manager
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/man/man8 target/man/*.8
	install -d $(addprefix $(DESTDIR)$(PREFIX)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(RUNTIME) completion bash >$(DESTDIR)$(PREFIX)/share/bash-completion/completions/runtime
	$(RUNTIME) completion zsh >$(DESTDIR)$(PREFIX)/share/zsh/site-functions/_runtime
	$(RUNTIME) completion fish >$(DESTDIR)$(PREFIX)/share/fish/vendor_completions.d/runtime.fish
	cd contrib && for file in $$(find * -type f); do install -d $(DESTDIR)$(PREFIX)/share/runtime/$$(dirname $$file) && \
		sed 's,/usr/local/,$(PREFIX)/,' $$file >$(DESTDIR)$(PREFIX)/share/runtime/$$file || exit 1; done

packages:
	@.ci/packages

root:
	@[ "$$(id -u)" = 0 ] || { echo 'make: containers are made as root: sudo make $(MAKECMDGOALS)' >&2; exit 1; }
