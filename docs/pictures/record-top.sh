#!/usr/bin/env bash
# Records the screen of `larder top` for docs/pictures/draw.py: `record-top.sh target/debug/larder`. Serves two examples with a
# RAM cache and a Valkey cache with a near tier, sends them requests for 20 seconds, and writes what tmux then shows to top.ansi.
# Needs tmux, curl, valkey-server and the plugins of `make guests`.
set -euo pipefail
larder=$(realpath "$1")
cd "$(dirname "$0")/../.."
guests=target/wasm32-wasip2/release
work=$(mktemp -d)
port=$((20000 + RANDOM % 20000))
session=larder-top-$$
started=()
end() {
    for process in "${started[@]}"; do kill "$process" 2>/dev/null || true; done
    tmux kill-session -t "$session" 2>/dev/null || true
    rm -rf "$work"
}
trap end EXIT

valkey-server --bind 127.0.0.1 --port "$port" --save '' --dir "$work" >"$work/valkey.log" &
started+=($!)
cat >"$work/larder.toml" <<TOML
default = "pages"

[caches.pages]
type = "ram"
max_bytes = "2MiB"

[caches.shared]
type = "valkey"
host = "127.0.0.1"
port = $port
near = { max_bytes = "16MiB" }

[serve]
metrics_addr = "127.0.0.1:$((port + 1))"

[plugins.pages]
path = "$PWD/$guests/http-pages.wasm"
route = "/pages"
caches = ["pages"]

[plugins.rates]
path = "$PWD/$guests/http-rates.wasm"
route = "/rates"
caches = ["shared"]
TOML
"$larder" serve --config "$work/larder.toml" --addr "127.0.0.1:$((port + 2))" >"$work/serve.log" 2>&1 &
started+=($!)
curl --silent --show-error --retry 60 --retry-delay 1 --retry-all-errors "http://127.0.0.1:$((port + 1))/-/ready" >/dev/null

tmux new-session -d -s "$session" -x 112 -y 20 "$larder top 127.0.0.1:$((port + 1))"
for second in $(seq 20); do
    for request in $(seq $((second % 5 * 4 + 6))); do
        curl --silent --output /dev/null "http://127.0.0.1:$((port + 2))/pages/$((request % 7))" \
            --next --silent --output /dev/null "http://127.0.0.1:$((port + 2))/rates/"
    done
    sleep 0.4
done
tmux capture-pane -e -p -t "$session" >docs/pictures/top.ansi
docs/pictures/draw.py
