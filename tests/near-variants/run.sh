#!/bin/sh
# Builds each broken variant of the near tier, and runs the histories of `tests/behaviour/servers/near_history` against it.
# Fails unless each variant is refused. The builds are in target/near-variants.
#
#   run.sh [RUNS] [VARIANT...]   the number of runs of each, by default one, and the variants, by default all
set -eu

cd "$(dirname "$0")/../.."
root=$PWD
work=$root/target/near-variants
runs=${1:-1}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- $(ls tests/near-variants | sed -n 's/\.patch$//p')

mkdir -p "$work"
rm -rf "$work/tree"
mkdir "$work/tree"
# With new times, so that what an earlier variant has changed is built again.
git ls-files -z --cached --others --exclude-standard -- Cargo.toml Cargo.lock rust-toolchain.toml .cargo \
  wit host guest-sdk examples tests fuzz | tar --null -T - -c | tar -x -m -C "$work/tree"
# The dependencies are built already.
[ -d "$work/target" ] || { mkdir "$work/target" && cp -R -p "$root/target/debug" "$work/target/debug"; }

# The folder is not in a repository for git, which would apply nothing there.
export GIT_CEILING_DIRECTORIES="$work"
missed=""
for variant in "$@"; do
  patch="$root/tests/near-variants/$variant.patch"
  git -C "$work/tree" apply "$patch"
  (cd "$work/tree" && CARGO_TARGET_DIR="$work/target" cargo build --locked --quiet --features larder-cli/otlp 2>"$work/build.log") ||
    { cat "$work/build.log" >&2; exit 1; }
  git -C "$work/tree" apply -R "$patch"
  caught=0
  rules=""
  for _ in $(seq "$runs"); do
    if LARDER_PROGRAM="$work/target/debug/larder" cargo test --locked --quiet --features larder-cli/otlp --test behaviour \
      keeps_the_promises_of_the_near_tier >"$work/$variant.log" 2>&1; then
      continue
    fi
    if broken=$(grep -o 'broken: P[1-4]' "$work/$variant.log"); then
      caught=$((caught + 1))
      rules="$rules $(echo "$broken" | sed 's/broken: //')"
    else
      tail -50 "$work/$variant.log" >&2
    fi
  done
  echo "$variant: refused in $caught of $runs runs, by $(printf '%s\n' $rules | sort | uniq -c | sed 's/^ *\([0-9]*\) \(.*\)/\2 (\1)/' | paste -sd ' ' -)"
  [ "$caught" -eq "$runs" ] || missed="$missed $variant"
done
[ -z "$missed" ] || { echo "not refused in every run:$missed" >&2; exit 1; }
