#!/bin/sh
# Makes a plugin by `larder new`, in one language, and builds it by the commands that this prints:
# `build-templates.sh python`, or `python-http` for one that serves HTTP. Its tools are those of `make languages`.
set -eu
cd "$(dirname "$0")/.."

root=$PWD
built=$root/target/templates
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
mkdir -p "$built"
cd "$folder"

# What installs tools is left out, and what runs the plugin is for the tests.
build() {
  sed -n 's/^    //p' commands | grep -Ev '^(rustup|python3 -m venv|venv/bin/pip|npm ci|larder) ?' >build
  sh -eu build >/dev/null
}

language=${1%-http}
http=
[ "$language" = "$1" ] || http=--http
case $language in
rust)
  "$root/target/debug/larder" new greeter $http >commands
  # The toolchain and the versions that are here already.
  cp "$root/rust-toolchain.toml" "$root/Cargo.lock" greeter/
  export CARGO_TARGET_DIR="$built/cargo"
  build
  if cargo fmt --version >/dev/null 2>&1; then (cd greeter && cargo fmt --check); fi
  plugin=$CARGO_TARGET_DIR/wasm32-wasip2/release/greeter.wasm
  ;;
python | javascript)
  case $language in
  python) tools=$root/target/languages/venv link=venv installed=$tools/installed ;;
  javascript) tools=$root/target/languages/npm/node_modules link=node_modules installed=$root/target/languages/npm/installed ;;
  esac
  # Not only begun to be installed.
  if [ ! -e "$installed" ]; then
    printf 'larder: no plugin in %s: its tools are not here\n' "$language" >&2
    [ "${CI:-}" = true ] && exit 1
    exit 0
  fi
  "$root/target/debug/larder" new greeter $http --lang "$language" >commands
  ln -s "$tools" "greeter/$link"
  build
  plugin=greeter/greeter.wasm
  ;;
esac
# Only whole, so that a build that was stopped is not taken for one.
cp "$plugin" "$built/$1.wasm.new"
mv "$built/$1.wasm.new" "$built/$1.wasm"
