#!/usr/bin/env bash
# Requests twenty numbers from each host many times over 64 connections, and prints statuses and latencies. Needs curl.
#   load.sh [HOST:PORT ...]    the hosts [default: 127.0.0.1:8080 127.0.0.1:8081]
#   ROUNDS=200                 requests per host and number [default: 200]
set -euo pipefail

rounds=${ROUNDS:-200}
[ $# -gt 0 ] || set -- 127.0.0.1:8080 127.0.0.1:8081
requests=()
for host in "$@"; do
    requests+=(--output /dev/null "http://$host/primes/[20000-20019]?round=[1-$rounds]")
done

# One line per response: its status and its time in seconds. They are sorted by time, for the percentiles.
curl --no-progress-meter --parallel --parallel-max 64 --write-out '%{http_code} %{time_total}\n' "${requests[@]}" | sort -k 2 -g | awk '
    { statuses[$1]++; took[NR] = $2 * 1000 }
    END {
        for (status in statuses) printf "%d answers with status %s\n", statuses[status], status
        printf "half of them within %.1f ms, 99 in 100 within %.1f ms\n", took[int((NR + 1) / 2)], took[int((NR * 99 + 99) / 100)]
    }'
