#!/bin/sh
# Builds the Python or the JavaScript examples: `build-languages.sh python`, and the plugin of tests/guests/languages that
# knows nothing of Larder. Installs its tools, whose versions are pinned in
# the example's folder, from PyPI or npm into target/languages. If they cannot be installed, it prints the reason and exits
# with 0, or with 1 in CI.
set -eu
cd "$(dirname "$0")/.."

built=target/languages

# CI must not pass without these plugins. Elsewhere the tests report what they skipped.
give_up() {
  printf 'larder: %s\n' "$*" >&2
  [ "${CI:-}" = true ] && exit 1
  exit 0
}

# The WIT of the plugin with the interface as a dependency. Each language has its own copy, because both may be built at the
# same time.
wit=$built/$1-wit
served_wit=$built/$1-served-wit
keyvalue_wit=$built/$1-keyvalue-wit
mkdir -p "$wit/deps" "$served_wit/deps" "$keyvalue_wit/deps"
cp examples/wit/plugin.wit "$wit/"
cp "examples/wit/served-$1.wit" "$served_wit/"
cp wit/cache.wit "$wit/deps/"
cp wit/cache.wit "$served_wit/deps/"
cp tests/guests/languages/keyvalue.wit "$keyvalue_wit/"
for interface in keyvalue-draft2 config-rc1; do
  cp host/runtime/foreign-wit/$interface/package.wit "$keyvalue_wit/deps/$interface.wit"
done

# The tools are installed again when their pinned versions change.
case $1 in
python)
  tools=$built/venv
  pins=examples/python/requirements.txt
  if ! cmp -s "$pins" "$tools/installed"; then
    rm -rf "$tools"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || give_up "cannot find Python 3.10 or later"
    python3 -m venv "$tools" || give_up "python3 cannot create a venv; on Debian, install the package python3-venv"
    "$tools/bin/pip" install --quiet --requirement "$pins" || give_up "pip cannot install componentize-py"
    cp "$pins" "$tools/installed"
  fi
  # Build from a copy, because Python writes compiled modules next to their sources.
  mkdir -p "$built/python"
  cp examples/python/*.py tests/guests/languages/keyvalue.py "$built/python/"
  "$tools/bin/componentize-py" --quiet --wit-path "$wit" --world plugin \
    componentize --python-path "$built/python" plugin --output "$built/python.wasm.new"
  "$tools/bin/componentize-py" --quiet --wit-path "$served_wit" --world served \
    componentize --python-path "$built/python" served --output "$built/python-served.wasm.new"
  "$tools/bin/componentize-py" --quiet --wit-path "$keyvalue_wit" --world keyvalue \
    componentize --python-path "$built/python" keyvalue --output "$built/python-keyvalue.wasm.new"
  ;;
javascript)
  tools=$built/npm
  pins=examples/javascript/package-lock.json
  if ! cmp -s "$pins" "$tools/installed"; then
    rm -rf "$tools"
    mkdir -p "$tools"
    command -v npm >/dev/null || give_up "cannot find npm"
    cp "$pins" examples/javascript/package.json "$tools/"
    # Decision: docs/decisions/0040-the-javascript-example-is-built-with-componentize-qjs.md
    npm ci --prefix "$tools" --loglevel=error --no-audit --no-fund >/dev/null || give_up "npm cannot install componentize-qjs"
    cp "$pins" "$tools/installed"
  fi
  "$tools/node_modules/.bin/componentize-qjs" --sync --wit "$wit" --world plugin \
    --js examples/javascript/plugin.js --output "$built/javascript.wasm.new" >/dev/null
  "$tools/node_modules/.bin/componentize-qjs" --sync --wit "$served_wit" --world served \
    --js examples/javascript/served.js --output "$built/javascript-served.wasm.new" >/dev/null
  "$tools/node_modules/.bin/componentize-qjs" --sync --wit "$keyvalue_wit" --world keyvalue \
    --js tests/guests/languages/keyvalue.js --output "$built/javascript-keyvalue.wasm.new" >/dev/null
  ;;
esac
# Rename only the complete files, so that an interrupted build leaves no broken plugin.
mv "$built/$1-keyvalue.wasm.new" "$built/$1-keyvalue.wasm"
mv "$built/$1-served.wasm.new" "$built/$1-served.wasm"
mv "$built/$1.wasm.new" "$built/$1.wasm"
