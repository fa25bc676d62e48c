# `make demo` runs a plugin on the embedded RAM cache, with no server; `make test` runs every test. Both do all set-up
# themselves, and say what they install.

CARGO ?= cargo
WASM_TARGET = wasm32-wasip2
# Selected beside any package that is built alone, so that its dependencies are those of all other builds here.
FEATURES = -p larder-build-features
EXAMPLES = -p guide -p hello-cache -p memoise -p two-caches -p async-closure -p exported-function -p http-pages -p http-rates -p http-json -p http-concurrent
# What builds for this machine, with the fuzz targets.
NATIVE = -p larder -p larder-macros -p larder-cache -p larder-host -p larder-cli -p embed-host -p larder-tests -p larder-fuzz $(FEATURES)
GUESTS = $(EXAMPLES) -p larder-test-guests -p larder-test-exports -p larder-test-bench -p larder-test-attack -p larder-test-concurrent -p larder-test-foreign -p larder-test-foreign-async

# The `wasmtime` that `larder serve` is compared with: in the version of the library that Larder uses.
WASMTIME_VERSION = $(shell sed -n '/^name = "wasmtime"$$/{n;s/version = "\(.*\)"/\1/p;}' Cargo.lock)
OWN_WASMTIME = target/tools/wasmtime-$(WASMTIME_VERSION)/bin/wasmtime
WASMTIME_FEATURES = run,compile,serve,backtrace,parallel-compilation,pooling-allocator,logging,demangle,profiling,coredump,addr2line,debug-builtins,component-model,component-model-async,threads,gc,gc-copying,gc-drc,gc-null,stack-switching,pulley,debug

# The program under test sends traces; a release does not.
WITH_TRACES = --features larder-cli/otlp

.PHONY: advisories book book-check demo deny dist test bench bench-near bench-serve bench-siege bench-stale near-variants plots fuzz guests interface languages package packages servers target templates lint doc release

demo: target
	$(CARGO) build --locked -p larder-cli $(FEATURES)
	$(CARGO) build --locked --release --target $(WASM_TARGET) -p memoise
	target/debug/larder run target/$(WASM_TARGET)/release/memoise.wasm

# Most tests wait for a server or a clock, so that more of them run at once than there are cores.
test: export RUST_TEST_THREADS ?= 8

# The programs come first: the tests run them, and cargo would not build them for another package's tests.
test: servers guests languages templates
	$(CARGO) build --locked $(WITH_TRACES)
	$(CARGO) test --locked $(WITH_TRACES)

# Built as a release is, which takes minutes the first time; the measuring takes some more. docs/performance.md explains
# what it prints; `make bench PART=ram` does a part, and `make bench RESULTS=docs/performance/results.json plots` brings that
# page up to date.
PART ?=
bench: servers guests
	$(CARGO) build --locked --release --bin larder
	LARDER_RESULTS=$(if $(RESULTS),$(abspath $(RESULTS))) $(CARGO) bench --locked --bench speed -- $(PART)

# The benchmarks of the near tier: `make bench-near PART=hits` does a part, and `make bench-near
# RESULTS=docs/performance/near.json plots` brings that page up to date.
bench-near: servers guests
	$(CARGO) build --locked --release --bin larder
	LARDER_RESULTS=$(if $(RESULTS),$(abspath $(RESULTS))) $(CARGO) bench --locked --bench near -- $(PART)

# Draws the tables and plots of docs/performance.md from the results beside it, and the pictures of the other pages.
plots:
	docs/performance/draw.py
	docs/pictures/draw.py

# `larder serve` under load, in turns with `wasmtime serve`; the measuring takes five minutes. `make bench-serve
# WASMTIME=path` names another `wasmtime` program, `PART=scale` does a part, and `make bench-serve
# RESULTS=docs/performance/serve.json plots` brings the page up to date.
WASMTIME ?=
bench-serve: servers guests $(if $(WASMTIME),,$(OWN_WASMTIME))
	$(CARGO) build --locked --release --bin larder
	LARDER_RESULTS=$(if $(RESULTS),$(abspath $(RESULTS))) WASMTIME=$(or $(WASMTIME),$(abspath $(OWN_WASMTIME))) \
		$(CARGO) bench --locked --bench serve -- $(PART)

# The features of wasmtime's release that a request could notice: those that only add a subcommand or another compiler are
# left out. The profile is that of its release, too.
$(OWN_WASMTIME):
	CARGO_PROFILE_RELEASE_STRIP=debuginfo CARGO_PROFILE_RELEASE_PANIC=abort \
		$(CARGO) install --locked --root $(OWN_WASMTIME:/bin/wasmtime=) --no-default-features \
		--features $(WASMTIME_FEATURES) wasmtime-cli@$(WASMTIME_VERSION)

# `larder serve` while plugins, clients and readers misbehave; `LARDER_PROGRAM=path` measures another build.
bench-siege: servers guests
	$(CARGO) build --locked --release --bin larder
	$(CARGO) bench --locked --bench siege

# Stale values in four processes, which takes five minutes; `LARDER_STALE_SECONDS=10` shortens it, and `make bench-stale
# RESULTS=docs/performance/stale.json plots` brings the page up to date.
bench-stale: servers guests
	$(CARGO) build --locked --release --bin larder
	LARDER_RESULTS=$(if $(RESULTS),$(abspath $(RESULTS))) $(CARGO) bench --locked --bench stale

# Shows that the histories of the near tier refuse variants in which one of its rules is missing: each is built, with the
# dependencies of the tests, and played against. `make near-variants RUNS=10` plays each ten times.
RUNS ?= 1
near-variants: servers guests
	$(CARGO) test --locked $(WITH_TRACES) --no-run --test behaviour
	@tests/near-variants/run.sh $(RUNS)

# Fuzzes one target of fuzz/fuzz_targets: `make fuzz TARGET=glob SECONDS=600`. What it finds on its way is kept in
# fuzz/found, which is not in the repository, and an input that fails in fuzz/artifacts; the corpus in the repository is
# only read. Needs a nightly toolchain and a C++ compiler. No sanitizer: our unsafe calls are for wasmtime and glibc to check.
TARGET ?= glob
SECONDS ?= 60
fuzz: guests
	@command -v cargo-fuzz >/dev/null || $(CARGO) install --locked cargo-fuzz
	@mkdir -p fuzz/found/$(TARGET)
	CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_STRIP=none LARDER_COMPILED=off \
		$(CARGO) +nightly fuzz run --sanitizer none --codegen-units 16 $(TARGET) fuzz/found/$(TARGET) fuzz/corpus/$(TARGET) \
		-- -max_total_time=$(SECONDS) -timeout=10 -max_len=$(if $(filter component,$(TARGET)),16384,4096)

# Plugins are built here and not by the tests, so that no cargo runs inside another.
guests: target
	$(CARGO) build --locked --release --target $(WASM_TARGET) $(GUESTS)

# The plugins in Python and JavaScript, whose tools come from PyPI and npm; where those cannot be had it says so.
languages: target/languages/python.wasm target/languages/javascript.wasm

LANGUAGE_INPUTS = examples/build-languages.sh $(wildcard examples/wit/*.wit) wit/cache.wit $(wildcard tests/guests/languages/*)
target/languages/python.wasm: $(LANGUAGE_INPUTS) $(wildcard examples/python/*.py examples/python/*.txt)
	@examples/build-languages.sh python
target/languages/javascript.wasm: $(LANGUAGE_INPUTS) $(wildcard examples/javascript/*.js examples/javascript/*.json)
	@examples/build-languages.sh javascript

# A plugin of each language as `larder new` writes it, built by the commands that it prints.
templates: $(foreach kind,rust python javascript rust-http python-http javascript-http,target/templates/$(kind).wasm)

TEMPLATE_INPUTS = tests/build-templates.sh host/cli/src/commands/new.rs host/cli/src/commands/new/sdk.rs host/cli/src/commands/language.rs $(shell find host/cli/templates wit -type f)
target/templates/%.wasm: $(TEMPLATE_INPUTS) | target languages
	$(CARGO) build --locked $(WITH_TRACES)
	@tests/build-templates.sh $*

# Without rustup the toolchain must have the target already.
target:
	@if command -v rustup >/dev/null; then \
		rustup target list --installed | grep -qx $(WASM_TARGET) || rustup target add $(WASM_TARGET); \
	fi

servers:
	@tests/install-servers.sh

lint: target
	$(CARGO) clippy --locked --all-targets $(WITH_TRACES) $(NATIVE) -- -D warnings
	$(CARGO) clippy --locked -p larder-host $(FEATURES) -- -D warnings
	$(CARGO) clippy --locked -p larder-cli $(FEATURES) -- -D warnings
	$(CARGO) clippy --locked --target $(WASM_TARGET) $(GUESTS) -- -D warnings

# Checks the licenses, the sources and the banned packages of all dependencies, by the rules in deny.toml.
DENY = target/tools/bin/cargo-deny
deny: $(DENY)
	$(DENY) --locked check licenses bans sources

# Checks the dependencies for known vulnerabilities. It downloads the RustSec database, so `.ci/run` does it only with
# `LARDER_ADVISORIES=1`.
advisories: $(DENY)
	$(DENY) --locked check advisories

# It runs for seconds, so a release build would not pay.
$(DENY):
	$(CARGO) install --locked --debug --config profile.dev.debug=false --root target/tools cargo-deny@0.20.2

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps -p larder -p larder-cache -p larder-host $(FEATURES) \
		--features larder-host/opentelemetry,larder-host/schema
	.ci/public-items $(UPDATE)

# Writes the page of the interface, and each crate's copy of the WIT, from wit/cache.wit, and the program's copy of the SDK.
interface:
	LARDER_UPDATE=1 $(CARGO) test --locked $(WITH_TRACES) --test project -- --exact \
		documents::interface::the_page_of_the_interface_is_that_of_the_wit release::each_crate_has_the_wit_and_the_licence_in_it \
		sdk::the_sdk_of_the_program_is_a_copy_of_the_crate sdk::its_manifests_are_those_of_the_crates

# The pages of docs/ as a book in target/book/docs, with the files that they link to beside it. Needs mdbook, which is
# built the first time; the book itself needs nothing of the network.
MDBOOK = target/tools/bin/mdbook
book: $(MDBOOK)
	$(MDBOOK) build
	@cp -R deploy examples target/book/
	@echo "target/book/docs/index.html"

# Reads the book in a real browser, Chromium: pages, console, links, pictures, search, and the width of a phone.
# `make book-check SCREENSHOTS=target/book/screenshots` also takes pictures of some pages.
SCREENSHOTS ?=
book-check: book servers
	@tests/browse-book.py target/book $(if $(SCREENSHOTS),--screenshots $(SCREENSHOTS))

# It runs for seconds, so a release build would not pay.
$(MDBOOK):
	$(CARGO) install --locked --debug --config profile.dev.debug=false --root target/tools --no-default-features \
		--features search mdbook@0.5.4

# `larder --version` names the commit.
release: export LARDER_COMMIT ?= $(shell git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null)
release:
	$(CARGO) build --locked --release -p larder-cli

# The program as a release hands it out, in target/dist.
dist: release
	@.ci/dist target/release/larder target/dist

# The same for npm and pip, in target/packages. Each platform's package is made from its archive: a release has them all in
# target/dist.
packages: dist
	@.ci/packages target/dist target/packages

# Packages the crates as for publication and compiles each package, which takes minutes.
package:
	$(CARGO) package --locked -p larder-macros -p larder -p larder-cache -p larder-host -p larder-cli
