# Two commands: `make demo` runs a plugin on the embedded RAM cache; `make test` runs every test. Both do all set-up.

CARGO ?= cargo
GUESTS = -p larder-test-guests -p memoise
WASM = target/wasm32-wasip2/release

.PHONY: demo test guests servers target

demo: target
	$(CARGO) build -p larder-host
	$(CARGO) build --release --target wasm32-wasip2 -p memoise
	target/debug/larder run $(WASM)/memoise.wasm

test: servers guests
	$(CARGO) build -p larder-host
	$(CARGO) test --workspace

# Plugins are built here and not by the tests, so that no cargo runs inside another.
guests: target
	$(CARGO) build --release --target wasm32-wasip2 $(GUESTS)

# The toolchain file names the target; a cargo without rustup must have it already.
target:
	@if command -v rustup >/dev/null; then rustup target add wasm32-wasip2; fi

servers:
	@tests/install-servers.sh
