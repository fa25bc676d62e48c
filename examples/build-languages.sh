#!/bin/sh
# Builds the plugin in Python or in JavaScript: `build-languages.sh python`. Its tools, pinned in the example's folder, come
# from PyPI or npm into target/languages; where they cannot be had it says so and goes on, except in CI.
set -eu
cd "$(dirname "$0")/.."

built=target/languages

# CI must not pass without its plugins; at a desk the tests say what they skipped.
give_up() {
  printf 'larder: %s\n' "$*" >&2
  [ "${CI:-}" = true ] && exit 1
  exit 0
}

# The world, with the interface beside it as a dependency. Of each language its own: both may be built at once.
wit=$built/$1-wit
mkdir -p "$wit/deps"
cp examples/wit/plugin.wit "$wit/"
cp wit/cache.wit "$wit/deps/"

# What is pinned is installed again when the pins change.
case $1 in
python)
  tools=$built/venv
  pins=examples/python/requirements.txt
  if ! cmp -s "$pins" "$tools/installed"; then
    rm -rf "$tools"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || give_up "no Python 3.10 or later here"
    python3 -m venv "$tools" || give_up "python3 cannot make a venv; on Debian the package python3-venv is missing"
    "$tools/bin/pip" install --quiet --requirement "$pins" || give_up "pip could not install componentize-py"
    cp "$pins" "$tools/installed"
  fi
  # From a copy: compiled modules are written beside their sources.
  mkdir -p "$built/python"
  cp examples/python/*.py "$built/python/"
  "$tools/bin/componentize-py" --quiet --wit-path "$wit" --world plugin \
    componentize --python-path "$built/python" plugin --output "$built/python.wasm.new"
  ;;
javascript)
  tools=$built/npm
  pins=examples/javascript/package-lock.json
  if ! cmp -s "$pins" "$tools/installed"; then
    rm -rf "$tools"
    mkdir -p "$tools"
    command -v npm >/dev/null || give_up "no npm here"
    cp "$pins" examples/javascript/package.json "$tools/"
    # Decision: docs/decisions/0040-the-javascript-example-is-built-with-componentize-qjs.md
    npm ci --prefix "$tools" --loglevel=error --no-audit --no-fund >/dev/null || give_up "npm could not install componentize-qjs"
    cp "$pins" "$tools/installed"
  fi
  "$tools/node_modules/.bin/componentize-qjs" --sync --wit "$wit" --world plugin \
    --js examples/javascript/plugin.js --output "$built/javascript.wasm.new" >/dev/null
  ;;
esac
# Only whole, so that a build that was stopped is not taken for one.
mv "$built/$1.wasm.new" "$built/$1.wasm"
