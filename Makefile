# libraftkeel: build, check, demonstrate, install. `make help` lists the targets.
#
# Variables, to be set on the command line:
#   PREFIX        where it is installed                  /usr/local
#   BINDIR        keelctl                                $(PREFIX)/bin
#   LIBDIR        libraries                              $(PREFIX)/lib
#   INCLUDEDIR    the header                             $(PREFIX)/include
#   PKGCONFIGDIR  raftkeel.pc                            $(LIBDIR)/pkgconfig
#   DESTDIR       staging root, put before all of them   (none)
#   NODES         nodes of `make demo`, 3 or 5           3
#   HOURS         how long `make soak` runs              1
#   FUZZ_SECONDS  of `make fuzz`, for each target        60
#   FUZZ_TARGETS  of `make fuzz`                         all
#   CARGO, CARGOFLAGS (e.g. "--locked --offline"), INSTALL

PREFIX       ?= /usr/local
BINDIR       ?= $(PREFIX)/bin
LIBDIR       ?= $(PREFIX)/lib
INCLUDEDIR   ?= $(PREFIX)/include
PKGCONFIGDIR ?= $(LIBDIR)/pkgconfig
DESTDIR      ?=
NODES        ?= 3
HOURS        ?= 1
FUZZ_SECONDS ?= 60
FUZZ_TARGETS ?=
CARGO        ?= cargo
CARGOFLAGS   ?= --locked
INSTALL      ?= install

# Cargo.toml is the one place that knows the version.
VERSION := $(shell sed -n '/^version = /{s/.*"\(.*\)".*/\1/p;q}' Cargo.toml)
MAJOR   := $(word 1,$(subst ., ,$(VERSION)))
MINOR   := $(word 2,$(subst ., ,$(VERSION)))
# Before 1.0 every minor version may change the ABI, so the soname carries it.
SOVERSION := $(if $(filter 0,$(MAJOR)),0.$(MINOR),$(MAJOR))

LINKNAME := libraftkeel.so
SONAME   := $(LINKNAME).$(SOVERSION)
SOFILE   := $(LINKNAME).$(VERSION)
ARCHIVE  := libraftkeel.a
KEELCTL  := keelctl

TARGET := $(or $(CARGO_TARGET_DIR),target)
BUILD  := build
LIB    := $(BUILD)/lib
BIN    := $(BUILD)/bin
STAGE  := $(CURDIR)/$(BUILD)/stage
SOURCES := Makefile Cargo.toml Cargo.lock build.rs raftkeel.pc.in $(shell find src -name '*.rs')

# One crate type an invocation: with several at once cargo silently drops LTO.
RUSTC := $(CARGO) rustc $(CARGOFLAGS) --target-dir $(TARGET) --release --lib

# What the archive wants to be linked with, as the compiler says: test-install.sh compares.
NATIVE := $(abspath $(TARGET))/release/native-static-libs

# Every Rust test, in one profile: each crate is compiled once.
TESTS    := $(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --profile sim
PROGRAMS := $(sort $(basename $(notdir $(wildcard tests/*.rs) $(patsubst %/main.rs,%,$(wildcard tests/*/main.rs)))))

# The Rust program that measures: a package of its own, for it knows others' Raft too.
CORES := --manifest-path benches/core/Cargo.toml --target-dir $(TARGET)/cores

# What a stranger has: an installed library, found through pkg-config.
STRANGER := env PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig LD_LIBRARY_PATH=$(STAGE)/lib

# cargo and the C examples run in parallel by themselves; the steps of this file build on each other.
.NOTPARALLEL:
.DELETE_ON_ERROR:
.PHONY: all check check-fmt check-lint check-c check-install check-daemon \
        check-sim check-storage check-power check-tests \
        soak museum stage demo bench fuzz install uninstall clean help

all: $(LIB)/$(SOFILE) $(LIB)/$(ARCHIVE) $(BIN)/$(KEELCTL)

# The names are those of an installation, so that programs run against $(LIB) too.
$(LIB)/$(SOFILE): $(SOURCES)
	@scripts/setup.sh build
	$(RUSTC) --crate-type cdylib --config 'profile.release.lto="fat"' \
		-- -C link-arg=-Wl,-soname,$(SONAME)
	@mkdir -p $(LIB)
	cp $(TARGET)/release/$(LINKNAME) $@
	ln -sf $(SOFILE) $(LIB)/$(SONAME)
	ln -sf $(SONAME) $(LIB)/$(LINKNAME)

# No LTO here: it would clash with any other Rust archive in the same program
# (`multiple definition of rust_eh_personality`).
$(LIB)/$(ARCHIVE): $(SOURCES)
	@scripts/setup.sh build
	$(RUSTC) --crate-type staticlib -- --print native-static-libs=$(NATIVE)
	@mkdir -p $(LIB)
	cp $(TARGET)/release/$(ARCHIVE) $@

$(BIN)/$(KEELCTL): $(SOURCES)
	@scripts/setup.sh build
	$(CARGO) build $(CARGOFLAGS) --target-dir $(TARGET) --release --bin $(KEELCTL)
	@mkdir -p $(BIN)
	cp $(TARGET)/release/$(KEELCTL) $@

# Daemons spend their time waiting for dead times, and power cuts for disks, while the other lists want
# nothing but processors. Tests come last: what they print is what a reader looks for first.
check:
	@scripts/setup.sh check
	$(MAKE) check-fmt
	$(MAKE) check-lint
	@MAKE="$(MAKE)" scripts/side-by-side.sh \
		"check-c check-install check-daemon check-power" \
		"check-storage check-sim" \
		"check-tests"
	@echo "make check: everything passed"

check-fmt:
	$(CARGO) fmt --check
	$(CARGO) fmt --check --manifest-path benches/core/Cargo.toml
	$(CARGO) fmt --check --manifest-path fuzz/Cargo.toml

check-lint:
	$(CARGO) clippy $(CARGOFLAGS) --target-dir $(TARGET) --all-targets -- -D warnings
	$(CARGO) clippy $(CARGOFLAGS) $(CORES) -- -D warnings

check-c: stage
	for dir in c-examples benches; do for cc in clang gcc; do \
		$(MAKE) -C $$dir clean && $(STRANGER) $(MAKE) -C $$dir CC=$$cc || exit 1; \
	done; done

check-install: all
	scripts/test-install.sh

# The C examples as real processes: about five minutes, most of them dead times.
check-daemon: stage
	$(STRANGER) $(MAKE) -C c-examples
	$(STRANGER) tests/sx/run.sh

# Simulated clusters: 20,000 of the bare core; then whole members behind their C functions. Counted in
# seeds, not in time: how much is checked must not depend on what else the machine does.
check-sim:
	RAFTKEEL_SEEDS=20000 $(TESTS) --test sim -- --nocapture --skip through_the_c_interface
	RAFTKEEL_SEEDS=2500 $(TESTS) --test sim -- --nocapture through_the_c_interface

# Everything that power and rot can do to a small log directory: about two minutes.
check-storage:
	RAFTKEEL_SWEEP=all $(TESTS) --lib -- --nocapture --test-threads 1 storage::dir::tests::sweep

# Power cuts on ext4 and xfs in loop devices, and system calls that fail: two minutes, as root.
check-power:
	RAFTKEEL_CUTS=200 $(TESTS) --test power -- --nocapture --test-threads 1

# What check-sim does, for as long as one likes, in seeds that nobody has run before: the core and whole
# members side by side; before it ten times the power cuts of check-power.
soak:
	RAFTKEEL_CUTS=2000 RAFTKEEL_SEED=$$(date +%s) $(TESTS) --test power -- \
		--nocapture --test-threads 1 no_power_cut
	RAFTKEEL_HOURS=$(HOURS) $(TESTS) --test sim -- --nocapture --test-threads 2 no_promise_is_broken

# Every deliberate bug must be found by the simulator: about ten minutes.
museum:
	scripts/museum.sh

# All but what check-sim and check-power do at length.
check-tests:
	$(TESTS) --no-fail-fast --lib --bins \
		$(addprefix --test ,$(filter-out sim power,$(PROGRAMS)))
	$(TESTS) --doc

stage: all
	@rm -rf $(STAGE)
	@$(MAKE) -s --no-print-directory install DESTDIR= PREFIX=$(STAGE) BINDIR=$(STAGE)/bin \
		LIBDIR=$(STAGE)/lib INCLUDEDIR=$(STAGE)/include PKGCONFIGDIR=$(STAGE)/lib/pkgconfig

demo:
	@scripts/setup.sh demo
	@$(MAKE) --no-print-directory stage
	@$(STRANGER) $(MAKE) --no-print-directory -C c-examples
	@$(STRANGER) c-examples/demo.sh $(NODES)

bench:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory stage
	@$(STRANGER) $(MAKE) --no-print-directory -C c-examples
	@$(STRANGER) $(MAKE) --no-print-directory -C benches
	@$(CARGO) build $(CARGOFLAGS) --quiet $(CORES) --release
	@cp $(TARGET)/cores/release/cores $(BUILD)/benches/
	@$(STRANGER) benches/run.sh $(abspath $(TARGET))/bench.json

fuzz:
	@CARGO="$(CARGO)" scripts/fuzz.sh $(FUZZ_SECONDS) $(FUZZ_TARGETS)

# Needs no cargo once `make` has run: root often has none.
install: all
	$(INSTALL) -d $(DESTDIR)$(BINDIR) $(DESTDIR)$(LIBDIR) $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(PKGCONFIGDIR)
	$(INSTALL) -m 755 $(BIN)/$(KEELCTL) $(DESTDIR)$(BINDIR)/$(KEELCTL)
	$(INSTALL) -m 755 $(LIB)/$(SOFILE) $(DESTDIR)$(LIBDIR)/$(SOFILE)
	ln -sf $(SOFILE) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/$(LINKNAME)
	$(INSTALL) -m 644 $(LIB)/$(ARCHIVE) $(DESTDIR)$(LIBDIR)/$(ARCHIVE)
	$(INSTALL) -m 644 include/raftkeel.h $(DESTDIR)$(INCLUDEDIR)/raftkeel.h
	sed -e 's|@PREFIX@|$(PREFIX)|' -e 's|@VERSION@|$(VERSION)|' \
	    -e 's|@LIBDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(LIBDIR))|' \
	    -e 's|@INCLUDEDIR@|$(patsubst $(PREFIX)/%,$${prefix}/%,$(INCLUDEDIR))|' \
	    raftkeel.pc.in > $(DESTDIR)$(PKGCONFIGDIR)/raftkeel.pc
	chmod 644 $(DESTDIR)$(PKGCONFIGDIR)/raftkeel.pc

uninstall:
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(SOFILE) $(SONAME) $(LINKNAME) $(ARCHIVE)) \
	      $(DESTDIR)$(BINDIR)/$(KEELCTL) $(DESTDIR)$(INCLUDEDIR)/raftkeel.h \
	      $(DESTDIR)$(PKGCONFIGDIR)/raftkeel.pc

clean:
	$(CARGO) clean --target-dir $(TARGET)
	rm -rf $(BUILD)

help:
	@echo "make                         libraftkeel.so, libraftkeel.a and keelctl, in $(BUILD)/"
	@echo "make check                   every test: format, lints, C examples, installation, daemon, cargo test"
	@echo "make check-sim               of these only the simulated clusters (4 minutes)"
	@echo "make check-storage           of these only the sweeps over power cuts and rot (2 minutes)"
	@echo "make check-power             of these only the power cuts on real file systems (2 minutes, root)"
	@echo "make soak [HOURS=1]          simulated clusters for hours, in seeds that nobody has run before"
	@echo "make museum                  bugs put into the Raft core, each of which must be found"
	@echo "make check-daemon            of these only the C examples, and the failover of real daemons (5 minutes)"
	@echo "make demo [NODES=5]          failover of real daemons on this machine, as a story"
	@echo "make bench                   measurements, each with its target; also as $(TARGET)/bench.json"
	@echo "make fuzz [FUZZ_SECONDS=60]  fuzzes every decoder, each so long (needs a nightly compiler); [FUZZ_TARGETS=]"
	@echo "make install [PREFIX=$(PREFIX)] [BINDIR= LIBDIR= INCLUDEDIR= PKGCONFIGDIR= DESTDIR=]"
	@echo "make uninstall               with the same variables"
	@echo "make clean                   removes $(TARGET)/ and $(BUILD)/"
