#!/bin/sh
# Installs valkey-server and redis-server where the system's package manager can, on Linux also Valgrind, which counts
# instructions, and for CI the other programs that tests run; only what is missing. Where its valkey-server is older than
# 8.1, a newer one comes into target/servers, and where it is older than 9, one of that version: for the tests alone.
# The tests start processes of their own; the services that the packages bring are kept from starting.
set -eu

say() { printf 'larder: %s\n' "$*" >&2; }
have() { command -v "$1" >/dev/null 2>&1; }

needed="valkey-server redis-server"
if [ "$(uname)" = Linux ]; then
  needed="$needed valgrind"
  # CI skips no test, so it needs what checks the completions, the man pages, the systemd unit, the alarms, the dashboard
  # and the book.
  [ "${CI:-}" != true ] || needed="$needed zsh fish man systemd-analyze prometheus chromium"
fi
missing=""
for program in $needed; do
  have "$program" || missing="$missing $program"
done

# CI must not pass without its servers. Elsewhere the tests report what they skipped.
give_up() {
  say "$*"
  [ "${CI:-}" = true ] && exit 1
  exit 0
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; elif have sudo; then sudo "$@"; else
    give_up "not root and no sudo: install by hand:$missing"
  fi
}

# The Debian package of a program.
package_of() {
  case $1 in
  man) echo man-db ;;
  systemd-analyze) echo systemd ;;
  *) echo "$1" ;;
  esac
}

has_candidate() {
  apt-cache policy "$1" 2>/dev/null | grep -q 'Candidate: [^(]'
}

# The archive this machine already uses, in either form of apt's sources.
debian_mirror() {
  for file in /etc/apt/sources.list.d/*.sources; do
    [ -f "$file" ] && sed -n 's/^URIs: *\([^ ]*\/debian\/*\) *$/\1/p' "$file"
  done
  for file in /etc/apt/sources.list /etc/apt/sources.list.d/*.list; do
    [ -f "$file" ] && sed -n 's/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*\/debian\/*\) .*/\2/p' "$file"
  done
}

install_with_apt() {
  as_root apt-get update -qq || say "apt-get update failed; trying with the lists at hand"
  if ! have valkey-server && ! has_candidate valkey-server; then
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    mirror=$(debian_mirror | head -n 1)
    if [ "$codename" = bookworm ] && [ -n "$mirror" ]; then
      say "adding $codename-backports, which has valkey-server (/etc/apt/sources.list.d/larder-backports.list)"
      keyring=/usr/share/keyrings/debian-archive-keyring.gpg
      printf 'deb [signed-by=%s] %s %s-backports main\n' "$keyring" "$mirror" "$codename" |
        as_root tee /etc/apt/sources.list.d/larder-backports.list >/dev/null
      as_root apt-get update -qq
    fi
  fi
  # Exit status 101 of policy-rc.d means "do not start services".
  policy=/usr/sbin/policy-rc.d
  ours=""
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod +x "$policy"
    ours=yes
  fi
  for program in $missing; do
    package=$(package_of "$program")
    say "installing $package"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$package" >/dev/null ||
      say "apt-get could not install $package"
  done
  [ -z "$ours" ] || as_root rm -f "$policy"
}

install_with_brew() {
  for package in $missing; do
    formula=${package%-server}
    say "installing $formula"
    # Both formulas link redis-cli; a keg that is not linked is found through its prefix.
    brew install --quiet "$formula" || say "brew could not install $formula"
  done
}

# Whether this program is a Valkey of this version or a later one. 8.1 compares and sets in one command; 9.0 moves slots in
# one step.
is_valkey() {
  "$1" --version 2>/dev/null | sed -n 's/^Valkey .*v=\([0-9]*\)\.\([0-9]*\).*/\1 \2/p' | {
    read -r major minor && { [ "$major" -gt "$2" ] || { [ "$major" -eq "$2" ] && [ "$minor" -ge "$3" ]; }; }
  }
}

# Unpacks the valkey-server of a release of Debian into a folder: the packages with the system libraries, which touch nothing
# of this system.
unpack_valkey() {
  mirror=$(debian_mirror | head -n 1)
  keyring=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -n "$mirror" ] && [ -f "$keyring" ] || return 1
  mkdir -p "$2"
  into=$(cd "$2" && pwd)
  work=$into/apt
  rm -rf "$work" "$into/unpacked" "$into/valkey-server"
  mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$into/unpacked"
  printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$mirror" "$1" >"$work/sources.list"
  : >"$work/status"
  # Told of no installed package, apt downloads everything that the server needs.
  apt() {
    apt-get -qq -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
      -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" -o Dir::Cache="$work/cache" \
      -o APT::Sandbox::User= -o Debug::NoLocking=true "$@" >/dev/null
  }
  apt update && apt install --download-only --no-install-recommends -y valkey-server || return 1
  for package in "$work"/cache/archives/*.deb; do dpkg-deb -x "$package" "$into/unpacked"; done
  rm -rf "$work"
  loader=$(find "$into/unpacked/usr/lib" -name 'ld-linux*' -type f | head -n 1)
  [ -n "$loader" ] || return 1
  printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
    "$loader" "$(dirname "$loader")" "$into/unpacked/usr/bin/valkey-server" >"$into/valkey-server"
  chmod +x "$into/valkey-server"
}

if [ -z "$missing" ]; then :
elif have apt-get; then install_with_apt
elif have brew; then install_with_brew
else give_up "no apt-get or brew here; install with your package manager:$missing"
fi

# Debian 13 has Valkey 8.1, and its successor Valkey 9.
# unpack VERSION FOLDER RELEASE...   in the first of these releases of Debian that has a valkey-server of that version
unpack() {
  version=$1
  folder=$2
  shift 2
  major=${version%.*}
  minor=${version#*.}
  if is_valkey valkey-server "$major" "$minor" || is_valkey "$folder/valkey-server" "$major" "$minor"; then return; fi
  say "unpacking Valkey $version or later into $folder"
  for release in "$@"; do
    if have apt-get && unpack_valkey "$release" "$folder" && is_valkey "$folder/valkey-server" "$major" "$minor"; then return; fi
  done
  give_up "could not unpack Valkey $version; the tests that need it are skipped"
}
servers=$(dirname "$0")/../target/servers
unpack 8.1 "$servers" trixie
unpack 9.0 "$servers/valkey-9" forky sid

still=""
for program in $needed; do
  have "$program" || still="$still $program"
done
[ -z "$still" ] || give_up "could not install:$still; install by hand (Valkey 7.2 or later, Redis 7.0 or later)"
